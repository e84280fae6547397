"""What a report compares: spread over seeds, differences paired by seed, the choice of round, fluctuation.

All scores are in percent, all differences in percentage points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.study import Method, Run
from fedreid_mpi.report.terms import is_large
from fedreid_mpi.wording import counted

Floats = NDArray[np.float64]

BEST_ROUNDS = 3
"""Evaluated rounds whose mean the paper's figures are."""

LEVEL = 0.95
"""Of the intervals of differences."""

PERCENT = f"{100 * LEVEL:.0f} %"
"""The level in words."""

_NO_SPREAD = 1e-9
"""Percentage points: a deviation below it comes from rounding."""


def signed(difference: float) -> str:
    """Return a difference with its sign and one decimal; none of them where that is 0."""
    return "0.0" if abs(round(difference, 1)) == 0 else f"{difference:+.1f}".replace("-", "−")


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
        Number of seeds.
    signed
        Whether it is a difference.
    """

    mean: float
    deviation: float
    seeds: int
    signed: bool = False

    @classmethod
    def of(cls, values: Sequence[float] | Floats, signed: bool = False) -> "Spread":
        """Return the spread of what is not NaN."""
        known = np.asarray(values, dtype=np.float64)
        known = known[~np.isnan(known)]
        mean = float(known.mean()) if known.size else np.nan
        deviation = float(known.std(ddof=1)) if known.size > 1 else np.nan
        return cls(mean, deviation, known.size, signed)

    @property
    def margin(self) -> float:
        """Half the width of Student's t interval of the mean, at `LEVEL`.

        NaN for a single seed, and where all seeds agree to the last digit: scores come in steps of one query,
        so that few seeds may differ by the same number of steps by chance, and an interval without width
        would call that certain.
        """
        if self.seeds < 2 or not self.deviation > _NO_SPREAD:
            return np.nan
        return float(stdtrit(self.seeds - 1, (1 + LEVEL) / 2)) * self.deviation / sqrt(self.seeds)

    @property
    def clear(self) -> bool:
        """Whether the interval of a difference, paired by seed, leaves out 0."""
        return abs(self.mean) > self.margin  # never where either is NaN

    def __str__(self) -> str:
        """Return ``mean ± deviation`` with one decimal, a dash where there is nothing."""
        if isnan(self.mean):
            return "–"
        mean = signed(self.mean) if self.signed else f"{self.mean:.1f}"
        return mean if isnan(self.deviation) else f"{mean} ± {self.deviation:.1f}"


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a comparison: a label and, by seed, shape (R,), the scores of R rows."""

    label: str
    values: Mapping[int, Floats]

    def spreads(self) -> list[Spread]:
        """Return the spread of each row."""
        return [Spread.of(column) for column in np.stack(list(self.values.values()), axis=1)]

    def minus(self, other: "Series") -> list[Spread]:
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
        Which models and what round were looked at, in words.
    metric
        What the figures are.
    """

    rows: tuple[str, ...]
    datasets: int
    series: tuple[Series, ...]
    when: str
    metric: str


def compare(
    entries: Sequence[tuple[str, Method, ModelKind | None]],
    when: int | str,
    metric: str = "rank-1",
    models: str = "",
    rounds: Sequence[int] | None = None,
) -> Comparison:
    """Compare methods, or models of methods, dataset by dataset.

    Parameters
    ----------
    entries
        Label, method and model (None: the one that the method is judged by), the reference first.
    when
        A round; ``"best"``: the best three of the rounds that all entries have evaluated, chosen for each
        entry by its own model; ``"epochs:N"``: the round after N local epochs.
    metric
        ``"mAP"`` or ``"rank-N"``.
    models
        Which models they are, in words, where one word fits all.
    rounds
        That ``"best"`` chooses from; None: all that the entries share.
    """
    shared = [name for name in entries[0][1].datasets if all(name in m.datasets for _, m, _ in entries)]
    if rounds is None:
        rounds = common_rounds([method for _, method, _ in entries])
    series = []
    for label, method, kind in entries:
        columns = [method.datasets.index(name) for name in shared]
        values = {run.seed: scores_at(run, when, kind, metric, rounds)[columns] for run in method.runs}
        series.append(Series(label, {seed: _with_means(row, shared) for seed, row in values.items()}))
    words = moment(when, rounds)
    words = f"{models}, {words}" if models else words
    return Comparison((*shared, *_mean_names(shared)), len(shared), tuple(series), words, metric)


def moment(when: int | str, rounds: Sequence[int]) -> str:
    """Return in words what `compare` looks at; ``rounds`` are those that the best three are chosen from."""
    if when == "best":
        return f"best {min(BEST_ROUNDS, len(rounds))} of {counted(len(rounds), 'round')}"
    return (
        counted(int(when.removeprefix("epochs:")), "local epoch")
        if isinstance(when, str)
        else f"round {when}"
    )


def scores_at(
    run: Run,
    when: int | str,
    kind: ModelKind | None = None,
    metric: str = "rank-1",
    rounds: Sequence[int] | None = None,
) -> Floats:
    """Return a run's scores by dataset: shape (D,), NaN where the round was not evaluated.

    See `compare`; ``rounds`` are those that ``"best"`` chooses from, by default all of the run.
    """
    return _mean_at(run.scores(kind, metric), _rows_at(run, when, kind, rounds))


def compare_unseen(
    methods: Sequence[Method],
    when: int | str,
    metric: str = "rank-1",
    models: str = "",
    rounds: Sequence[int] | None = None,
) -> Comparison | None:
    """Compare global models on the datasets that nobody trains on; see `compare`.

    The best rounds are those of the clients' datasets: nothing is chosen by unseen ones. A method that was
    not scored on one of them has no figure there.

    Returns
    -------
    Comparison or None
        A row per dataset, and no means; None where no method was scored on any.
    """
    names = list(dict.fromkeys(name for method in methods for run in method.runs for name in run.unseen))
    if not names:
        return None
    if rounds is None:
        rounds = common_rounds(methods)
    series = []
    for method in methods:
        values = {}
        for run in method.runs:
            found = _mean_at(run.unseen_scores(metric), _rows_at(run, when, None, rounds))
            known = dict(zip(run.unseen, found.tolist(), strict=True))
            values[run.seed] = np.array([known.get(name, np.nan) for name in names])
        series.append(Series(method.name, values))
    words = f"{models}, {moment(when, rounds)}" if models else moment(when, rounds)
    return Comparison(tuple(names), len(names), tuple(series), words, metric)


def _rows_at(
    run: Run, when: int | str, kind: ModelKind | None, rounds: Sequence[int] | None
) -> NDArray[np.intp]:
    """Return the evaluated rounds that are meant, as rows; see `scores_at`."""
    if when == "best":
        return best_rows(run, kind, rounds)
    if isinstance(when, str):
        epochs = int(when.removeprefix("epochs:"))
        when = epochs // local_epochs(run) if epochs % local_epochs(run) == 0 else -1
    return np.flatnonzero(run.results.evaluations == when)


def _mean_at(curve: Floats, rows: NDArray[np.intp]) -> Floats:
    return np.asarray(curve[rows].mean(axis=0)) if len(rows) else np.full(curve.shape[1], np.nan)


def best_rows(
    run: Run, kind: ModelKind | None = None, rounds: Sequence[int] | None = None
) -> NDArray[np.intp]:
    """Return the rows of the three evaluated rounds with the best mean rank-1 on the large datasets.

    It selects on test data, as the published figures do; fewer rounds where fewer were evaluated, all
    datasets where no large one is there; of equal rounds the earlier one.

    Parameters
    ----------
    run
        The run.
    kind
        The model that is reported, by whose scores the rounds are chosen; None: the one that the run is
        judged by.
    rounds
        To choose from: those that all runs that are compared have evaluated. None: all of the run.
    """
    large = [column for column, name in enumerate(run.datasets) if is_large(name)]
    mean = run.scores(kind)[:, large or slice(None)].mean(axis=1)
    usable = ~np.isnan(mean) & (run.results.evaluations > 0)
    if rounds is not None:
        usable &= np.isin(run.results.evaluations, rounds)
    rows = np.flatnonzero(usable)
    order = np.argsort(-mean[rows], kind="stable")
    return np.sort(rows[order[:BEST_ROUNDS]])


def common_rounds(methods: Sequence[Method], epochs: bool = False) -> list[int]:
    """Return the rounds from 1, or numbers of local epochs, after which all runs were evaluated."""
    runs = [run for method in methods for run in method.runs]
    counts = [set((run.results.evaluations * (local_epochs(run) if epochs else 1)).tolist()) for run in runs]
    return sorted(set.intersection(*counts) - {0})


def last_common_round(methods: Sequence[Method], epochs: bool = False) -> int | None:
    """Return the last of the `common_rounds`; None where there is none."""
    return max(common_rounds(methods, epochs), default=None)


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
