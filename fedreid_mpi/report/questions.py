"""The questions that the benchmark must answer: one function each, from a study to an answer.

Source: Zhuang et al., ACM TOMM 19(1s), 2023. A question whose runs are not there says which would answer it.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Panel, draw_curves, draw_each
from fedreid_mpi.report.diagnostics import groups_found, server_steps, weights_given
from fedreid_mpi.report.findings import (
    Answer,
    Entry,
    compared,
    compared_by_model,
    curve_of,
    in_words,
    suffix,
)
from fedreid_mpi.report.study import METRICS, Method, Study
from fedreid_mpi.report.tables import Cell, Picture, Table
from fedreid_mpi.report.terms import optimisations
from fedreid_mpi.report.values import (
    Series,
    Spread,
    common_rounds,
    fluctuation,
    local_epochs,
    mean_curve,
)
from fedreid_mpi.wording import counted

_DISTILLATION, _CLUSTERING = "distillation.enabled", "clustering.enabled"
_CLIENTS = "Clients by dataset, camera or identity"
_WEIGHTS, _PROBE = "aggregation.weights", "aggregation.probe"


def by_dataset_camera_identity(study: Study) -> Answer:
    """Compare clients that are datasets, cameras or shares of a dataset's people."""
    order = ("dataset", "camera", "identity")
    families = study.families("federation.clients", "federation.identity_clients", "federation.edge_rounds")
    claims, exhibits = [], []
    for number, family in enumerate(families, start=1):
        sides = sorted(family, key=lambda method: order.index(method.settings["federation.clients"]))
        said, shown = compared_by_model(f"1-clients{suffix(number)}", _CLIENTS, sides)
        claims += said
        exhibits += shown
    absent = _absent("federation.clients", order, families)
    return Answer("clients", _CLIENTS, tuple(claims), tuple(exhibits), absent)


def federated_standalone_centralised(study: Study) -> Answer:
    """Compare the federation with each client on its own and with all images in one place."""
    order = ("local", "federated", "centralised")
    families = study.families("federation.mode", mode=None)
    claims, exhibits = [], []
    for number, family in enumerate(families or _with_own_models(study), start=1):
        sides = sorted(family, key=lambda method: order.index(method.settings["federation.mode"]))
        shown_sides = [entry for method in sides for entry in _models_of(method)]
        said, shown = compared(
            f"2-modes{suffix(number)}", "Standalone, federated and centralised", shown_sides
        )
        claims += said
        exhibits += shown
    title = "Federated, standalone or centralised: who gains, who loses?"
    return Answer("modes", title, tuple(claims), tuple(exhibits), _absent("federation.mode", order, families))


def local_epochs_and_batch_size(study: Study) -> Answer:
    """Compare numbers of local epochs, after the same number of rounds and of epochs, and batch sizes."""
    claims, exhibits = [], []
    by_epochs = study.families("federation.local_epochs")
    for number, family in enumerate(by_epochs, start=1):
        sides = sorted(family, key=lambda method: local_epochs(method.runs[0]))
        for stem, words, epochs in (("rounds", "rounds", False), ("epochs", "local epochs", True)):
            name = f"3-same-{stem}{suffix(number)}"
            said, shown = compared_by_model(
                name, f"Local epochs after the same number of {words}", sides, epochs
            )
            claims += said
            exhibits += shown
        bands = tuple(curve_of(method, "rank-1") for method in sides)
        scaled = tuple(curve_of(method, "rank-1", local_epochs(method.runs[0])) for method in sides)
        panels = [Panel("round", "mean rank-1 (%)", bands), Panel("local epochs", "mean rank-1 (%)", scaled)]
        caption = "Mean rank-1 by round and by local epochs; bands from the lowest to the highest seed"
        exhibits.append(Picture(f"3-local-epochs{suffix(number)}", caption, draw_curves(panels)))
    by_batch = study.families("federation.batch_size")
    for number, family in enumerate(by_batch, start=1):
        sides = sorted(family, key=lambda method: int(method.settings["federation.batch_size"]))
        said, shown = compared_by_model(f"3-batch-size{suffix(number)}", "Batch sizes", sides)
        claims += said
        exhibits += shown
    missing = [
        f"two methods that differ in {key} alone"
        for key, families in (("federation.local_epochs", by_epochs), ("federation.batch_size", by_batch))
        if not families
    ]
    title = "Local epochs and batch size, in detail"
    return Answer("epochs", title, tuple(claims), tuple(exhibits), _wanted(missing))


