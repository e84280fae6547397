"""Which figures of a table are the highest, and which are not clearly below them."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from math import isnan

from fedreid_mpi.report.values import PERCENT, Series

Place = tuple[int, int]
"""Row and column of a table."""


class Mark(Enum):
    """What is said of a figure."""

    HIGHEST = auto()
    """In bold: no other method has a higher mean, to the decimal shown."""

    CLOSE = auto()
    """Underlined: lower, but not clearly so."""


def marks(series: Sequence[Series]) -> dict[Place, Mark]:
    """Mark, dataset by dataset, the highest of the methods' means and those not clearly below it.

    A figure is clearly below the highest where the t interval of the difference, paired by seed, leaves out
    0; see `fedreid_mpi.report.values.Spread.clear`. Of a single seed nothing is known of chance: the highest
    alone is marked.

    Parameters
    ----------
    series
        A method each. A single one has no highest figure.

    Returns
    -------
    dict
        Of a table with one row per series, whose first column names it.
    """
    found: dict[Place, Mark] = {}
    spreads = [each.spreads() for each in series]
    for dataset in range(len(spreads[0]) if len(series) > 1 else 0):
        means = {row: of[dataset].mean for row, of in enumerate(spreads) if not isnan(of[dataset].mean)}
        if len(means) < 2:
            continue
        first = max(means, key=lambda row: means[row])
        for row in means:
            difference = series[first].minus(series[row])[dataset]
            if round(means[row], 1) == round(means[first], 1):
                found[row, dataset + 1] = Mark.HIGHEST
            elif difference.seeds > 1 and not difference.clear:
                found[row, dataset + 1] = Mark.CLOSE
    return found


def transposed(marks: Mapping[Place, Mark]) -> dict[Place, Mark]:
    """Return marks of a table with one row per dataset and one column per series."""
    return {(column - 1, row + 1): mark for (row, column), mark in marks.items()}


def meaning(marks: Iterable[Mark], differences: bool) -> str:
    """Describe what the marks of a table mean.

    Parameters
    ----------
    marks
        Those that are there.
    differences
        Whether differences that are clear are in bold.
    """
    there = set(marks)
    words = "bold: the highest" if Mark.HIGHEST in there else ""
    if Mark.CLOSE in there:
        words += "; underlined: not clearly below it"
    if differences:
        clear = f"bold differences are clear: their {PERCENT} interval excludes 0"
        words = f"{words}; {clear}" if words else clear
    return f"{words[:1].upper()}{words[1:]}." if words else ""
