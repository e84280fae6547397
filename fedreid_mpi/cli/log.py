"""What commands say while they work, through the standard library's logging: `--verbose` and `--quiet`."""

import functools
import logging
import time
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
"""Columns where the output is not a terminal."""

TIME = "%Y-%m-%d %H:%M:%S"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(verbose: str, quiet: str) -> Decorator:
    """Add ``--verbose`` and ``--quiet``, with these help texts, to a command."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        return click.option("--verbose", is_flag=True, help=verbose)(
            click.option("--quiet", is_flag=True, help=quiet)(command)
        )

    return add


verbosity = _options(
    "Print what every rank does, each line with its time and rank.",
    "Print errors and what is out of the ordinary, and nothing else.",
)
"""Adds the options to a command that runs on ranks, which opens a `run_log` itself."""


def logged(result: str = "") -> Decorator:
    """Add the options to a command of one process, and print its log to standard output while it works.

    Parameters
    ----------
    result
        What the command prints even with ``--quiet``: its answer, for commands that are called for it.
    """
    options = _options(
        "Print each step with its time and duration.",
        f"Print {result + ', ' * bool(result)}errors and what is out of the ordinary, and nothing else.",
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*arguments: Any, verbose: bool, quiet: bool, **named: Any) -> Any:  # noqa: ANN401
            level = level_of(verbose, quiet)
            with _handled(_EchoHandler(level < logging.INFO), level):
                return command(*arguments, **named)

        return options(run)

    return add


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Log how long a step took, for ``--verbose``."""
    began = time.perf_counter()
    yield
    LOG.debug("%s: %.2f s", step, time.perf_counter() - began)


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


class _EchoHandler(logging.Handler):
    """Prints records of a command of one process; where they cannot be printed, the command ends."""

    def __init__(self, timed: bool) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s  %(message)s" if timed else "%(message)s", TIME))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        click.echo(self.format(record))


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
                now = self.formatter.formatTime(record, TIME) if self.formatter else ""
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
    with _handled(_OutputHandler(console, level < logging.INFO, rank), level):
        yield console


@contextmanager
def _handled(handler: logging.Handler, level: int) -> Iterator[None]:
    """Send records from a level on to a handler until the block ends."""
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(level)
    try:
        yield
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
