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

Parts = tuple[str, ...]
"""What is said of a run, in parts of which methods may differ in some alone."""

METRICS = ("rank-1", "mAP", "mINP")

_NAMED = 4
"""Methods of another value that are named; of more the number is given."""

_NAMED_CLIENTS = 12


def settings_box(study: Study) -> list[Fact]:
    """List what a reader of these runs' figures must know; if methods differ, by method."""
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
        caption=f"All methods tested on {', '.join(datasets)}: {where}, in percent, after the last "
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


def _by_method(methods: Iterable[Method], describe: Callable[[Run], Parts]) -> str:
    """Describe most methods; then name the others, with those parts in which they differ."""
    found: dict[Parts, list[str]] = {}
    for method in methods:
        for parts in dict.fromkeys(map(describe, method.runs)):
            found.setdefault(parts, []).append(method.titled)
    (first, _), *others = sorted(found.items(), key=lambda item: -len(item[1]))
    words = [", ".join(first)]
    for parts, names in others:
        who = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} methods"
        words.append(f"{who}: {', '.join(part for part in parts if part not in first) or ', '.join(parts)}")
    return "; ".join(words)


def _clients(run: Run) -> Parts:
    clients = [client for client in run.results.header.clients if client.dataset >= 0]
    names = [client.name for client in clients]
    if len({client.dataset for client in clients}) < len(clients):  # by camera, or by identity
        listed = f" of {', '.join(run.datasets)}"
    else:
        listed = f" ({', '.join(names)})" if len(names) <= _NAMED_CLIENTS else ""
    drawn = int(run.settings.get("federation.clients_per_round", 0))
    return (f"{len(names)}{listed}", *([f"{drawn} per round"] if drawn else []))


def _rounds(run: Run) -> Parts:
    return (f"T = {run.planned}",)


def _model(run: Run) -> Parts:
    settings = run.settings
    weights, length = settings.get("model.weights"), settings["model.embedding_dim"]
    return (
        settings["model.backbone"],
        f"embedding of {length}" if length else "no embedding",
        f"pre-trained ({weights})" if weights else "from random weights",
    )


def _images(run: Run) -> Parts:
    """Return the size of images, which the run's models have and its archive has not."""
    sizes = (image_size(path) for path in _model_files(run.folder))
    size = next(filter(None, sizes), None)
    return (f"{size[0]} × {size[1]} pixels" if size else "size not recorded",)


def _model_files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.safetensors", "local/*.safetensors"):
        yield from sorted((folder / "models").glob(pattern))


def _training(run: Run) -> Parts:
    settings = run.settings
    steps = settings.get("federation.local_iterations")
    return (
        f"batch size B = {settings['federation.batch_size']}",
        f"{counted(steps, 'step')} per round" if steps else f"E = {settings['federation.local_epochs']}",
        f"learning rate {settings['optimizer.lr']}",
    )


def _protocol(run: Run) -> Parts:
    settings = run.settings
    of = "images and their mirror images" if settings["evaluation.mirror"] else "images alone"
    unseen = [f"unseen datasets {', '.join(run.unseen)}"] if run.unseen else []
    return (settings["evaluation.protocol"], f"features of {of}", *unseen)


def _program(run: Run) -> Parts:
    header = run.results.header
    commit = f"commit {header.git_commit[:10]}{' (changed)' * header.git_dirty}" if header.git_commit else ""
    source = f"source {header.source_digest[:10]}" if header.source_digest else ""
    versions = (f"{name} {version}" for name, version in header.versions.items())
    return (*versions, *filter(None, (commit, source)))
