"""The log of a run by the standard library's logging: what its ranks say, on a terminal or in a job's log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fedreid_mpi.cli.console import is_seen_on_terminal, plain_console

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("fedreid_mpi")
"""Parent of the loggers of all modules; nothing is configured before a command asks for it."""

WIDTH_OF_TABLES = 120
"""Columns where the output is no terminal."""


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--verbose`` and ``--quiet`` to a command."""
    quiet = click.option(
        "--quiet", is_flag=True, help="Print errors and what is out of the ordinary, and nothing else."
    )
    verbose = click.option(
        "--verbose", is_flag=True, help="Print what every rank does, each line with its time and rank."
    )
    return verbose(quiet(command))


def level_of(verbose: bool, quiet: bool) -> int:
    """Return the level of logging that the two options ask for.

    Raises
    ------
    click.UsageError
        They are both given.
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet: expected one of them")
    return logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO


class _OutputHandler(logging.Handler):
    """Prints records: bare on a terminal, elsewhere with their time; if verbose with time and rank."""

    def __init__(self, console: "Console", verbose: bool, rank: Callable[[], int]) -> None:
        super().__init__()
        self._console, self._verbose, self._rank = console, verbose, rank
        self._timed = verbose or not console.is_terminal
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; each of its lines has the time."""
        try:
            text = self.format(record)
            if self._timed:
                now = self.formatter.formatTime(record, "%Y-%m-%d %H:%M:%S") if self.formatter else ""
                head = f"{now} rank {self._rank()}" if self._verbose else now
                text = "\n".join(f"{head}  {line}" for line in text.splitlines())
            self._console.print(text, soft_wrap=not self._console.is_terminal)
        except Exception:  # noqa: BLE001 (as every handler does)
            self.handleError(record)


@contextmanager
def run_log(level: int, rank: Callable[[], int]) -> "Iterator[Console]":
    """Print the log of this process to standard output until the block ends.

    Parameters
    ----------
    level
        From which on records are printed.
    rank
        Tells the rank of this process, which may change where ranks are lost.

    Yields
    ------
    Console
        On which the log appears; progress bars have to be drawn on the same.
    """
    seen = is_seen_on_terminal()
    console = plain_console(force_terminal=seen, width=None if seen else WIDTH_OF_TABLES)
    handler = _OutputHandler(console, level < logging.INFO, rank)
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(level)
    try:
        yield console
    finally:
        LOG.setLevel(before)
        LOG.removeHandler(handler)


def log_table(console: "Console", table: Any) -> None:  # noqa: ANN401 (any rich renderable)
    """Print a table in the log, line by line where lines have times."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    LOG.info("%s", captured.get().rstrip())
