"""What every command prints with: tables, progress bars and the one-line error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fedreid_mpi.types import Advance


def print_error(message: str) -> None:
    """Print the one line that a failed command leaves on the error stream."""
    click.echo("fedreid-mpi: error: " + " ".join(message.split()), err=True)


def print_table(table: Any) -> None:  # noqa: ANN401 (any rich renderable)
    """Print a rich table, at full width where the output is no terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
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
