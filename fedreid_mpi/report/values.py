"""What a report compares: spread over seeds, differences paired by seed, the choice of round, fluctuation.

All scores are in percent, all differences in percentage points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.study import Method, Run

Floats = NDArray[np.float64]

LARGE = ("msmt17", "dukemtmcreid", "market1501", "cuhk03np")
"""The four large datasets of the published choice of round: names of archives, letters and digits alone."""

BEST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds.

    Attributes
    ----------
    mean
        NaN where there is none.
    deviation
        Sample standard deviation, n - 1 in the denominator; NaN for a single seed.
    seeds
        How many.
    agreeing
        How many have the sign of the mean, for a difference.
    signed
        Whether it is a difference.
    """

    mean: float
    deviation: float
    seeds: int
    agreeing: int = 0
    signed: bool = False

    @classmethod
    def of(cls, values: Sequence[float] | Floats, signed: bool = False) -> "Spread":
        """Return the spread of what is not NaN."""
        known = np.asarray(values, dtype=np.float64)
        known = known[~np.isnan(known)]
        mean = float(known.mean()) if known.size else np.nan
        deviation = float(known.std(ddof=1)) if known.size > 1 else np.nan
        agreeing = int((np.sign(known) == np.sign(mean)).sum())
        return cls(mean, deviation, known.size, agreeing, signed)

    @property
    def stands_out(self) -> bool:
        """Whether a difference is larger than its own deviation over the seeds, which one seed cannot say."""
        return self.seeds > 1 and abs(self.mean) > self.deviation

    def __str__(self) -> str:
        """Return ``mean ± deviation`` with one decimal, a dash where there is nothing."""
        if isnan(self.mean):
            return "–"
        mean = f"{self.mean:+.1f}".replace("-", "−") if self.signed else f"{self.mean:.1f}"
        return mean if isnan(self.deviation) else f"{mean} ± {self.deviation:.1f}"


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a comparison: a label and, by seed, shape (R,), the scores of R rows."""

    label: str
    values: Mapping[int, Floats]

    def spreads(self) -> list[Spread]:
        """Return the spread of each row."""
        return [Spread.of(column) for column in np.stack(list(self.values.values()), axis=1)]

    def less(self, other: "Series") -> list[Spread]:
        """Return the spread of each row's difference, seed by seed; without seeds in common there is none."""
        common = [seed for seed in self.values if seed in other.values]
        rows = len(next(iter(self.values.values())))
        if not common:
            return [Spread.of([], signed=True)] * rows
        differences = np.stack([self.values[seed] - other.values[seed] for seed in common], axis=1)
        return [Spread.of(row, signed=True) for row in differences]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Series on the same rows, all of them against the first.

    Attributes
    ----------
    rows
        Names of datasets, then of means over them.
    datasets
        How many of the rows are datasets.
    series
        The reference first.
    when
        What round was looked at, in words.
    metric
        What the figures are.
    """

    rows: tuple[str, ...]
    datasets: int
    series: tuple[Series, ...]
    when: str
    metric: str


def compare(
    entries: Sequence[tuple[str, Method, ModelKind | None]], when: int | str, metric: str = "rank-1"
) -> Comparison:
    """Compare methods, or models of methods, dataset by dataset.

    Parameters
    ----------
    entries
        Label, method and model (None: the one that the method is judged by), the reference first.
    when
        A round; ``"best"``: the published choice; ``"epochs:N"``: the round after N local epochs.
    metric
        One of `METRICS`.
    """
    shared = [name for name in entries[0][1].datasets if all(name in m.datasets for _, m, _ in entries)]
    series = []
    for label, method, kind in entries:
        columns = [method.datasets.index(name) for name in shared]
        values = {run.seed: scores_at(run, when, kind, metric)[columns] for run in method.runs}
        series.append(Series(label, {seed: _with_means(row, shared) for seed, row in values.items()}))
    words = {"best": "published choice of round"}.get(str(when), f"round {when}")
    if str(when).startswith("epochs:"):
        words = f"{str(when).removeprefix('epochs:')} local epochs"
    return Comparison((*shared, *_mean_names(shared)), len(shared), tuple(series), words, metric)


def scores_at(run: Run, when: int | str, kind: ModelKind | None = None, metric: str = "rank-1") -> Floats:
    """Return a run's scores by dataset: shape (D,), NaN where the round was not evaluated; see `compare`."""
    curve = run.scores(kind, metric)
    if when == "best":
        best = curve[best_rows(run)]
        return np.asarray(best.mean(axis=0)) if len(best) else np.full(len(run.datasets), np.nan)
    if isinstance(when, str):
        epochs = int(when.removeprefix("epochs:"))
        when = epochs // local_epochs(run) if epochs % local_epochs(run) == 0 else -1
    rows = np.flatnonzero(run.results.evaluations == when)
    return curve[rows[0]] if rows.size else np.full(len(run.datasets), np.nan)


