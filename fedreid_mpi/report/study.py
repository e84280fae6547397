"""Many runs as a study: found on disk, put together by method, and the methods that may be compared."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.config import Experiment, Section
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.terms import column, plain, row, term
from fedreid_mpi.results import RunResults, read_run
from fedreid_mpi.results.datasets import HeldDataset, mean_over_clients
from fedreid_mpi.results.sources import find_runs
from fedreid_mpi.results.summary import written_at
from fedreid_mpi.wording import counted

METRICS = ("rank-1", "mAP")

_SEED = re.compile(r"[-_]?seed[-_]?\d+$")

# What tells no two methods apart: the seed and what it is called, and all that cannot change a figure.
_LABELS = ("run.name", "run.seed", "run.label", "run.position")
_PATHS = ("data.archives", "data.unseen", "data.public", "model.weights")
_HARMLESS = (
    *("preset", "run.rounds", "data.public", "data.unseen", "data.exclude_overlap", "data.stage"),
    *("evaluation.every", "evaluation.local_models", "evaluation.reestimate_bn"),
    *("compute.", "checkpoint.", "reliability.", "privacy.secure_aggregation", "privacy.neighbours"),
)
_HARMFUL = ("compute.precision",)


@dataclass(frozen=True, slots=True)
class Run:
    """One run and where its figures stand.

    Attributes
    ----------
    folder
        Run directory.
    results
        Its archive.
    settings
        Resolved configuration: ``"section.key"`` to value; of paths only the file's name is kept. Keys that
        did not exist when the run was made have their defaults.
    tested
        The D datasets that have a test split, in the paper's order, others behind them as they come.
    written
        When its archive was written: UTC, ISO 8601.
    """

    folder: Path
    results: RunResults
    settings: Mapping[str, Any]
    tested: tuple[HeldDataset, ...]
    written: str = ""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the D datasets that are tested."""
        return tuple(dataset.name for dataset in self.tested)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Names of the U datasets that nobody trains on."""
        return tuple(dataset.name for dataset in self.results.header.unseen)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.results.header.seed

    @property
    def code(self) -> str:
        """What tells the program's source: its digest; in earlier archives, which have none, its commit."""
        return self.results.header.source_digest or self.results.header.git_commit

    @property
    def planned(self) -> int:
        """Number of rounds that the configuration asks for."""
        return int(self.settings.get("run.rounds", 0))

    @property
    def finished(self) -> bool:
        """Whether all rounds have been played."""
        return int(self.results.rounds[-1]) >= self.planned

    @property
    def kind(self) -> ModelKind:
        """The model that a run is judged by: the clients' own in mode "local", else the global one."""
        return ModelKind.LOCAL if self.settings.get("federation.mode") == "local" else ModelKind.GLOBAL

    def scores(self, kind: ModelKind | None = None, metric: str = "rank-1") -> NDArray[np.float64]:
        """Return scores by evaluated round and dataset.

        Parameters
        ----------
        kind
            Which model; by default the one that the run is judged by.
        metric
            ``"mAP"``, ``"mINP"`` or ``"rank-N"``.

        Returns
        -------
        NDArray
            Shape (E, D), float64, percent: the mean over the clients that are tested on the dataset, which
            is no mean where they share a model. NaN where nothing was scored.
        """
        results, models = self.results, list(ModelKind)
        means = {"mAP": results.mean_ap, "mINP": results.mean_inp}
        scores = means[metric] if metric in means else results.cmc[..., int(metric.removeprefix("rank-")) - 1]
        scored = scores[..., models.index(kind or self.kind)]
        if kind is None and self.kind is ModelKind.LOCAL:  # before round 1 all start from the global one
            scored = np.where(np.isnan(scored), scores[..., models.index(ModelKind.GLOBAL)], scored)
        return 100 * mean_over_clients(scored.T, self.tested).T

    def unseen_scores(self, metric: str = "rank-1") -> NDArray[np.float64]:
        """Return the global models' scores on datasets that nobody trains on; see `scores`.

        Returns
        -------
        NDArray
            Shape (E, U), float64, percent: the mean over the groups' models, weighted by their clients.
        """
        results, curve = self.results, np.full((len(self.results.evaluations), len(self.unseen)), np.nan)
        for place in np.ndindex(curve.shape):
            scores = results.unseen_score(int(results.evaluations[place[0]]), place[1])
            if scores is not None:
                figures = {f"rank-{rank}": score for rank, score in enumerate(scores.cmc.tolist(), start=1)}
                curve[place] = 100 * (figures | {"mAP": scores.mean_ap, "mINP": scores.mean_inp})[metric]
        return curve


