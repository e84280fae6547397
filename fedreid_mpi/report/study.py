"""A study in memory: runs, methods that are runs of one kind, and the methods that may be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.settings import HARMLESS, LABELS, without
from fedreid_mpi.report.terms import plain, term
from fedreid_mpi.results import RunResults
from fedreid_mpi.results.datasets import HeldDataset, mean_over_clients

METRICS = ("rank-1", "mAP")


@dataclass(frozen=True, slots=True)
class Run:
    """One run and where its figures are.

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
    def tests(self) -> list[tuple[str, int]]:
        """What it is tested on: names of datasets and their numbers of test images."""
        return [(dataset.name, dataset.test_images) for dataset in self.tested]

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
        """Whether all rounds are done."""
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
        """Its label in the suite, or the paper's name, with its own name if that differs."""
        if self.settings["run.label"] or plain(self.name) == plain(self.term):
            return self.name if self.settings["run.label"] else self.term
        return f"{self.term} ({self.name})"

    def scored(self, kind: ModelKind | None) -> bool:
        """Return whether a model of it was scored after round 0; see `Run.scores`."""
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


def _all_but(method: Method, varied: Sequence[str]) -> str:
    """Return a method's settings other than some, and other than those that change no figure."""
    rest = without(method.settings, (*LABELS, *HARMLESS, *varied))
    return repr((sorted(rest.items()), method.runs[0].tests))


def mean_of_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average along an axis over what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.where(count, total / np.maximum(count, 1), np.nan)
