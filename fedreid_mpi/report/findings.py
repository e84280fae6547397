"""What the sections of a report consist of: claims in words, and the exhibits that support them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Band, draw_comparison
from fedreid_mpi.report.study import METRICS, Method
from fedreid_mpi.report.tables import Picture, Table, comparison_table
from fedreid_mpi.report.values import (
    Comparison,
    Spread,
    common_rounds,
    compare,
    last_common_round,
    mean_curve,
    signed,
)

GLOBAL_MODELS, LOCAL_MODELS = "global models", "local models"

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
        What to add to answer it, or the rest of it; empty: nothing is missing.
    """

    key: str
    title: str
    claims: tuple[str, ...] = ()
    exhibits: tuple[Table | Picture, ...] = ()
    missing: str = ""


def entries(methods: Iterable[Method], kind: ModelKind | None = None) -> list[Entry]:
    """Return methods as entries of a comparison, each judged by one of its models."""
    return [(method.name, method, kind) for method in methods]


def compared(
    stem: str, caption: str, sides: Sequence[Entry], epochs: bool = False, models: str = ""
) -> tuple[list[str], list[Table | Picture]]:
    """Compare methods at the last round, or number of local epochs, that all of their runs have evaluated.

    Parameters
    ----------
    stem
        Of the files.
    caption
        What is compared.
    sides
        The reference first.
    epochs
        Whether they are compared at a number of local epochs.
    models
        Which models they are, in words.

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
        return [f"No {what} was evaluated in all runs of {names}."], []
    when = f"epochs:{last}" if epochs else last
    comparisons = [compare(sides, when, metric, models) for metric in METRICS]
    exhibits: list[Table | Picture] = [
        Picture(stem, f"{caption}: dots are means, whiskers ± deviation", draw_comparison(comparisons[0]))
    ]
    for metric, comparison in zip(METRICS, comparisons, strict=True):
        if any(np.isfinite(row).any() for series in comparison.series for row in series.values.values()):
            exhibits.append(comparison_table(f"{stem}-{metric.lower()}", caption, comparison))
    return list(differences_in_words(comparisons[0])), exhibits


def compared_by_model(
    stem: str, caption: str, methods: Sequence[Method], epochs: bool = False
) -> tuple[list[str], list[Table | Picture]]:
    """Compare federated methods by their global models and, where all have them, by their local ones."""
    claims, exhibits = compared(stem, caption, entries(methods), epochs, GLOBAL_MODELS)
    if all(method.scored(ModelKind.LOCAL) for method in methods):
        sides = entries(methods, ModelKind.LOCAL)
        said, shown = compared(f"{stem}-local", caption, sides, epochs, LOCAL_MODELS)
        claims += said
        exhibits += shown
    return claims, exhibits


def rounds_in_words(methods: Sequence[Method]) -> list[str]:
    """Describe where the runs of a comparison were evaluated in different rounds, and how many they share."""
    common = common_rounds(methods)
    counts = {
        method.name: sorted({int((run.results.evaluations > 0).sum()) for run in method.runs})
        for method in methods
    }
    if all(numbers == [len(common)] for numbers in counts.values()):
        return []
    words = ", ".join(f"{name} {' or '.join(map(str, numbers))}" for name, numbers in counts.items())
    return [
        f"Evaluated rounds differ: {words}. Only the {len(common)} that all have are compared, and the best "
        "three are chosen among them."
    ]


def differences_in_words(comparison: Comparison) -> Iterable[str]:
    """Describe for each series but the reference where it is clearly higher, clearly lower, or neither.

    Deviations of single datasets are in the tables.
    """
    reference, *others = comparison.series
    for series in others:
        spreads = series.minus(reference)
        seeds = max(spread.seeds for spread in spreads)
        opening = f"{series.label} minus {reference.label} ({comparison.metric}, {comparison.when}):"
        if not seeds:
            yield opening + " they have no seed in common."
            continue
        named = list(zip(comparison.rows, spreads, strict=True))
        several = named[comparison.datasets :] if comparison.datasets > 1 else []
        means = ", ".join(f"{name} {in_words(spread)}" for name, spread in several)
        clearly = ("Clearly higher", "Clearly lower") if seeds > 1 else ("Higher", "Lower")
        kinds: dict[str, list[str]] = {clearly[0]: [], clearly[1]: [], "Not clear": [], "The same": []}
        for name, spread in named[: comparison.datasets]:
            if not isnan(spread.mean):
                unclear = seeds > 1 and not spread.clear
                kind = "Not clear" if unclear else clearly[0] if spread.mean > 0 else clearly[1]
                if not unclear and round(spread.mean, 1) == 0:
                    kind = "The same"
                kinds[kind].append(f"{name} {signed(spread.mean)}" if several else f"{name} {spread}")
        parts = [f" {kind}: {', '.join(names)}." for kind, names in kinds.items() if names]
        single = " Only one seed: no spread is known." if seeds == 1 else ""
        parts = [f" {means}."] * bool(means) + parts
        yield f"{opening}{''.join(parts)}{single}"


def in_words(spread: Spread) -> str:
    """Return a difference with its interval."""
    if spread.seeds < 2:
        return str(spread)
    words = []
    if not isnan(spread.margin):
        words.append(" to ".join(signed(spread.mean + side * spread.margin) for side in (-1, 1)))
    if not spread.clear:
        words.append("not clear")
    return f"{spread} ({', '.join(words)})"


def curve_of(method: Method, metric: str, scale: float = 1.0) -> Band:
    """Return a method's mean score over the datasets by round, times ``scale``, without missing points."""
    rounds, curves = mean_curve(method, None, metric)
    there = np.isfinite(curves).all(axis=0)
    return Band(method.name, scale * rounds[there], curves[:, there])


def suffix(number: int) -> str:
    """Return what tells the files of a second family from those of the first."""
    return f"-{number}" if number > 1 else ""