@dataclass(frozen=True, slots=True)
class Method:
    """Runs of one name and code that differ in seed alone, in the order of their seeds."""

    name: str
    runs: tuple[Run, ...]

    def __str__(self) -> str:
        """Return the name and the number of runs."""
        return f"{self.name} × {len(self.runs)}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The configuration of all its runs, but for seed and name."""
        return self.runs[0].settings

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that are tested."""
        return self.runs[0].datasets

    @property
    def term(self) -> str:
        """What the paper calls it; see `fedreid_mpi.report.terms`."""
        return term(self.settings)

    @property
    def titled(self) -> str:
        """What its suite calls it, else the paper's name, with its own where that says something else."""
        if self.settings["run.label"] or plain(self.name) == plain(self.term):
            return self.name if self.settings["run.label"] else self.term
        return f"{self.term} ({self.name})"

    def scored(self, kind: ModelKind | None) -> bool:
        """Tell whether a model of it was scored after round 0; see `Run.scores`."""
        return any(np.isfinite(run.scores(kind)[run.results.evaluations > 0]).any() for run in self.runs)


@dataclass(frozen=True, slots=True)
class Study:
    """Runs by method.

    Attributes
    ----------
    methods
        In the order of their suite, then in the paper's; of finished runs, if there is any.
    runs
        All runs, unfinished ones as well.
    warnings
        What a reader should know of the runs, a sentence each.
    """

    methods: tuple[Method, ...]
    runs: tuple[Run, ...]
    warnings: tuple[str, ...]

    def families(
        self, *varied: str, mode: str | None = "federated", least: int = 2
    ) -> list[tuple[Method, ...]]:
        """Return the sets of methods that differ in nothing but some settings.

        Parameters
        ----------
        varied
            ``"section.key"``, or ``"section."`` for all keys of a section.
        mode
            Methods of other modes are passed over; None: of any.
        least
            Smaller sets are left out.

        Returns
        -------
        list of tuple of Method
            The largest family first.
        """
        families: dict[str, list[Method]] = {}
        for method in self.methods:
            if mode is None or method.settings.get("federation.mode") == mode:
                families.setdefault(_all_but(method, varied), []).append(method)
        found = [tuple(family) for family in families.values() if len(family) >= least]
        return sorted(found, key=len, reverse=True)

    def like(self, method: Method, *varied: str) -> list[Method]:
        """Return the methods that differ from another in nothing but some settings; see `families`."""
        same = _all_but(method, varied)
        return [each for each in self.methods if each is not method and _all_but(each, varied) == same]


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
        settings=_defaults() | dict(_flatten(results.settings)),
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
            played = f"{run.results.rounds[-1]} of {counted(run.planned, 'round')}"
            warnings.append(f"{_label(run)} has {played}: {fate}.")
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
    """Tell whether a run is a copy of another of its method, earlier or later, or has its figures."""
    one, two, names = run.results, other.results, ("rounds", "loss", "evaluations", "cmc", "mean_ap")
    same = all(np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True) for name in names)
    return same or (one.run_id == two.run_id and len(one.rounds) != len(two.rounds))


def _difference(run: Run, other: Run) -> str:
    """Say what makes runs of one name two methods."""
    if keys := differing_keys([run.settings, other.settings]):
        return ", ".join(keys)
    if _tests(run) != _tests(other):
        return "the test images"
    return "scores" if run.code == other.code else "code"


def differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys in which configurations differ, but for names and seeds."""
    keys = sorted({key for one in settings for key in one} - set(_LABELS))
    return [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]


def mean_of_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average along an axis over what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.where(count, total / np.maximum(count, 1), np.nan)


@cache
def _defaults() -> dict[str, Any]:
    """Return what was computed before a key was there: its default; of keys that have one."""
    sections = {name: kind.annotation for name, kind in Experiment.model_fields.items()}
    return {
        f"{section}.{key}": field.default
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for key, field in kind.model_fields.items()
        if not field.is_required() and field.default is not None
    }


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = prefix + name
        if isinstance(value, dict) and key != "federation.availability":
            yield from _flatten(value, f"{key}.")
        elif key in _PATHS:
            yield key, [Path(one).name for one in value] if isinstance(value, list) else Path(value).name
        else:
            yield key, value


def _without(settings: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Drop keys and, where a name ends with a dot, sections; a cosine schedule needs the rounds."""
    cosine = settings.get("optimizer.schedule") == "cosine"

    def drops(key: str) -> bool:
        named = any(key == name or (name.endswith(".") and key.startswith(name)) for name in left_out)
        return named and key not in _HARMFUL and not (cosine and key == "run.rounds")

    return {key: value for key, value in settings.items() if not drops(key)}


def _all_but(method: Method, varied: Sequence[str]) -> str:
    """Return all that a method has beside some settings, and beside those that change no figure."""
    rest = _without(method.settings, (*_LABELS, *_HARMLESS, *varied))
    return repr((sorted(rest.items()), _tests(method.runs[0])))


def _key(run: Run) -> str:
    """Return all that is to be equal in the runs of a method, by their configurations."""
    return repr((sorted(_without(run.settings, _LABELS).items()), _tests(run)))


def _tests(run: Run) -> list[tuple[str, int]]:
    """List what a run is tested on: datasets and their numbers of test images."""
    return [(dataset.name, dataset.test_images) for dataset in run.tested]


def _name(run: Run) -> str:
    """Return what a run's method is called: its label, else its name without the seed."""
    return str(run.settings["run.label"]) or _SEED.sub("", run.results.header.name)


def _label(run: Run) -> str:
    return f"{run.results.header.name}, seed {run.seed} ({run.folder.name})"
