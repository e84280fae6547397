"""The paper's tables and figures in its own terms, as far as the runs allow: one function each.

Source: Zhuang et al., ACM TOMM 19(1s), 2023: tables 2 to 4, figures 2 and 4. The global model is the server's
average, local models are the clients' after their local epochs, before upload; standalone is a client that
was trained by itself. What is not there is named with the settings that give it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Panel, draw_curves
from fedreid_mpi.report.findings import (
    GLOBAL_MODELS,
    LOCAL_MODELS,
    Answer,
    Entry,
    curve_of,
    rounds_in_words,
    suffix,
)
from fedreid_mpi.report.study import METRICS, Method, Study
from fedreid_mpi.report.tables import Cell, Picture, Table, methods_table
from fedreid_mpi.report.terms import BASELINES, CENTRALISED, FEDPAV, OPTIONS, STANDALONE, column
from fedreid_mpi.report.values import Comparison, Spread, common_rounds, compare, scores_at

_KINDS = ((ModelKind.LOCAL, LOCAL_MODELS), (ModelKind.GLOBAL, GLOBAL_MODELS))
_CMC = ("rank-1", "rank-5", "rank-10", "mAP")

_SETTINGS = {
    CENTRALISED: 'federation.mode = "centralised"',
    STANDALONE: 'federation.mode = "local"',
    FEDPAV: "the defaults of aggregation",
    "FedNova": 'aggregation.rule = "fednova"',
    "FedProx": "objective.proximal above 0",
    "CC": "clustering.enabled",
    "CDW": 'aggregation.weights = "cosine-distance"',
    "CC & CDW": "clustering.enabled and cosine-distance",
    "KD": "distillation.enabled",
    "KD & CDW": "distillation.enabled and cosine-distance",
}
"""The paper's methods, and what gives each."""

_TABLE_4 = (FEDPAV, "FedNova", "FedProx", "CC", "CDW", "CC & CDW")
_FIGURE_4 = (FEDPAV, "KD", "CDW", "KD & CDW")


@dataclass(frozen=True, slots=True)
class Group:
    """Methods that differ in nothing but how clients learn from each other.

    Attributes
    ----------
    federated
        At least one.
    standalone, centralised
        Those with the same images and the same training; None where there is none.
    """

    federated: tuple[Method, ...]
    standalone: Method | None
    centralised: Method | None

    @property
    def methods(self) -> list[Method]:
        """All of them, in the order of the paper's tables."""
        return [*filter(None, (self.centralised, self.standalone)), *self.federated]

    def of(self, term: str) -> list[Method]:
        """Return the methods that the paper calls so."""
        return [method for method in self.methods if method.term == term]


def groups(study: Study) -> list[Group]:
    """Return the groups of a study, the largest first; without others a federated method is one."""
    found = []
    for family in study.families(*OPTIONS, least=1):
        others = {method.term: method for method in study.like(family[0], *OPTIONS, *BASELINES)}
        found.append(Group(family, others.get(STANDALONE), others.get(CENTRALISED)))
    found.sort(key=lambda group: -len(group.methods))
    return [group for group in found if len(group.methods) > 1] or found[:1]


