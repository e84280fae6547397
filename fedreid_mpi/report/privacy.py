"""What a report says of what left the clients, and of the accuracy that its bounds cost."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedreid_mpi.report.findings import Answer
from fedreid_mpi.report.ledger import Seen, in_lines, seen_by_the_server
from fedreid_mpi.report.study import Method, Study
from fedreid_mpi.report.style import COLOURS, MARKERS
from fedreid_mpi.report.tables import Cell, Picture, Table
from fedreid_mpi.report.values import Spread

_KEYS = ("privacy.clip", "privacy.statistics_clip", "privacy.noise_multiplier", "privacy.delta")


def seen_of_clients(study: Study) -> Answer:
    """Tabulate what the server saw of a client, by method, and what ε the noised ones have spent."""
    exhibits: list[Table | Picture] = []
    claims = []
    rows: list[tuple[Cell, ...]] = []
    plain: set[str] = set()
    for number, method in enumerate(study.methods):
        entries = seen_by_the_server(method.runs[0].results)
        kinds = list(dict.fromkeys(map(_kind, entries)))
        rows += [(method.name, what, values, bits, how) for what, values, bits, how in kinds]
        names = {what for what, *_ in kinds}
        if number and (more := sorted(names - plain)):
            claims.append(f"{method.name} also reveals to the server: {'; '.join(more)}.")
        plain = plain or names
    caption = "What the server sees of a client, of the first seed; sums are of the clients of one rank"
    columns = ("method", "what", "values", "bits each", "how")
    if rows:
        exhibits.append(Table("f-seen", caption, columns, tuple(rows)))
    for number, method in enumerate(study.methods, start=1):
        results = method.runs[0].results
        lines = in_lines(results, seen_by_the_server(results))
        cells = tuple(
            (each.clients, each.rounds, each.entry.what, _values(each.entry), each.entry.bits, each.entry.how)
            for each in lines
        )
        caption = f"What the server sees of the clients of {method.name}, round by round, of the first seed"
        headings = ("clients", "rounds", "what", "values", "bits each", "how")
        if cells:
            exhibits.append(Table(f"f-seen-{number}", caption, headings, cells, folded=True))
    noised = [method for method in study.methods if np.isfinite(_epsilons(method)).all()]
    if noised:
        exhibits = [*_price(study, noised), *exhibits]
    return Answer("privacy", "What leaves a client, and what bounds it", tuple(claims), tuple(exhibits))


def _kind(entry: Seen) -> tuple[str, int, int, str]:
    return entry.what, _values(entry), entry.bits, entry.how


def _values(entry: Seen) -> int:
    return int(np.prod(entry.shape, dtype=np.int64))


def _epsilons(method: Method) -> list[float]:
    return [float(run.results.epsilon[-1]) for run in method.runs]


def _price(study: Study, noised: Sequence[Method]) -> list[Table | Picture]:
    """Tabulate ε and accuracy, and draw one against the other; methods without noise are lines."""
    rows: list[tuple[Cell, ...]] = []
    points: list[tuple[float, Spread]] = []
    for method in noised:
        score = _accuracy(method)
        spent = float(np.mean(_epsilons(method)))
        points.append((spent, score))
        rows.append((method.name, f"{spent:.2f}", *(method.settings[key] for key in _KEYS), score))
    columns = ("method", "ε", *(key.removeprefix("privacy.") for key in _KEYS), "mean rank-1")
    caption = "Differential privacy: ε after the last round, and mean rank-1 in percent"
    table = Table("f-epsilon", caption, columns, tuple(rows))
    caption = "Accuracy against ε: mean over datasets and seeds; bars are one standard deviation"
    return [Picture("f-epsilon", caption, _draw(study, noised, points)), table]


def _draw(study: Study, noised: Sequence[Method], points: Sequence[tuple[float, Spread]]) -> Figure:
    """Draw accuracy against ε, and lines for the methods without noise."""
    figure = Figure(figsize=(5.2, 3.4))
    axes = figure.subplots()
    in_order = sorted(points, key=lambda point: point[0])
    axes.errorbar(
        [spent for spent, _ in in_order],
        [score.mean for _, score in in_order],
        [0.0 if np.isnan(score.deviation) else score.deviation for _, score in in_order],
        color=COLOURS[0],
        marker=MARKERS[0],
        capsize=3,
        label="with noise",
    )
    others = [method for method in study.methods if method not in noised]
    for number, method in enumerate(others, start=1):
        score = _accuracy(method)
        if not np.isnan(score.mean):
            axes.axhline(score.mean, color=COLOURS[number % len(COLOURS)], linestyle="--", label=method.name)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks([spent for spent, _ in in_order], [f"{spent:.3g}" for spent, _ in in_order])
    axes.set_xlabel(f"ε after the last round, at δ = {noised[0].settings['privacy.delta']:g}")
    axes.set_ylabel("mean rank-1, %")
    axes.legend()
    return figure


def _accuracy(method: Method) -> Spread:
    """Return mean rank-1 over the datasets, after the last round that was evaluated."""
    return Spread.of([float(run.scores()[-1].mean()) if len(run.scores()) else np.nan for run in method.runs])