def convergence(study: Study) -> Answer:
    """Show how steadily accuracy rises, and what distillation changes in that."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    bands = {metric: [curve_of(method, metric) for method in study.methods] for metric in METRICS}
    bands = {metric: [band for band in of if band.x.size > 1] for metric, of in bands.items()}
    for metric, shown_bands in bands.items():
        if shown_bands:
            caption = (
                f"Mean {metric} over the datasets by round; band: lowest to highest seed; grey: the others"
            )
            figure = draw_each(shown_bands, "round", f"mean {metric} (%)")
            exhibits.append(Picture(f"4-convergence-{metric.lower()}", caption, figure))
    if bands["rank-1"]:
        exhibits += _fluctuation_tables(study.methods)
    families = study.families("distillation.")
    for number, family in enumerate(families, start=1):
        sides = sorted(family, key=lambda method: bool(method.settings.get(_DISTILLATION)))
        said, shown = compared_by_model(f"4-distillation{suffix(number)}", "Distillation", sides)
        claims += [*said, *_steadier(sides)]
        exhibits += shown
        panels = [
            Panel("round", f"mean {metric} (%)", tuple(curve_of(method, metric) for method in sides))
            for metric in METRICS
        ]
        caption = "With and without distillation: mean over the datasets by round"
        exhibits.append(Picture(f"4-distillation-curves{suffix(number)}", caption, draw_curves(panels)))
    said, shown = server_steps([method for method in study.methods if method.settings.get(_DISTILLATION)])
    wanted = [] if families else ["two methods that differ in distillation alone"]
    if not bands["rank-1"]:
        wanted.insert(0, "runs with at least two evaluated rounds")
    title = "Convergence, and distillation"
    return Answer("convergence", title, (*claims, *said), (*exhibits, *shown), _wanted(wanted))


def clustering(study: Study) -> Answer:
    """Compare with and without client clustering, and show the groups."""
    families = study.families("clustering.")
    claims, exhibits = _with_and_without(families, "5-clustering", "Client clustering", _CLUSTERING)
    said, shown = groups_found([method for method in study.methods if method.settings.get(_CLUSTERING)])
    wanted = [] if families else ["two methods that differ in clustering alone"]
    return Answer("clustering", "Client clustering", (*claims, *said), (*exhibits, *shown), _wanted(wanted))


def cosine_distance_weight(study: Study) -> Answer:
    """Compare weights by cosine distance with weights by number of images, and show the weights."""
    families = study.families(_WEIGHTS, _PROBE)
    order = {"samples": 0, "uniform": 1}
    claims, exhibits = [], []
    for number, family in enumerate(families, start=1):
        sides = sorted(family, key=lambda method: order.get(method.settings[_WEIGHTS], 2))
        said, shown = compared_by_model(f"6-weights{suffix(number)}", "Aggregation weights", sides)
        more_said, more_shown = weights_given(sides, suffix(number))
        claims += [*said, *more_said]
        exhibits += [*shown, *more_shown]
    wanted = [] if families else ["two methods that differ in aggregation.weights alone"]
    title = "Aggregation weights: cosine distance or number of images"
    return Answer("weights", title, tuple(claims), tuple(exhibits), _wanted(wanted))


def combinations(study: Study) -> Answer:
    """Compare combinations of the three optimisations with none of them."""
    families = study.families("distillation.", "clustering.", _WEIGHTS, _PROBE)
    claims, exhibits = [], []
    whole = [family for family in families if any(_count(method) > 1 for method in family)]
    for number, family in enumerate(whole, start=1):
        sides = sorted(family, key=_count)
        said, shown = compared_by_model(f"7-combinations{suffix(number)}", "Combined optimisations", sides)
        claims += said
        exhibits += shown
    wanted = [] if whole else ["a method with two optimisations and one with none of them, otherwise equal"]
    return Answer("together", "Optimisations combined", tuple(claims), tuple(exhibits), _wanted(wanted))


QUESTIONS: tuple[Callable[[Study], Answer], ...] = (
    by_dataset_camera_identity,
    federated_standalone_centralised,
    local_epochs_and_batch_size,
    convergence,
    clustering,
    cosine_distance_weight,
    combinations,
)
"""In the order of the page."""


def _with_and_without(
    families: Iterable[tuple[Method, ...]], stem: str, caption: str, key: str
) -> tuple[list[str], list[Table | Picture]]:
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    for number, family in enumerate(families, start=1):
        sides = sorted(family, key=lambda method: bool(method.settings.get(key)))
        said, shown = compared_by_model(f"{stem}{suffix(number)}", caption, sides)
        claims += said
        exhibits += shown
    return claims, exhibits


def _models_of(method: Method) -> list[Entry]:
    """Return the models of a method that were scored: the main one, the local ones, the re-estimated."""
    found: list[Entry] = [(method.name, method, None)]
    for kind, words in (
        (ModelKind.LOCAL, "local models"),
        (ModelKind.REESTIMATED, "BatchNorm re-estimated"),
    ):
        if method.runs[0].kind is not kind and method.scored(kind):
            found.append((f"{method.name}, {words}", method, kind))
    return found


def _with_own_models(study: Study) -> Sequence[tuple[Method, ...]]:
    """Return a federated method whose local models can be compared, where there is nothing better."""
    return [(method,) for method in study.methods if len(_models_of(method)) > 1][:1]


def _count(method: Method) -> int:
    return len(optimisations(method.settings))


def _fluctuations(method: Method, metric: str, rounds: Sequence[int]) -> Series:
    """Return the fluctuation of each seed's mean curve over some evaluated rounds."""
    evaluated, curves = mean_curve(method, None, metric)
    used = np.isin(evaluated, rounds)
    values = {
        run.seed: np.array([fluctuation(curve[used])]) for run, curve in zip(method.runs, curves, strict=True)
    }
    return Series(method.name, values)


