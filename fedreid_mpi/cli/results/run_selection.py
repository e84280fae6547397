"""What `list`, `compare` and `export` have in common: paths, ``--where``, and the runs that are meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedreid_mpi.cli.results.refusals import Refusals
    from fedreid_mpi.results.summary import RunSummary


def takes_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument PATHS and the option ``--where``."""
    command = click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only runs whose configuration has this value, e.g. aggregation.weights=cosine-distance; may be "
        "repeated.",
    )(command)
    return click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)(command)


def chosen_runs(paths: tuple[Path, ...], where: tuple[str, ...], refuse: Refusals) -> list[RunSummary]:
    """Summarise the runs under some paths that meet all conditions, each once.

    Raises
    ------
    ConfigurationError
        A condition makes no sense.
    """
    from fedreid_mpi.errors import DataError
    from fedreid_mpi.results.conditions import Condition, check_keys
    from fedreid_mpi.results.sources import find_runs
    from fedreid_mpi.results.survey import keep_once, summarise_all

    conditions = [Condition.parse(text) for text in where]
    found: list[RunSummary] = []
    for summary in summarise_all(list(find_runs(paths, refuse))):
        if isinstance(summary, DataError):
            refuse(summary)
        else:
            keep_once(found, summary)
    check_keys(conditions, (summary.settings for summary in found))
    return [
        summary for summary in found if all(condition.holds(summary.settings) for condition in conditions)
    ]


def require_runs(paths: tuple[Path, ...], where: tuple[str, ...], refuse: Refusals) -> list[RunSummary]:
    """Return what `chosen_runs` does.

    Raises
    ------
    DataError
        There is no run, or none that can be read.
    """
    from fedreid_mpi.errors import DataError

    found = chosen_runs(paths, where, refuse)
    if not found:
        refuse.settle()
        raise DataError(f"{', '.join(map(str, paths))}: no run that meets {', '.join(where) or 'this'}")
    return found
