"""Runs found on disk, put together by method."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedreid_mpi.errors import DataError
from fedreid_mpi.report.settings import LABELS, differing_keys, resolved, without
from fedreid_mpi.report.study import Method, Run, Study
from fedreid_mpi.report.terms import column, row
from fedreid_mpi.results import RunResults, read_run
from fedreid_mpi.results.sources import find_runs
from fedreid_mpi.results.summary import written_at
from fedreid_mpi.wording import counted

_SEED = re.compile(r"[-_]?seed[-_]?\d+$")


def load_study(paths: Sequence[Path]) -> Study:
    """Read all runs under some paths.

    Parameters
    ----------
    paths
        As `fedreid_mpi.results.sources.find_runs` takes them.

    Raises
    ------
    DataError
        A path is not there or holds no run, or a run's results cannot be read.
    """

    def refuse(error: DataError) -> None:
        raise error  # a report without it would mislead

    found = {source.path.resolve(): written_at(source) for source in find_runs(paths, refuse)}
    return make_study([make_run(path, read_run(path), written) for path, written in found.items()])


def make_run(folder: Path, results: RunResults, written: str = "") -> Run:
    """Look up in a run's configuration and clients what belongs where."""
    tested = [each for each in results.datasets if each.test_images]
    return Run(
        folder=folder,
        results=results,
        settings=resolved(results.settings),
        tested=tuple(sorted(tested, key=lambda each: column(each.name))),
        written=written,
    )


def make_study(runs: Sequence[Run]) -> Study:
    """Put runs together by method and note what does not fit."""
    warnings = []
    used = [run for run in runs if run.finished] or list(runs)
    for run in runs:
        if not run.finished:
            fate = "used as it is" if run in used else "left out of all answers"
            completed = f"{run.results.rounds[-1]} of {counted(run.planned, 'round')}"
            warnings.append(f"{_label(run)} has {completed}: {fate}.")
    methods: list[Method] = []
    for ordered in _by_method(used, warnings):
        name, alike = _name(ordered[0]), [each for each in methods if _key(each.runs[0]) == _key(ordered[0])]
        twins = [method for method in methods if method.name.partition(" (")[0] == name]
        if twins:
            what = _difference(twins[0].runs[0], ordered[0])
            warnings.append(f"Runs named {name} differ in more than the seed ({what}): shown as two methods.")
        elif alike:
            what = "name" if alike[0].runs[0].code == ordered[0].code else "name and code"
            warnings.append(f"{name} differs from {alike[0].name} in {what} alone: shown as two methods.")
        methods.append(Method(f"{name} ({len(twins) + 1})" if twins else name, ordered))
    for what, values in (
        ("versions", [dict(run.results.header.versions) for run in used]),
        ("code", [run.code for run in used]),
    ):
        if any(value != values[0] for value in values):
            warnings.append(f"The runs are of different {what}: see the table of runs.")
    methods.sort(key=lambda method: (method.settings["run.position"], *row(method.settings)))
    return Study(tuple(methods), tuple(runs), tuple(warnings))


def _by_method(runs: Sequence[Run], warnings: list[str]) -> Iterator[tuple[Run, ...]]:
    """Put runs together that differ in seed alone, in the order of their seeds; repetitions are left out.

    Two runs of one seed with other figures are of two methods, whatever their settings say.
    """
    found: dict[str, list[dict[int, Run]]] = {}
    for run in runs:
        methods = found.setdefault(repr((_key(run), _name(run), run.code)), [])
        seeds = next(
            (each for each in methods if run.seed not in each or _repeats(run, each[run.seed])), None
        )
        if seeds is None:
            methods.append({run.seed: run})
        elif run.seed not in seeds:
            seeds[run.seed] = run
        else:
            other, kept = sorted((run, seeds[run.seed]), key=lambda each: int(each.results.rounds[-1]))
            seeds[run.seed] = kept
            warnings.append(f"{_label(other)} repeats {_label(kept)}: left out.")
    for seeds in (each for methods in found.values() for each in methods):
        yield tuple(seeds[seed] for seed in sorted(seeds))


def _repeats(run: Run, other: Run) -> bool:
    """Return whether a run is a copy of another of its method, earlier or later, or has its figures."""
    one, two, names = run.results, other.results, ("rounds", "loss", "evaluations", "cmc", "mean_ap")
    same = all(np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True) for name in names)
    return same or (one.run_id == two.run_id and len(one.rounds) != len(two.rounds))


def _difference(run: Run, other: Run) -> str:
    """Describe what makes runs of one name two methods."""
    if keys := differing_keys([run.settings, other.settings]):
        return ", ".join(keys)
    if run.tests != other.tests:
        return "the test images"
    return "scores" if run.code == other.code else "code"


def _key(run: Run) -> str:
    """Return all that is to be equal in the runs of a method, by their configurations."""
    return repr((sorted(without(run.settings, LABELS).items()), run.tests))


def _name(run: Run) -> str:
    """Return what a run's method is called: its label, else its name without the seed."""
    return str(run.settings["run.label"]) or _SEED.sub("", run.results.header.name)


def _label(run: Run) -> str:
    return f"{run.results.header.name}, seed {run.seed} ({run.folder.name})"
