"""What only some methods have: steps of the server, groups of clients, weights of clients."""

from collections.abc import Sequence

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Band, Grid, Panel, draw_curves, draw_groups, draw_shares
from fedreid_mpi.report.findings import in_words
from fedreid_mpi.report.study import Method, Run, mean_of_known
from fedreid_mpi.report.tables import Picture, Table, comparison_table
from fedreid_mpi.report.values import Floats, Spread, cluster_counts, compare, mean_curve, weight_shares
from fedreid_mpi.wording import counted

Said = tuple[list[str], list[Table | Picture]]
"""Claims and exhibits."""

_SEEDS_SHOWN = 3
_NAMED_CLIENTS = 12


def server_steps(methods: Sequence[Method]) -> Said:
    """Show the student's loss, and scores before and after the server's step."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    losses = [band for method in methods if (band := _student_loss(method)).x.size]
    gains = [band for method in methods if (band := _step_gain(method)).x.size]
    for band in losses:
        first, last = Spread.of(band.y[:, 0]), Spread.of(band.y[:, -1])
        claims.append(
            f"{band.label}: the student's mean loss is {_short(first)} in round {band.x[0]:.0f} and "
            f"{_short(last)} in round {band.x[-1]:.0f}."
        )
    for method in methods:
        gain = _step_gain(method)
        if gain.x.size:
            spread = Spread.of(gain.y.mean(axis=1), signed=True)
            claims.append(
                f"{method.name}: the server's step changes the mean rank-1 by {in_words(spread)}, averaged "
                f"over {counted(gain.x.size, 'round')}."
            )
            sides = [
                (f"{method.name} before the step", method, ModelKind.AGGREGATED),
                ("after the step", method, ModelKind.GLOBAL),
            ]
            comparison = compare(sides, int(gain.x[-1]))
            caption = "Before and after the server's step"
            exhibits.append(comparison_table(f"4-step-{_stem(method.name)}", caption, comparison))
    panels = []
    if losses:
        panels.append(Panel("round", "student's mean loss", tuple(losses)))
    if gains:
        panels.append(Panel("round", "rank-1 after minus before\nthe server's step (points)", tuple(gains)))
    if panels:
        caption = "The server's distillation: loss of the student, and what the step changes in mean rank-1"
        exhibits.append(Picture("4-student", caption, draw_curves(panels)))
    return claims, exhibits


def groups_found(methods: Sequence[Method]) -> Said:
    """Show how many groups there are, who is in them, and what they were made from."""
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    counts = []
    for method in methods:
        curves = [cluster_counts(run) for run in method.runs]
        length = min(map(len, curves))
        if not length:
            continue
        rounds = method.runs[0].results.rounds[method.runs[0].results.rounds > 0][:length]
        counts.append(Band(method.name, rounds.astype(float), np.stack([curve[:length] for curve in curves])))
        mean = Spread.of([curve.mean() for curve in curves])
        first, last = (Spread.of(counts[-1].y[:, column]) for column in (0, -1))
        claims.append(
            f"{method.name}: {mean} clusters per round; {first} in round {rounds[0]}, {last} in round "
            f"{rounds[-1]}."
        )
        claims += [_members(method, run) for run in method.runs[:_SEEDS_SHOWN]]
        grids = [_groups(run) for run in method.runs[:_SEEDS_SHOWN]]
        caption = f"{method.name}: groups by round; in a column, clients of one colour share a model"
        exhibits.append(Picture(f"5-groups-{_stem(method.name)}", caption, draw_groups(grids)))
        if method.runs[0].results.groupings.size:
            caption = (
                f"{method.name}: cosine distance between the clients' features, seed {method.runs[0].seed}"
            )
            figure = draw_shares(_distances(method.runs[0]), "cosine distance")
            exhibits.append(Picture(f"5-distances-{_stem(method.name)}", caption, figure))
    if counts:
        panel = Panel("round", "clusters", tuple(counts), counts=True)
        caption = "Clusters by round: mean, lowest and highest seed"
        exhibits.insert(0, Picture("5-clusters", caption, draw_curves([panel])))
    return claims, exhibits


def weights_given(methods: Sequence[Method], suffix: str) -> Said:
    """Show the clients' weights by round, and between which clients weight moves."""
    methods = [method for method in methods if any(np.isfinite(weight_shares(r)).any() for r in method.runs)]
    if not methods:
        return [], []
    shares = [_mean_shares(method) for method in methods]
    names = _names(methods[0].runs[0])
    grids = [
        Grid(method.name, 100 * share.T, names, tuple(map(str, rounds)), "round")
        for method, (rounds, share) in zip(methods, shares, strict=True)
    ]
    caption = "Weight of each client by round, in percent of the sum in its group; mean over the seeds"
    exhibits: list[Table | Picture] = [
        Picture(f"6-shares{suffix}", caption, draw_shares(grids, "share of the weights (%)", faint=True))
    ]
    means = [100 * mean_of_known(share, axis=0) for _, share in shares]
    exhibits.append(
        Table(
            name=f"6-shares{suffix}",
            caption="Mean share of the weights over rounds and seeds, in percent",
            columns=("client", *(method.name for method in methods)),
            rows=tuple(zip(names, *(column.tolist() for column in means), strict=True)),
        )
    )
    claims = []
    for method, mean in zip(methods[1:], means[1:], strict=True):
        change = mean - means[0]
        order = [client for client in np.argsort(change).tolist() if np.isfinite(change[client])]
        less, more = order[0], order[-1]
        claims.append(
            f"{method.name} instead of {methods[0].name}: {names[less]} loses the most weight "
            f"({means[0][less]:.1f} % → {mean[less]:.1f} %), {names[more]} gains the most "
            f"({means[0][more]:.1f} % → {mean[more]:.1f} %); the smallest weight is "
            f"{np.nanmin(mean):.2f} % ({names[int(np.nanargmin(mean))]})."
        )
    return claims, exhibits


