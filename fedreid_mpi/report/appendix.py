"""What a report says of every study: the choice of round, where time and bytes went, events, and the runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.charts import Grid, draw_shares, draw_stacks
from fedreid_mpi.report.findings import Answer, rounds_in_words
from fedreid_mpi.report.privacy import seen_of_clients
from fedreid_mpi.report.settings import differing_keys
from fedreid_mpi.report.study import METRICS, Method, Run, Study, mean_of_known
from fedreid_mpi.report.tables import Cell, Picture, Table
from fedreid_mpi.report.terms import CENTRALISED, STANDALONE, column, is_large
from fedreid_mpi.report.values import BEST_ROUNDS, Spread, best_rows, common_rounds, scores_at

_PROGRAM = ("versions", "commit", "source")
"""Columns that are shown where runs differ in them; else the page opens with them."""

_EVENTS_SHOWN = 100
_MEGABYTE = 1e6


def choice_of_round(study: Study) -> Answer:
    """Tabulate scores of all models after the last round and by the best three rounds."""
    names = list(dict.fromkeys(name for method in study.methods for name in method.datasets))
    names.sort(key=column)
    large = any(map(is_large, names))
    models = _reported(study)
    tables = [_overview(models, large)]
    for when, words in (("last", "the last round"), ("best", "the best three rounds")):
        for metric in METRICS:
            rows: list[tuple[Cell, ...]] = []
            for each in models:
                scores = [_scores(run, when, each, metric) for run in each.method.runs]
                spreads = [Spread.of([score.get(name, np.nan) for score in scores]) for name in names]
                rows.append((each.method.name, each.words, *spreads))
            caption = f"{metric} by dataset, {words}, in percent"
            columns = ("method", "models", *names)
            tables.append(
                Table(f"a-{when}-{metric.lower()}", caption, columns, tuple(rows), folded=metric != "rank-1")
            )
    basis = "those of the four large datasets that were used" if large else "all datasets, as none is large"
    claims = [
        "The last round is what a user gets. The paper reports the mean of the three best evaluated rounds: "
        f"here, the rounds in which the reported model has the highest mean rank-1 on {basis}.",
        _selection(models),
    ]
    for methods in _by_rounds(study.methods).values():
        claims += rounds_in_words(methods)
    return Answer("choice", "The last round, or the best three", tuple(claims), tuple(tables))


def time_spent(study: Study) -> Answer:
    """Show the seconds of a round by phase, and of training by client."""
    stacks = {
        method.name: _stack([_per_round(r, r.results.phases, r.results.phase_seconds) for r in method.runs])
        for method in study.methods
    }
    pictures = []
    if any(map(_sum_of, stacks.values())):
        figure = draw_stacks(stacks, "seconds per round on the server, mean over rounds and seeds")
        pictures.append(Picture("b-phases", "Where the time of a round goes", figure))
    by_clients = _by_clients(study)
    for number, (clients, methods) in enumerate(by_clients.items(), start=1):
        seconds = np.stack([_client_seconds(method) for method in methods], axis=1)
        trained = np.isfinite(seconds).any(axis=1)
        if trained.any():
            trainers = tuple(name for name, there in zip(clients, trained, strict=True) if there)
            grid = Grid("", seconds[trained], trainers, tuple(method.name for method in methods))
            figure = draw_shares([grid], "seconds per round", faint=True)
            caption = "Seconds of local training by client, mean over rounds and seeds"
            if len(by_clients) > 1:
                caption += f": {', '.join(method.name for method in methods)}"
            pictures.append(Picture(f"b-clients-{number}", caption, figure))
    table = _stack_table("b-phases", "Seconds per round on the server by phase, mean over seeds", stacks)
    return Answer("time", "Where the time went", (), (*pictures, table))


def bytes_sent(study: Study) -> Answer:
    """Show the bytes that travelled between ranks, by kind and round."""
    stacks = {
        method.name: _stack(
            [_per_round(r, r.results.traffic, r.results.bytes_sent / _MEGABYTE) for r in method.runs]
        )
        for method in study.methods
    }
    kinds = dict.fromkeys(kind for stack in stacks.values() for kind in stack)
    costs = _communication(study.methods)
    claims: tuple[str, ...] = (
        "The paper counts T × 2 × M per client: in each of T rounds, the shared model of M bytes is sent to "
        "the client and back, whatever the number of ranks. Between ranks, one sum per rank and group goes "
        "to the server and one model per group back, besides what scoring and the optimisations need.",
    )
    if any(map(_has_controls, study.methods)):
        claims += (
            "With SCAFFOLD control variates, of about the model's size, go the same ways: M is two models.",
        )
    if not any(map(_sum_of, stacks.values())):
        claims += ("All runs used a single process, so nothing was sent.",)
        return Answer("bytes", "Where the bytes went", claims, (costs,))
    figure = draw_stacks(stacks, "MB per round between ranks, mean over rounds and seeds")
    pictures = [Picture("c-kinds", "What travels in a round", figure)]
    longest = max((method.runs[0].results.rounds for method in study.methods), key=len)
    rounds = tuple(map(str, longest.tolist()))
    names = tuple(method.name for method in study.methods)
    grids = [
        Grid(
            kind,
            np.stack([_sent_by_round(method, kind, len(rounds)) for method in study.methods]),
            names,
            rounds,
            "round",
        )
        for kind in kinds
    ]
    caption = "Bytes by round and kind, of the first seed"
    pictures.append(Picture("c-rounds", caption, draw_shares(grids, "MB", faint=True)))
    table = _stack_table("c-kinds", "MB per round between ranks by kind, mean over rounds and seeds", stacks)
    return Answer("bytes", "Where the bytes went", claims, (costs, *pictures, table))


def events(study: Study) -> Answer:
    """List what was out of the ordinary."""
    found = [(run, event) for run in study.runs for event in run.results.events]
    rows = tuple(
        (run.results.header.name, run.seed, event.round, event.kind, event.text) for run, event in found
    )
    if not rows:
        return Answer("events", "Events", ("Nothing out of the ordinary was recorded.",))
    claims = (
        (f"{len(rows)} events; the first {_EVENTS_SHOWN} are listed.",) if len(rows) > _EVENTS_SHOWN else ()
    )
    columns = ("run", "seed", "round", "kind", "what happened")
    return Answer("events", "Events", claims, (Table("d-events", "Events", columns, rows[:_EVENTS_SHOWN]),))


def runs(study: Study) -> Answer:
    """List runs, differences in configuration, and clients."""
    described = [_describe(run) for run in study.runs]
    used = {column: {row[column] for row in described} for column in described[0]}
    shown = [column for column in described[0] if column not in _PROGRAM or len(used[column]) > 1]
    rows = tuple(tuple(row[column] for column in shown) for row in described)
    exhibits = [Table("e-runs", "Runs", tuple(shown), rows), _configurations(study)]
    for number, (clients, methods) in enumerate(_by_clients(study).items(), start=1):
        specs = methods[0].runs[0].results.header.clients
        rows = tuple((spec.name, spec.images, spec.identities, spec.test_images) for spec in specs)
        caption = f"Clients of {', '.join(method.name for method in methods)}: {len(clients)}"
        heading = ("client", "training images", "identities", "test images")
        exhibits.append(Table(f"e-clients-{number}", caption, heading, rows))
    return Answer("runs", "The runs", study.warnings, tuple(exhibits))


APPENDICES: tuple[Callable[[Study], Answer], ...] = (
    *(choice_of_round, time_spent, bytes_sent, seen_of_clients),
    *(events, runs),
)
"""In the order of the page, after the questions."""


@dataclass(frozen=True, slots=True)
class _Reported:
    """A model of a method, what it is called, and the rounds that its best three are chosen from."""

    method: Method
    kind: ModelKind | None
    words: str
    rounds: tuple[int, ...]


def _by_rounds(methods: Iterable[Method]) -> dict[int, list[Method]]:
    """Put methods together by their number of rounds: the best three are of the same choice in each."""
    found: dict[int, list[Method]] = {}
    for method in methods:
        found.setdefault(method.runs[0].planned, []).append(method)
    return found


def _reported(study: Study) -> list[_Reported]:
    """List the models that are reported of each method: those that were scored, standalone ones as such."""
    common = {planned: tuple(common_rounds(of)) for planned, of in _by_rounds(study.methods).items()}
    found = []
    for method in study.methods:
        rounds = common[method.runs[0].planned]
        own = method.runs[0].kind is ModelKind.LOCAL
        found.append(_Reported(method, None, STANDALONE if own else "global", rounds))
        if not own and method.scored(ModelKind.LOCAL):
            found.append(_Reported(method, ModelKind.LOCAL, "local", rounds))
    return found


def _selection(models: Sequence[_Reported]) -> str:
    """Describe what choosing rounds by test data does to the figures that are shown."""
    if all(len(each.rounds) <= BEST_ROUNDS for each in models):
        return f"At most {BEST_ROUNDS} rounds were evaluated, so that nothing is chosen."
    higher = compared = 0
    for each in models:
        last, best = (_mean_of_all(each, when) for when in ("last", "best"))
        if np.isfinite(last) and np.isfinite(best):
            compared += 1
            higher += bool(best > last)
    words = (
        "Choosing rounds by test data favours the best three. While a model is still improving, though, a "
        f"mean of {BEST_ROUNDS} rounds is below the last one."
    )
    return f"{words} Here the best three are above the last round for {higher} of {compared} models."


def _mean_of_all(model: _Reported, when: str) -> float:
    """Return the mean rank-1 over datasets and seeds by a choice of round; NaN where one is missing."""
    scores = [list(_scores(run, when, model, "rank-1").values()) for run in model.method.runs]
    return float(np.mean(scores)) if scores[0] else np.nan


def _overview(models: Sequence[_Reported], large: bool) -> Table:
    """Tabulate means over datasets: last round, best three, and the rounds that these are."""
    kinds = ("all", "large") if large else ("all",)
    rows: list[tuple[Cell, ...]] = []
    for each in models:
        runs = each.method.runs
        row: list[Cell] = [each.method.name, each.words, len(runs)]
        for when in ("last", "best"):
            for kind in kinds:
                picked = [
                    [
                        score
                        for name, score in _scores(run, when, each, "rank-1").items()
                        if kind == "all" or is_large(name)
                    ]
                    for run in runs
                ]
                row.append(Spread.of([float(np.mean(scores)) if scores else np.nan for scores in picked]))
        chosen = [run.results.evaluations[best_rows(run, each.kind, each.rounds)].tolist() for run in runs]
        row += [len(each.rounds), "; ".join(", ".join(map(str, one)) for one in chosen)]
        rows.append(tuple(row))
    headings = [f"{when}: mean of {kind}" for when in ("last", "best three") for kind in kinds]
    caption = "Mean rank-1 in percent by the two choices of round"
    columns = ("method", "models", "seeds", *headings, "chosen from", "best three rounds, by seed")
    return Table("a-choice", caption, columns, tuple(rows))


def _scores(run: Run, when: str, model: _Reported, metric: str) -> dict[str, float]:
    choice = int(run.results.evaluations[-1]) if when == "last" and run.results.evaluations.size else "best"
    scores = scores_at(run, choice, model.kind, metric, model.rounds)
    return dict(zip(run.datasets, scores.tolist(), strict=True))


def _per_round(run: Run, names: tuple[str, ...], amounts: Any) -> dict[str, float]:  # noqa: ANN401
    """Return the mean over the rounds from 1 of each column."""
    completed = amounts[run.results.rounds > 0]
    return dict(zip(names, (np.nansum(completed, axis=0) / max(len(completed), 1)).tolist(), strict=True))


def _stack(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each part over the seeds; a part that a run does not have is 0 in it."""
    names = dict.fromkeys(name for one in parts for name in one)
    return {name: float(np.mean([one.get(name, 0.0) for one in parts])) for name in names}