def best_rows(run: Run) -> NDArray[np.intp]:
    """Return the rows of the three evaluated rounds with the best mean rank-1 on the large datasets.

    It selects on test data, as the published figures do; fewer rounds where fewer were evaluated, all
    datasets where no large one is there; of equal rounds the earlier one.
    """
    large = [column for column, name in enumerate(run.datasets) if is_large(name)]
    curve = run.scores()
    mean = curve[:, large or slice(None)].mean(axis=1)
    usable = np.flatnonzero(~np.isnan(mean) & (run.results.evaluations > 0))
    order = np.argsort(-mean[usable], kind="stable")
    return np.sort(usable[order[:BEST_ROUNDS]])


def last_common_round(methods: Sequence[Method], epochs: bool = False) -> int | None:
    """Return the last round, or number of epochs, that all runs have evaluated; None where there is none."""
    runs = [run for method in methods for run in method.runs]
    counts = [set((run.results.evaluations * (local_epochs(run) if epochs else 1)).tolist()) for run in runs]
    return max(set.intersection(*counts) - {0}, default=None)


def mean_curve(
    method: Method, kind: ModelKind | None = None, metric: str = "rank-1"
) -> tuple[Floats, Floats]:
    """Return the mean score over the datasets by round.

    Returns
    -------
    rounds : NDArray
        Shape (E,): rounds that all of the method's runs have evaluated.
    scores : NDArray
        Shape (S, E): seed by seed.
    """
    rounds = sorted(set.intersection(*(set(run.results.evaluations.tolist()) for run in method.runs)))
    curves = [
        run.scores(kind, metric)[np.isin(run.results.evaluations, rounds)].mean(axis=1) for run in method.runs
    ]
    return np.array(rounds, dtype=np.float64), np.stack(curves)


def fluctuation(curve: Floats) -> float:
    """Return how unsteady the last half of a curve is.

    The standard deviation (n - 1) of the changes from one evaluated round to the next: a steady rise counts
    as steady. Independent noise of deviation s in each round gives s √2.

    Parameters
    ----------
    curve
        Shape (E,): scores of the evaluated rounds but round 0.

    Returns
    -------
    float
        Percentage points; NaN for fewer than three points in the last half.
    """
    half = curve[len(curve) // 2 :]
    return float(np.diff(half).std(ddof=1)) if len(half) > 2 else np.nan


def weight_shares(run: Run) -> Floats:
    """Return each client's share of the sum of the weights in its group: shape (R, K), NaN where none."""
    weights, groups = run.results.weight, run.results.group
    shares = np.full(weights.shape, np.nan)
    for row, (weight, group) in enumerate(zip(weights, groups, strict=True)):
        for number in np.unique(group[~np.isnan(weight)]):
            members = (group == number) & ~np.isnan(weight)
            total = weight[members].sum()
            shares[row, members] = weight[members] / total if total > 0 else 1 / members.sum()
    return shares


def cluster_counts(run: Run) -> Floats:
    """Return the number of groups in each round but round 0: shape (R,)."""
    groups = run.results.group[run.results.rounds > 0]
    return np.array([np.unique(row[row >= 0]).size for row in groups], dtype=np.float64)


def local_epochs(run: Run) -> int:
    """Return the number of local epochs in a round."""
    return int(run.settings.get("federation.local_epochs", 1))


def is_large(name: str) -> bool:
    """Tell whether a dataset is one of the four large ones."""
    return "".join(letter for letter in name.lower() if letter.isalnum()) in LARGE


def _mean_names(datasets: Sequence[str]) -> tuple[str, ...]:
    large = sum(map(is_large, datasets))
    if not 0 < large < len(datasets):
        return (f"mean of {len(datasets)}",)
    return f"mean of {len(datasets)}", f"mean of {large} large", f"mean of {len(datasets) - large} small"


def _with_means(scores: Floats, datasets: Sequence[str]) -> Floats:
    """Append the means that `_mean_names` names; NaN where the score of a dataset is missing."""
    large = np.array([is_large(name) for name in datasets], dtype=bool)
    means = [scores.mean()]
    if 0 < large.sum() < len(datasets):
        means += [scores[large].mean(), scores[~large].mean()]
    return np.array([*scores, *means])
