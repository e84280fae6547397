"""The paper's tables and figures in its own terms, as far as the runs allow: one function each.

Source: Zhuang et al., ACM TOMM 19(1s), 2023: tables 2 to 5, figures 2 and 4. The global model is the server's
average, local models are the clients' after their local epochs, before upload; standalone is a client that
was trained alone. What is missing is named with the settings that give it.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Panel, draw_curves
from fedreid_mpi.report.comparable import KINDS, groups, has, lacking, moments, to_add, unscored
from fedreid_mpi.report.findings import (
    GLOBAL_MODELS,
    Answer,
    Entry,
    curve_of,
    rounds_in_words,
    suffix,
)
from fedreid_mpi.report.one_dataset import table_2
from fedreid_mpi.report.study import METRICS, Method, Study
from fedreid_mpi.report.tables import Picture, Table, methods_table
from fedreid_mpi.report.terms import CENTRALISED, FEDPAV, STANDALONE
from fedreid_mpi.report.unseen import table_5
from fedreid_mpi.report.values import Comparison, Spread, common_rounds, compare
from fedreid_mpi.wording import counted

_TABLE_4 = (FEDPAV, "FedNova", "FedProx", "CC", "CDW", "CC & CDW")
_FIGURE_4 = (FEDPAV, "KD", "CDW", "KD & CDW")


def table_3(study: Study) -> Answer:
    """Tabulate centralised, standalone, and FedPav's global and local models; then all methods by both."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    found = groups(study)
    missing: list[str] = []
    for number, group in enumerate(found, start=1):
        sides = [entry for method in group.methods for entry in _both_models(method)]
        paper = [entry for entry in sides if entry[1].term in (CENTRALISED, STANDALONE, FEDPAV)]
        rounds = common_rounds(group.methods)
        claims += rounds_in_words(group.methods)
        stem = f"table-3{suffix(number)}"
        if paper:
            exhibits += _tables(stem, "Centralised, standalone and FedPav", paper, rounds)
        if len(paper) < len(sides):
            exhibits += _tables(f"{stem}-all", "All methods by both models", sides, rounds)
        missing += lacking((CENTRALISED, STANDALONE, FEDPAV), group.methods)
    missing += unscored(method for group in found for method in group.of(FEDPAV))
    missing = missing if found else lacking((CENTRALISED, STANDALONE, FEDPAV), ())
    title = "Table 3: centralised, standalone and FedPav"
    return Answer("table-3", title, tuple(claims), tuple(exhibits), to_add(missing, exhibits))


def table_4(study: Study) -> Answer:
    """Tabulate what each method's local models, and its global one, have more than standalone."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    found = groups(study)
    missing: list[str] = [] if found else lacking((STANDALONE, *_TABLE_4), ())
    for number, group in enumerate(found, start=1):
        missing += lacking((STANDALONE, *_TABLE_4), group.methods)
        if group.standalone is None:
            continue
        rounds = common_rounds(group.methods)
        for kind, words in KINDS:
            sides: list[Entry] = [
                (method.titled, method, kind) for method in group.federated if has(method, kind)
            ]
            if sides:
                stem = f"table-4-{kind}{suffix(number)}"
                baseline = (STANDALONE, group.standalone, None)
                caption = f"Gains, {words} minus standalone"
                said, shown = _gains(stem, caption, [baseline, *sides], words, rounds)
                claims += said
                exhibits += shown
    missing += unscored(method for group in found for name in _TABLE_4 for method in group.of(name))
    title = "Table 4: gains over standalone"
    return Answer("table-4", title, tuple(claims), tuple(exhibits), to_add(missing, exhibits))


def figure_2(study: Study) -> Answer:
    """Tabulate batch sizes and, at as many epochs, numbers of local epochs, by the global model."""
    exhibits: list[Table | Picture] = []
    missing = []
    for key, stem, words, named in (
        ("federation.batch_size", "figure-2-batch-size", "B", "Batch size B"),
        ("federation.local_epochs", "figure-2-local-epochs", "E", "Local epochs E"),
    ):
        families = study.families(key)
        for number, family in enumerate(families, start=1):
            sides = [
                _with_value(method, words, key)
                for method in sorted(family, key=lambda method: int(method.settings[key]))
            ]
            epochs = not family[0].settings["federation.local_iterations"]  # else rounds are of equal steps
            common = common_rounds(family, epochs)
            if common:
                name = f"{stem}{suffix(number)}"
                caption = f"{named}, after the same number of {'epochs' if epochs else 'rounds'}"
                at = f"epochs:{common[-1]}" if epochs else common[-1]
                exhibits += [
                    methods_table(
                        f"{name}-{metric.lower()}",
                        caption,
                        compare(sides, at, metric, GLOBAL_MODELS),
                        folded=metric != METRICS[0],
                    )
                    for metric in METRICS
                ]
        if not families:
            missing.append(f"two methods that differ in {key} alone")
    title = "Figure 2: batch size and local epochs"
    return Answer("figure-2", title, (), tuple(exhibits), to_add(missing, exhibits))


def figure_4(study: Study) -> Answer:
    """Draw the convergence of FedPav, KD, CDW and KD & CDW, by the global model."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    missing: list[str] = []
    found = [group for group in groups(study) if any(map(group.of, _FIGURE_4[1:]))]
    for number, group in enumerate(found, start=1):
        methods = [method for name in _FIGURE_4 for method in group.of(name)]
        bands = {
            metric: tuple(band for method in methods if (band := curve_of(method, metric)).x.size > 1)
            for metric in METRICS
        }
        panels = [Panel("round", f"mean {metric} (%)", of) for metric, of in bands.items() if of]
        if panels:
            caption = (
                "Convergence of the global model: mean over the datasets by round, lowest to highest seed"
            )
            exhibits.append(Picture(f"figure-4{suffix(number)}", caption, draw_curves(panels)))
        claims += rounds_in_words(methods)
        sides: list[Entry] = [(method.titled, method, ModelKind.GLOBAL) for method in methods]
        exhibits += _tables(
            f"figure-4{suffix(number)}", "KD, CDW, and KD & CDW", sides, common_rounds(methods), GLOBAL_MODELS
        )
        missing += lacking(_FIGURE_4, group.methods)
    missing = missing if found else lacking(_FIGURE_4[1:], ())
    title = "Figure 4: convergence of KD, CDW, and KD & CDW"
    return Answer("figure-4", title, tuple(claims), tuple(exhibits), to_add(missing, exhibits))