def table_2(study: Study) -> Answer:
    """Tabulate one dataset by camera, by identity and centralised."""
    families = study.families(
        *("federation.clients", "federation.identity_clients", "federation.mode", "federation.edge_rounds"),
        mode=None,
        least=1,
    )
    families = [family for family in families if _split(family)]
    families.sort(key=lambda family: column(family[0].datasets[0]))
    rows: dict[str, list[tuple[Cell, ...]]] = {"last": [], "best": []}
    missing = []
    for family in families:
        sides = sorted(family, key=lambda method: _SPLITS.index(_split_of(method)))
        rounds = common_rounds(sides)
        for method in sides:
            for kind, words in reversed(_KINDS):
                if _has(method, kind) and rounds:
                    for when, at in (("last", rounds[-1]), ("best", "best")):
                        rows[when].append(_row_2(method, kind, words, at, rounds))
        lacking = [words for words in _SPLITS[:3] if words not in map(_split_of, sides)]
        if lacking:
            missing.append(f"{family[0].datasets[0]} {', '.join(lacking)}")
    exhibits = _both(
        "table-2",
        "One dataset split among clients, in percent",
        ("dataset", "split", "clients", "models", "rounds", *_CMC),
        rows,
    )
    if not families:
        missing = [
            'one archive alone in data.archives, with federation.clients = "camera", "identity", and '
            'federation.mode = "centralised"'
        ]
    title = "Table 2: one dataset, by camera and by identity"
    return Answer("table-2", title, (), tuple(exhibits), _add(missing, exhibits))


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
        exhibits += _tables(stem, "Centralised, standalone and FedPav", paper, rounds)
        if len(paper) < len(sides):
            exhibits += _tables(f"{stem}-all", "All methods by both models", sides, rounds)
        missing += _lacking((CENTRALISED, STANDALONE, FEDPAV), group)
        missing += _unscored(method for method in group.federated if method.term == FEDPAV)
    missing = missing if found else _lacking((CENTRALISED, STANDALONE, FEDPAV), None)
    title = "Table 3: centralised, standalone and FedPav"
    return Answer("table-3", title, tuple(claims), tuple(exhibits), _add(missing, exhibits))


def table_4(study: Study) -> Answer:
    """Tabulate what each method's local models, and its global one, have more than standalone."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    found = groups(study)
    missing: list[str] = [] if found else _lacking((STANDALONE, *_TABLE_4), None)
    for number, group in enumerate(found, start=1):
        missing += _lacking((STANDALONE, *_TABLE_4), group)
        missing += _unscored(method for method in group.federated if method.term in _TABLE_4)
        if group.standalone is None:
            continue
        rounds = common_rounds(group.methods)
        for kind, words in _KINDS:
            sides: list[Entry] = [
                (method.titled, method, kind) for method in group.federated if _has(method, kind)
            ]
            if sides:
                stem = f"table-4-{kind}{suffix(number)}"
                baseline = (STANDALONE, group.standalone, None)
                caption = f"Gains, {words} minus standalone"
                said, shown = _gains(stem, caption, [baseline, *sides], words, rounds)
                claims += said
                exhibits += shown
    title = "Table 4: gains over standalone"
    return Answer("table-4", title, tuple(claims), tuple(exhibits), _add(missing, exhibits))


def figure_2(study: Study) -> Answer:
    """Tabulate batch sizes and, at as many epochs, numbers of local epochs, by the global model."""
    exhibits: list[Table | Picture] = []
    missing = []
    for key, stem, words in (
        ("federation.batch_size", "figure-2-batch-size", "B"),
        ("federation.local_epochs", "figure-2-local-epochs", "E"),
    ):
        families = study.families(key)
        for number, family in enumerate(families, start=1):
            sides: list[Entry] = [
                (f"{words} = {method.settings[key]} ({method.name})", method, ModelKind.GLOBAL)
                for method in sorted(family, key=lambda method: int(method.settings[key]))
            ]
            common = common_rounds(family, epochs=True)
            if common:
                name, caption = f"{stem}{suffix(number)}", f"By {words}, at as many epochs"
                at = f"epochs:{common[-1]}"
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
    return Answer("figure-2", title, (), tuple(exhibits), _add(missing, exhibits))


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
        missing += _lacking(_FIGURE_4, group)
    missing = missing if found else _lacking(_FIGURE_4[1:], None)
    title = "Figure 4: convergence of KD, CDW, and KD & CDW"
    return Answer("figure-4", title, tuple(claims), tuple(exhibits), _add(missing, exhibits))


PAPER: tuple[Callable[[Study], Answer], ...] = (table_2, table_3, table_4, figure_2, figure_4)
"""In the order of the page, which they open."""

_SPLITS = ("by camera", "by identity", CENTRALISED, "whole", STANDALONE)


def _split_of(method: Method) -> str:
    """Say how a dataset is divided among clients."""
    if method.term in (CENTRALISED, STANDALONE):
        return method.term
    clients = str(method.settings.get("federation.clients", "dataset"))
    return "whole" if clients == "dataset" else f"by {clients}"


def _split(family: Sequence[Method]) -> bool:
    """Tell whether a family is one dataset, by cameras or people at least once."""
    alone = len(family[0].runs[0].results.datasets) == 1
    return alone and any(_split_of(method).startswith("by ") for method in family)


def _row_2(
    method: Method, kind: ModelKind, models: str, when: int | str, rounds: Sequence[int]
) -> tuple[Cell, ...]:
    chosen = None if method.term == STANDALONE else kind
    scores = [
        Spread.of([scores_at(run, when, chosen, metric, rounds)[0] for run in method.runs]) for metric in _CMC
    ]
    specs = method.runs[0].results.header.clients
    clients = sum(spec.dataset >= 0 for spec in specs)
    return (method.datasets[0], _split_of(method), clients, models, when, *scores)


def _both(
    name: str, caption: str, columns: tuple[str, ...], rows: dict[str, list[tuple[Cell, ...]]]
) -> list[Table]:
    """Make the table of the last common round, and folded that of the best three."""
    words = {"last": "the last common round", "best": "the best three rounds"}
    return [
        Table(f"{name}{'' if when == 'last' else '-best'}", f"{caption}, {words[when]}", columns, tuple(of),
              folded=when == "best")
        for when, of in rows.items()
        if of
    ]  # fmt: skip


def _has(method: Method, kind: ModelKind) -> bool:
    """Tell whether a method has such a model: standalone has local ones alone, centralised a global one."""
    alone = {STANDALONE: ModelKind.LOCAL, CENTRALISED: ModelKind.GLOBAL}.get(method.term, kind)
    return kind is alone and method.scored(kind)


def _both_models(method: Method) -> list[Entry]:
    """Return a method's entries: its global model, its local models, whichever are scored."""
    if method.term in (CENTRALISED, STANDALONE):
        return [(method.titled, method, None)]
    return [
        (f"{method.titled}, {words.removesuffix('s') if kind is ModelKind.GLOBAL else words}", method, kind)
        for kind, words in reversed(_KINDS)
        if method.scored(kind)
    ]


