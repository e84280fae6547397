"""Campaign: ranks are killed, stopped or leave at random moments; the others go on and count right."""

import sys
from collections.abc import Iterator
from pathlib import Path

from campaigns.chaos import Trial
from support.launching import PROGRAMS, launch, surviving
from support.on_ranks.mpi_losses import doomed

RANKS = 8


def play(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Play launches of `RANKS` ranks, all but two of which go missing, until enough have."""
    victims = RANKS - 2
    for number in range(seed, seed + -(-count // victims)):
        program = (sys.executable, PROGRAMS / "mpi_losses.py", "random", str(number))
        ended = launch(RANKS, *program, cwd=folder, launcher=surviving())
        kept = ended.code == 0 and f"survived {victims} " in ended.stdout
        for _, how in doomed(RANKS, number).values():
            yield Trial(
                how, "" if kept else f"seed {number}: exit code {ended.code} {' '.join(ended.errors)}"
            )
