"""What every command prints with: tables, progress bars and the one-line error."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedreid_mpi.records import Advance

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH_ELSEWHERE = 140
"""Columns of a line where the output is no terminal."""


def is_seen_on_terminal() -> bool:
    """Return whether a person's terminal shows this process's output.

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


def plain_console(**options: Any) -> "Console":  # noqa: ANN401 (those of rich.console.Console)
    """Return a console that shows text as it is: a name in brackets is a name, and no markup.

    What is to have a colour is a ``rich.text.Text`` with a style. All consoles are made here.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def output_console() -> "Console":
    """Return the console for standard output, at full width where that is no terminal."""
    seen = is_seen_on_terminal() or "FORCE_COLOR" in os.environ
    return plain_console() if seen else plain_console(width=WIDTH_ELSEWHERE, force_terminal=False)


def print_table(table: Any) -> None:  # noqa: ANN401 (any rich renderable)
    """Print a rich table, at full width where the output is no terminal."""
    output_console().print(table)


def make_progress(console: "Console", shown: bool) -> "Progress":
    """Make a progress bar, to be started, which shows descriptions as they are."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not shown)


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Draw a progress bar on a terminal's error stream; stay silent elsewhere, and with ``--quiet``.

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
    console = plain_console(stderr=True)
    quiet = logging.getLogger("fedreid_mpi").level > logging.INFO
    with make_progress(console, console.is_terminal and not quiet) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