def _by_clients(study: Study) -> dict[tuple[str, ...], list[Method]]:
    """Group methods by their clients."""
    found: dict[tuple[str, ...], list[Method]] = {}
    for method in study.methods:
        names = tuple(client.name for client in method.runs[0].results.header.clients)
        found.setdefault(names, []).append(method)
    return found


def _client_seconds(method: Method) -> Any:  # noqa: ANN401
    return mean_of_known(
        np.stack([mean_of_known(run.results.seconds, axis=0) for run in method.runs]), axis=0
    )


def _communication(methods: Iterable[Method]) -> Table:
    """Tabulate the paper's communication cost, and what was sent between ranks."""
    rows: list[tuple[Cell, ...]] = []
    for method in methods:
        results = method.runs[0].results
        trained = results.participated[results.rounds > 0]
        model = (
            np.nan if method.term in (CENTRALISED, STANDALONE) else 4 * results.header.parameters / _MEGABYTE
        )
        model *= 1 + _has_controls(method)
        travelled = [run.results.bytes_sent.sum() / _MEGABYTE for run in method.runs]
        ranks = sorted({len(run.results.header.ranks) for run in method.runs})
        rows.append(
            (
                method.name,
                len(trained),
                model,
                2 * len(trained) * model,
                2 * float(trained.sum()) * model,
                ", ".join(map(str, ranks)),
                float(np.mean(travelled)),
            )
        )
    columns = (
        *("method", "rounds T", "M (MB)", "T × 2 × M per client (MB)", "of all turns of clients (MB)"),
        *("ranks", "travelled between ranks (MB)"),
    )
    return Table("c-communication", "Communication cost of a whole run", columns, tuple(rows))