def _fluctuation_tables(methods: Iterable[Method]) -> Iterable[Table]:
    """Tabulate fluctuations, in a table those of methods with as many rounds, over the rounds they share."""
    alike: dict[int, list[Method]] = {}
    for method in methods:
        alike.setdefault(method.runs[0].planned, []).append(method)
    for number, (planned, group) in enumerate(alike.items(), start=1):
        rounds = common_rounds(group)
        rows: list[tuple[Cell, ...]] = []
        for method in group:
            figures = [_fluctuations(method, metric, rounds).spreads()[0] for metric in METRICS]
            last = Spread.of(mean_curve(method)[1][:, -1])
            rows.append(
                (method.name, int(method.runs[0].results.evaluations.astype(bool).sum()), last, *figures)
            )
        yield Table(
            name=f"4-fluctuation{suffix(number)}",
            caption="Fluctuation: standard deviation of the change of the mean score between evaluated "
            f"rounds, in percentage points, over the last half of the {counted(len(rounds), 'round')} that "
            f"all runs of {counted(planned, 'round')} have evaluated",
            columns=(
                "method",
                "evaluated rounds",
                "last mean rank-1",
                *(f"fluctuation, {metric}" for metric in METRICS),
            ),
            rows=tuple(rows),
        )


def _steadier(sides: list[Method]) -> Iterable[str]:
    """Compare the fluctuation of rank-1 with the reference's, over the same evaluated rounds."""
    rounds = common_rounds(sides)
    reference, *others = (_fluctuations(method, "rank-1", rounds) for method in sides)
    for series in others:
        difference = series.minus(reference)[0]
        if difference.seeds and np.isfinite(difference.mean):
            yield (
                "Fluctuation of mean rank-1, in points, over the same "
                f"{counted(len(rounds), 'evaluated round')}: {series.label} {series.spreads()[0]}, "
                f"{reference.label} {reference.spreads()[0]}; difference {in_words(difference)}."
            )


def _absent(key: str, values: Iterable[str], families: Iterable[tuple[Method, ...]]) -> str:
    """Describe which values of a setting no family has."""
    there = {str(method.settings[key]) for family in families for method in family}
    names = [f'{key} = "{value}"' for value in values if value not in there]
    if not there:
        return _wanted([f"methods that differ in {key} alone ({', '.join(values)})"])
    return f"No comparable run has {' or '.join(names)}." if names else ""


def _wanted(runs: list[str]) -> str:
    return f"Not answerable: add {', and '.join(runs)}." if runs else ""