PAPER: tuple[Callable[[Study], Answer], ...] = (table_2, table_3, table_4, table_5, figure_2, figure_4)
"""In the order of the page, which they open."""


def _with_value(method: Method, words: str, key: str) -> Entry:
    """Return a method's global model under the value of a setting, with its name where that says more."""
    value = f"{words} = {method.settings[key]}"
    return value if method.name == value else f"{value} ({method.name})", method, ModelKind.GLOBAL


def _both_models(method: Method) -> list[Entry]:
    """Return a method's entries: its global model, its local models, whichever are scored."""
    if method.term in (CENTRALISED, STANDALONE):
        return [(method.titled, method, None)]
    return [
        (f"{method.titled}, {words.removesuffix('s') if kind is ModelKind.GLOBAL else words}", method, kind)
        for kind, words in reversed(KINDS)
        if method.scored(kind)
    ]


def _tables(
    stem: str, caption: str, sides: Sequence[Entry], rounds: Sequence[int], models: str = ""
) -> Iterable[Table]:
    """Tabulate scores: rank-1 of the last round is open on the page, the others are folded."""
    for when, ending in moments(rounds):
        for metric in METRICS:
            folded = bool(ending) or metric != METRICS[0]
            comparison = compare(sides, when, metric, models, rounds)
            yield methods_table(f"{stem}{ending}-{metric.lower()}", caption, comparison, folded=folded)


def _gains(
    stem: str, caption: str, sides: Sequence[Entry], models: str, rounds: Sequence[int]
) -> tuple[list[str], list[Table]]:
    """Tabulate what all sides have more than the first, and say how often it is clear."""
    claims: list[str] = []
    tables = []
    for when, ending in moments(rounds):
        for metric in METRICS:
            comparison = compare(sides, when, metric, rounds=rounds)
            name = f"{stem}{ending}-{metric.lower()}"
            hidden = bool(ending) or metric != METRICS[0]
            tables.append(methods_table(name, caption, comparison, comparison.series[0], hidden))
            if (metric, ending) == (METRICS[0], ""):
                claims += _in_words(comparison, models)
    return claims, tables


def _in_words(comparison: Comparison, models: str) -> Iterable[str]:
    """Count the datasets on which each series is clearly above or below the first; name the highest."""
    reference, *others = comparison.series
    means: dict[str, Spread] = {}
    over = comparison.rows[comparison.datasets]
    for series in others:
        spreads = series.minus(reference)
        mean = spreads[comparison.datasets]
        if np.isfinite(mean.mean):
            means[series.label] = mean
        clear = [spread for spread in spreads[: comparison.datasets] if spread.clear]
        above = sum(spread.mean > 0 for spread in clear)
        if max(spread.seeds for spread in spreads) > 1:
            yield (
                f"{series.label}, {models}: clearly above {reference.label} on {above} of "
                f"{counted(comparison.datasets, 'dataset')}, clearly below on {len(clear) - above}; "
                f"{over} {mean}{'' if mean.clear else ', not clear'}."
            )
    if len(means) > 1:
        best = max(means, key=lambda name: means[name].mean)
        yield f"Highest {over}, {models}: {best}, {means[best]}."
