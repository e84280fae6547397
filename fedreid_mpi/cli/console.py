"""What every command prints with: tables, progress bars and the one-line error."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fedreid_mpi.records import Advance


def is_seen_on_terminal() -> bool:
    """Tell whether a person's terminal shows this process's output.

    Open MPI gives its ranks a pseudo-terminal even when its own output goes into a job's log. So a process
    that a launcher started asks what the launcher itself writes to.
    """
    launched = any(name in os.environ for name in ("PMIX_RANK", "PMI_RANK", "SLURM_PROCID"))
    if not launched:
        return sys.stdout.isatty()
    try:
        launcher_output = Path(f"/proc/{os.getppid()}/fd/1").readlink()
    except OSError:
        return False
    return str(launcher_output).startswith(("/dev/pts/", "/dev/tty"))


def print_error(message: str) -> None:
    """Print the one line that a failed command leaves on the error stream."""
    click.echo("fedreid-mpi: error: " + " ".join(message.split()), err=True)


def print_table(table: Any) -> None:  # noqa: ANN401 (any rich renderable)
    """Print a rich table, at full width where the output is no terminal."""
    from rich.console import Console

    seen = is_seen_on_terminal() or "FORCE_COLOR" in os.environ
    console = Console() if seen else Console(width=140, force_terminal=False)
    console.print(table)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Draw a progress bar on a terminal's error stream; stay silent elsewhere.

    Parameters
    ----------
    description
        Words before the bar.
    total
        Number of items.

    Yields
    ------
    Advance
        To be called with the number of items just finished.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