def _has_controls(method: Method) -> bool:
    return method.settings.get("aggregation.rule") == "scaffold"


def _sent_by_round(method: Method, kind: str, length: int) -> Any:  # noqa: ANN401
    results = method.runs[0].results
    row = np.full(length, np.nan)
    if kind in results.traffic:
        row[: len(results.rounds)] = results.bytes_sent[:, results.traffic.index(kind)] / _MEGABYTE
    return row


def _sum_of(stack: Mapping[str, float]) -> float:
    return sum(stack.values())


def _stack_table(name: str, caption: str, stacks: Mapping[str, dict[str, float]]) -> Table:
    """Tabulate stacks: one row per method, one column per part, and the sum."""
    parts = list(dict.fromkeys(part for stack in stacks.values() for part in stack))
    rows: list[tuple[Cell, ...]] = []
    for method, stack in stacks.items():
        rows.append((method, *(stack.get(part, np.nan) for part in parts), _sum_of(stack)))
    return Table(name, caption, ("method", *parts, "all"), tuple(rows))


def _describe(run: Run) -> dict[str, Cell]:
    header, results = run.results.header, run.results
    devices = ", ".join(dict.fromkeys(rank.device for rank in header.ranks))
    return {
        "run": header.name,
        "seed": run.seed,
        "folder": run.folder.name,
        "rounds": f"{results.rounds[-1]} of {run.planned}",
        "evaluated": int((results.evaluations > 0).sum()),
        "ranks": f"{len(header.ranks)} ({devices})",
        "versions": ", ".join(f"{name} {version}" for name, version in header.versions.items()),
        "commit": (header.git_commit[:10] + ", changed" * header.git_dirty) or "–",
        "source": header.source_digest[:10] or "–",
        "seconds": round(float(np.nansum(results.phase_seconds))),
    }


def _configurations(study: Study) -> Table:
    """Tabulate the settings in which the methods differ."""
    keys = differing_keys([method.settings for method in study.methods])
    rows = tuple((key, *(_shown(method.settings.get(key)) for method in study.methods)) for key in keys)
    columns = ("setting", *(method.name for method in study.methods))
    return Table("e-settings", "Settings in which the methods differ", columns, rows)


def _shown(value: object) -> str:
    """Write a setting much as in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return "–" if value is None else str(value)