def _moments(rounds: Sequence[int]) -> list[tuple[int | str, str]]:
    """Return the last common round, and the choice of the best three: with the ending of their files."""
    return [(rounds[-1], ""), ("best", "-best")] if rounds else []


def _tables(
    stem: str, caption: str, sides: Sequence[Entry], rounds: Sequence[int], models: str = ""
) -> Iterable[Table]:
    """Tabulate scores: rank-1 of the last round is open on the page, what else there is folded."""
    for when, ending in _moments(rounds):
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
    for when, ending in _moments(rounds):
        for metric in METRICS:
            comparison = compare(sides, when, metric, rounds=rounds)
            name = f"{stem}{ending}-{metric.lower()}"
            hidden = bool(ending) or metric != METRICS[0]
            tables.append(methods_table(name, caption, comparison, comparison.series[0], hidden))
            if (metric, ending) == (METRICS[0], ""):
                claims += _in_words(comparison, models)
    return claims, tables


def _in_words(comparison: Comparison, models: str) -> Iterable[str]:
    """Say for how many datasets each series is clearly above or below the first, and which is highest."""
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
                f"{series.label}, {models}: clearly above {reference.label} for {above} of "
                f"{comparison.datasets} datasets, clearly below for {len(clear) - above}; "
                f"{over} {mean}{'' if mean.clear else ', not clear'}."
            )
    if len(means) > 1:
        best = max(means, key=lambda name: means[name].mean)
        yield f"Highest {over}, {models}: {best}, {means[best]}."


def _lacking(terms: Iterable[str], group: Group | None) -> list[str]:
    """Name the paper's methods that a group does not have, and what gives them."""
    return [f"{term} ({_SETTINGS[term]})" for term in terms if group is None or not group.of(term)]


def _unscored(methods: Iterable[Method]) -> list[str]:
    """Name methods of which no local models were scored."""
    names = [method.titled for method in methods if not method.scored(ModelKind.LOCAL)]
    return [f"evaluation.local_models = true to {', '.join(names)}"] if names else []


def _add(wanted: Iterable[str], exhibits: Sequence[Table | Picture]) -> str:
    """Say what to add to the runs, where anything is missing."""
    words = "; ".join(dict.fromkeys(wanted))
    return f"Not answerable{' as a whole' if exhibits else ''}: add {words}." if words else ""
