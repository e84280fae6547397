"""What the sections of a report are made of: claims in words, and the exhibits that bear them out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Band, draw_comparison
from fedreid_mpi.report.study import METRICS, Method
from fedreid_mpi.report.tables import Picture, Table, comparison_table
from fedreid_mpi.report.values import Comparison, Spread, compare, last_common_round, mean_curve

Entry = tuple[str, Method, ModelKind | None]
"""Label, method, and which of its models; None: the one that it is judged by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One section of a report.

    Attributes
    ----------
    key
        Its anchor on the page.
    title
        The question.
    claims
        A sentence each, all of them computed.
    exhibits
        Tables and pictures, in the order of the page.
    missing
        Which runs would answer it, or the rest of it; empty: none is missing.
    """

    key: str
    title: str
    claims: tuple[str, ...] = ()
    exhibits: tuple[Table | Picture, ...] = ()
    missing: str = ""


def entries(methods: Iterable[Method]) -> list[Entry]:
    """Return methods as entries of a comparison, each judged by its own model."""
    return [(method.name, method, None) for method in methods]


def compared(
    stem: str, caption: str, sides: Sequence[Entry], epochs: bool = False
) -> tuple[list[str], list[Table | Picture]]:
    """Compare methods at the last round, or number of local epochs, that all of their runs have evaluated.

    Returns
    -------
    claims : list of str
        A sentence for each method but the first, the reference.
    exhibits : list
        Picture and table of rank-1, table of mAP.
    """
    methods = [method for _, method, _ in sides]
    last = last_common_round(methods, epochs)
    if last is None:
        what = "number of local epochs" if epochs else "round"
        names = ", ".join(dict.fromkeys(method.name for method in methods))
        return [f"There is no {what} that all runs of {names} have evaluated."], []
    when = f"epochs:{last}" if epochs else last
    comparisons = [compare(sides, when, metric) for metric in METRICS]
    exhibits: list[Table | Picture] = [
        Picture(stem, f"{caption}: dots are means, whiskers ± deviation", draw_comparison(comparisons[0]))
    ]
    for metric, comparison in zip(METRICS, comparisons, strict=True):
        if any(np.isfinite(row).any() for series in comparison.series for row in series.values.values()):
            exhibits.append(comparison_table(f"{stem}-{metric.lower()}", caption, comparison))
    return list(differences_in_words(comparisons[0])), exhibits


def differences_in_words(comparison: Comparison) -> Iterable[str]:
    """Say for each series but the reference where it is higher, lower, or within the spread."""
    reference, *others = comparison.series
    for series in others:
        spreads = series.less(reference)
        seeds = max(spread.seeds for spread in spreads)
        opening = f"{series.label} against {reference.label}, {comparison.metric}, {comparison.when}: "
        if not seeds:
            yield opening + "no figures of the same seed on both sides."
            continue
        named = list(zip(comparison.rows, spreads, strict=True))
        means = ", ".join(f"{name} {in_words(spread)}" for name, spread in named[comparison.datasets :])
        kinds: dict[str, list[str]] = {"Higher": [], "Lower": [], "Within the spread": []}
        for name, spread in named[: comparison.datasets]:
            if not isnan(spread.mean):
                within = seeds > 1 and not spread.stands_out
                kind = "Within the spread" if within else "Higher" if spread.mean > 0 else "Lower"
                agreeing = f" ({spread.agreeing} of {spread.seeds})" if spread.seeds > 1 else ""
                kinds[kind].append(f"{name} {spread}{agreeing}")
        parts = [f" {kind}: {', '.join(names)}." for kind, names in kinds.items() if names]
        single = " One seed alone: no spread is known." if seeds == 1 else ""
        yield f"{opening}{means}.{''.join(parts)}{single}"


def in_words(spread: Spread) -> str:
    """Return a difference with the number of seeds that agree in its sign, and whether it stands out."""
    if spread.seeds < 2:
        return str(spread)
    within = "" if spread.stands_out else ", within the spread"
    return f"{spread} ({spread.agreeing} of {spread.seeds} seeds{within})"


def curve_of(method: Method, metric: str, scale: float = 1.0) -> Band:
    """Return a method's mean score over the datasets by round, times ``scale``, without missing points."""
    rounds, curves = mean_curve(method, None, metric)
    there = np.isfinite(curves).all(axis=0)
    return Band(method.name, scale * rounds[there], curves[:, there])


def suffix(number: int) -> str:
    """Return what tells the files of a second family from those of the first."""
    return f"-{number}" if number > 1 else ""
