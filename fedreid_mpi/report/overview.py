"""What a report opens with: the settings of its runs, and one table of all methods."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fedreid_mpi.model import image_size
from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.comparable import KINDS, has
from fedreid_mpi.report.highest import Mark, marks
from fedreid_mpi.report.study import Method, Run, Study
from fedreid_mpi.report.tables import Cell, Table
from fedreid_mpi.report.terms import CENTRALISED, STANDALONE
from fedreid_mpi.report.values import Series, common_rounds, scores_at
from fedreid_mpi.wording import counted

Fact = tuple[str, str]
"""What it is, and how it is in these runs."""

METRICS = ("rank-1", "mAP", "mINP")

_NAMED = 4
"""Methods of another value that are named; of more the number is given."""

_NAMED_CLIENTS = 12


def settings_box(study: Study) -> list[Fact]:
    """List what all must know who read a figure of these runs; where methods differ, by method."""
    runs = [run for method in study.methods for run in method.runs]
    dates = sorted(run.written[:10] for run in runs if run.written)
    seeds = sorted({run.seed for run in runs})
    facts = [
        (
            "Runs",
            f"{len(runs)} of {counted(len(study.methods), 'method')}, seeds {', '.join(map(str, seeds))}",
        ),
        ("Date", " to ".join(dict.fromkeys((dates[0], dates[-1]))) + " (UTC)" if dates else "not recorded"),
    ]
    for name, describe in (
        ("Clients", _clients),
        ("Rounds", _rounds),
        ("Model", _model),
        ("Images", _images),
        ("Local training", _training),
        ("Protocol", _protocol),
        ("Program", _program),
    ):
        facts.append((name, _by_method(study.methods, describe)))
    return facts


def main_tables(study: Study) -> list[Table]:
    """Tabulate the means over the datasets of all methods, in the suite's order.

    Methods are in one table where they are tested on the same datasets, as means over others are no
    comparison; the table of the most methods is first, and open.
    """
    alike: dict[tuple[str, ...], list[Method]] = {}
    for method in study.methods:
        alike.setdefault(method.datasets, []).append(method)
    found = sorted(alike.items(), key=lambda item: -len(item[1]))
    return [_main_table(number, datasets, of) for number, (datasets, of) in enumerate(found, start=1)]


def _main_table(number: int, datasets: Sequence[str], methods: Sequence[Method]) -> Table:
    """Tabulate the models of methods that are tested on the same datasets, each after its own last round."""
    kinds = [(kind, words) for kind, words in reversed(KINDS) if any(has(method, kind) for method in methods)]
    last = [max(common_rounds([method]), default=None) for method in methods]
    rows: list[tuple[Cell, ...]] = [
        (method.titled, len(method.runs), "–" if round is None else round)
        for method, round in zip(methods, last, strict=True)
    ]
    marked: dict[tuple[int, int], Mark] = {}
    for kind, _ in kinds:
        for metric in METRICS:
            series = [
                _means(method, kind, metric, round) for method, round in zip(methods, last, strict=True)
            ]
            place = len(rows[0]) - 1
            marked |= {(row, place + column): mark for (row, column), mark in marks(series).items()}
            rows = [(*row, each.spreads()[0]) for row, each in zip(rows, series, strict=True)]
    where = datasets[0] if len(datasets) == 1 else f"mean over the {len(datasets)} datasets"
    return Table(
        name=f"main{f'-{number}' if number > 1 else ''}",
        caption=f"All methods that are tested on {', '.join(datasets)}: {where}, in percent, after the last "
        "round that all seeds of a method have evaluated",
        columns=("method", "seeds", "round", *(metric for _ in kinds for metric in METRICS)),
        rows=tuple(rows),
        folded=number > 1,
        spans=(("", 2), *((words, len(METRICS)) for _, words in kinds)),
        marks=marked,
    )


def _means(method: Method, kind: ModelKind, metric: str, round: int | None) -> Series:
    """Return a model's mean over the datasets by seed; NaN where the method has no such model."""
    there = round is not None and has(method, kind)
    chosen = None if method.term in (CENTRALISED, STANDALONE) else kind
    return Series(
        method.titled,
        {
            run.seed: np.array([scores_at(run, round or 0, chosen, metric).mean() if there else np.nan])
            for run in method.runs
        },
    )


def _by_method(methods: Iterable[Method], describe: Callable[[Run], str]) -> str:
    """Say how most methods are; then how others are, by name."""
    found: dict[str, list[str]] = {}
    for method in methods:
        for words in dict.fromkeys(map(describe, method.runs)):
            found.setdefault(words, []).append(method.titled)
    (first, _), *others = sorted(found.items(), key=lambda item: -len(item[1]))
    parts = [
        f"{', '.join(names) if len(names) <= _NAMED else f'{len(names)} methods'}: {words}"
        for words, names in others
    ]
    return "; ".join((first, *parts))


def _clients(run: Run) -> str:
    names = [client.name for client in run.results.header.clients if client.dataset >= 0]
    drawn = int(run.settings.get("federation.clients_per_round", 0))
    listed = f" ({', '.join(names)})" if len(names) <= _NAMED_CLIENTS else ""
    return f"{len(names)}{listed}{f', {drawn} in a round' if drawn else ''}"


def _rounds(run: Run) -> str:
    return f"T = {run.planned}"


def _model(run: Run) -> str:
    settings = run.settings
    weights, length = settings.get("model.weights"), settings["model.embedding_dim"]
    head = f", embedding of {length}" if length else ", no embedding"
    begun = f"pre-trained ({weights})" if weights else "from random weights"
    return f"{settings['model.backbone']}{head}, {begun}"


def _images(run: Run) -> str:
    """Say how large images are: the run's models know it, its archive does not."""
    sizes = (image_size(path) for path in _model_files(run.folder))
    size = next(filter(None, sizes), None)
    return f"{size[0]} × {size[1]} pixels" if size else "size not recorded"


def _model_files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.safetensors", "local/*.safetensors"):
        yield from sorted((folder / "models").glob(pattern))


def _training(run: Run) -> str:
    settings = run.settings
    steps = settings.get("federation.local_iterations")
    spent = f"{counted(steps, 'step')} per round" if steps else f"E = {settings['federation.local_epochs']}"
    rate = settings["optimizer.lr"]
    return f"batch size B = {settings['federation.batch_size']}, {spent}, learning rate {rate}"


def _protocol(run: Run) -> str:
    settings = run.settings
    of = "images and their mirror images" if settings["evaluation.mirror"] else "images alone"
    words = f"{settings['evaluation.protocol']}, features of {of}"
    return f"{words}; unseen: {', '.join(run.unseen)}" if run.unseen else words


def _program(run: Run) -> str:
    header = run.results.header
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    commit = f", commit {header.git_commit[:10]}" if header.git_commit else ""
    commit += " (changed)" if header.git_dirty else ""
    source = f", source {header.source_digest[:10]}" if header.source_digest else ""
    return f"{versions}{commit}{source}"