def _student_loss(method: Method) -> Band:
    """Return the student's loss by round: the mean over the clients whose group was distilled."""
    common = _common_rounds(method)
    curves = np.stack(
        [mean_of_known(run.results.distillation_loss, axis=1)[: len(common)] for run in method.runs]
    )
    there = np.isfinite(curves).all(axis=0)
    return Band(method.name, common[there], curves[:, there])


def _step_gain(method: Method) -> Band:
    """Return what the server's step changes in mean rank-1, by evaluated round in which there was one."""
    rounds, before = mean_curve(method, ModelKind.AGGREGATED)
    _, after = mean_curve(method, ModelKind.GLOBAL)
    there = np.isfinite(before).all(axis=0)
    return Band(method.name, rounds[there], (after - before)[:, there])


def _common_rounds(method: Method) -> Floats:
    shortest = min((run.results.rounds for run in method.runs), key=len)
    return shortest.astype(np.float64)


def _groups(run: Run) -> Grid:
    completed = run.results.rounds > 0
    groups = run.results.group[completed].astype(float)
    rounds = tuple(map(str, run.results.rounds[completed].tolist()))
    return Grid(f"seed {run.seed}", np.where(groups < 0, np.nan, groups).T, _names(run), rounds, "round")


def _distances(run: Run) -> list[Grid]:
    """Return the distances at the first and at the last grouping."""
    rounds, names = run.results.groupings, _names(run)
    rows = [0] if len(rounds) == 1 else [0, len(rounds) - 1]
    return [
        Grid(f"round {rounds[row]}", run.results.distances[row].astype(np.float64), names, names)
        for row in rows
    ]


def _members(method: Method, run: Run) -> str:
    """Name the last groups, or their sizes where there are many clients."""
    last, names = run.results.group[-1], _names(run)
    groups = [np.flatnonzero(last == number) for number in np.unique(last[last >= 0])]
    if len(names) > _NAMED_CLIENTS:
        words = f"{counted(len(groups), 'group')} of {', '.join(str(len(group)) for group in groups)} clients"
    else:
        words = "; ".join(" + ".join(names[client] for client in group) for group in groups)
    return f"{method.name}, seed {run.seed}, last round: {words}."


def _mean_shares(method: Method) -> tuple[list[int], Floats]:
    """Return rounds from 1 and the weights' shares, shape (R, K), in the mean over the seeds."""
    shares = [weight_shares(run) for run in method.runs]
    length = min(map(len, shares))
    rounds = method.runs[0].results.rounds[:length]
    stacked = np.stack([share[:length] for share in shares])[:, rounds > 0]
    return rounds[rounds > 0].tolist(), mean_of_known(stacked, axis=0)


def _names(run: Run) -> tuple[str, ...]:
    return tuple(client.name for client in run.results.header.clients)


def _short(spread: Spread) -> str:
    deviation = f" ± {round(spread.deviation, 9):.2g}" if spread.seeds > 1 else ""
    return f"{spread.mean:.3g}{deviation}"


def _stem(name: str) -> str:
    """Return a name fit for a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.")
