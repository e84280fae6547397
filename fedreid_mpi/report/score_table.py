"""The table of scores that a run ends with, and where its time and bytes went, as values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import ModelKind, Scores
from fedreid_mpi.results import RunResults
from fedreid_mpi.results.datasets import HeldDataset, mean_over_clients

METRICS = ("rank-1", "rank-5", "mAP")


class Column(StrEnum):
    """A model in the table of scores; the clients' models of a run of mode "local" are standalone."""

    UNTRAINED = "untrained"
    GLOBAL = "global"
    REESTIMATED = "re-estimated"
    LOCAL = "local"
    STANDALONE = "standalone"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores by dataset, D of them, and their means.

    Attributes
    ----------
    round
        Round after which the models were scored; 0 is the untrained model.
    baseline_round
        The same for standalone; None without a baseline.
    datasets
        D names, in client-id order.
    clients
        D numbers of clients that hold the dataset's images.
    test_images
        D numbers of query and gallery images.
    groups
        D times the groups of the dataset's clients after the round, ascending; empty without groups.
    scores
        Column to an array of shape (D, 3), float64, in [0, 1], of `METRICS`; NaN where not scored. Columns
        without any score are absent.
    unseen
        Rows of the datasets that nobody trains on, which count in no mean.
    """

    round: int
    baseline_round: int | None
    datasets: tuple[str, ...]
    clients: tuple[int, ...]
    test_images: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    scores: Mapping[Column, NDArray[np.float64]]
    unseen: tuple["UnseenRow", ...] = ()

    @property
    def gains(self) -> dict[Column, NDArray[np.float64]]:
        """Global and local models' scores minus standalone, shape (D, 3), as far as both are there."""
        if Column.STANDALONE not in self.scores:
            return {}
        return {
            column: self.scores[column] - self.scores[Column.STANDALONE]
            for column in (Column.GLOBAL, Column.LOCAL)
            if column in self.scores
        }


@dataclass(frozen=True, slots=True)
class UnseenRow:
    """Scores of global models on a dataset that nobody trains on.

    Attributes
    ----------
    dataset
        Its name.
    groups
        Those whose models were scored; of several groups the scores are means over their clients.
    scores
        Column to an array of shape (3,), float64, in [0, 1], of `METRICS`; those without a score are absent.
    """

    dataset: str
    groups: tuple[int, ...]
    scores: Mapping[Column, NDArray[np.float64]]


def score_table(
    results: RunResults, baseline: RunResults | None = None, round: int | None = None
) -> ScoreTable:
    """Tabulate a run's scores, one row per dataset.

    Where several clients hold a dataset, each camera of it for instance, the global model's score is that on
    the dataset, and local ones are means over the clients. Where its clients are in different groups, the
    score is the mean over the clients of their groups' models.

    Parameters
    ----------
    results
        The run.
    baseline
        A standalone run, of mode "local", on the same archives. It is read at the same round
        where it was evaluated then, else at its last evaluated round.
    round
        An evaluated round; the last one if None.

    Raises
    ------
    ConfigurationError
        The round was not evaluated, or run and baseline cannot be compared: modes or datasets do not fit.
    """
    if baseline is not None:
        _check_baseline(results, baseline)
    datasets = results.datasets
    evaluated = results.evaluations.tolist()
    if round is None:
        round = max(evaluated, default=0)
    elif round not in evaluated:
        raise ConfigurationError(f"round {round} was not evaluated; evaluated rounds: {_list(evaluated)}")
    columns = {}
    if 0 in evaluated:
        # A run of mode "local" has no global model: all its clients start from the same untrained one.
        untrained = dataset_scores(results, 0, ModelKind.GLOBAL)
        own = dataset_scores(results, 0, ModelKind.LOCAL)
        columns[Column.UNTRAINED] = np.where(np.isnan(untrained), own, untrained)
    if round > 0:
        columns[Column.GLOBAL] = dataset_scores(results, round, ModelKind.GLOBAL)
        columns[Column.REESTIMATED] = dataset_scores(results, round, ModelKind.REESTIMATED)
        local = Column.STANDALONE if results.mode == "local" else Column.LOCAL
        columns[local] = dataset_scores(results, round, ModelKind.LOCAL)
    baseline_round = None
    if baseline is not None and baseline.evaluations.size:
        rounds = baseline.evaluations.tolist()
        baseline_round = round if round in rounds else max(rounds)
        columns[Column.STANDALONE] = dataset_scores(baseline, baseline_round, ModelKind.LOCAL)
    return ScoreTable(
        round=round,
        baseline_round=baseline_round,
        datasets=tuple(dataset.name for dataset in datasets),
        clients=tuple(len(dataset.clients) for dataset in datasets),
        test_images=tuple(dataset.test_images for dataset in datasets),
        groups=_groups(results, round, datasets),
        scores={column: scores for column, scores in columns.items() if not np.isnan(scores).all()},
        unseen=tuple(_unseen_rows(results, round)),
    )


def _unseen_rows(results: RunResults, round: int) -> Iterator[UnseenRow]:
    """Tabulate scores on unseen datasets: one row per dataset, and one per group where there are several."""
    for dataset in results.header.unseen:
        means = {Column.UNTRAINED: results.unseen_score(0, dataset.id)}
        if round > 0:
            means[Column.GLOBAL] = results.unseen_score(round, dataset.id)
        scored = [each for each in results.unseen if (each.round, each.dataset) == (round, dataset.id)]
        scores = {column: _metrics(mean) for column, mean in means.items() if mean is not None}
        yield UnseenRow(dataset.name, tuple(each.group for each in scored), scores)
        for each in scored if len(scored) > 1 else ():
            yield UnseenRow(dataset.name, (each.group,), {Column.GLOBAL: _metrics(each.scores)})


def _metrics(scores: Scores) -> NDArray[np.float64]:
    return np.array([scores.cmc[0], scores.cmc[4], scores.mean_ap])


def dataset_scores(results: RunResults, round: int, model: ModelKind) -> NDArray[np.float64]:
    """Return the `METRICS` of one model on each dataset, shape (D, 3), float64; NaN where not scored."""
    datasets = results.datasets
    rows = np.flatnonzero(results.evaluations == round)
    if not rows.size:
        return np.full((len(datasets), len(METRICS)), np.nan)
    cell = (rows[0], slice(None), list(ModelKind).index(model))
    scores = np.stack([results.cmc[cell][:, 0], results.cmc[cell][:, 4], results.mean_ap[cell]], axis=1)
    return mean_over_clients(scores, datasets)


def mean_over_datasets(scores: NDArray[np.float64], test_images: Sequence[int]) -> NDArray[np.float64]:
    """Average a column of scores over the datasets that have a test split.

    Parameters
    ----------
    scores
        Shape (D, M), float64.
    test_images
        D numbers.

    Returns
    -------
    NDArray
        Shape (M,); NaN where the score of a dataset is missing: means over different datasets mislead.
    """
    tested = scores[np.asarray(test_images) > 0]
    return tested.mean(axis=0) if len(tested) else np.full(scores.shape[1], np.nan)


def shares(amounts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return each amount's share of the total, the largest first; nothing where the total is 0."""
    total = sum(amounts.values())
    ordered = sorted(amounts.items(), key=lambda item: -item[1])
    return [(label, amount / total) for label, amount in ordered] if total > 0 else []


def _check_baseline(results: RunResults, baseline: RunResults) -> None:
    """Refuse a baseline that would compare different things."""
    if results.mode == "local":
        raise ConfigurationError(
            f"{results.files[0].parent}: is itself standalone (mode 'local'), so it takes no baseline"
        )
    if baseline.mode != "local":
        raise ConfigurationError(
            f"{baseline.files[0].parent}: has mode {baseline.mode!r}, a baseline must have mode 'local'"
        )
    ours, theirs = (
        [(client.name, client.images, client.test_images) for client in run.header.clients]
        for run in (results, baseline)
    )
    if ours != theirs:
        raise ConfigurationError(
            f"{baseline.files[0].parent}: was run on other datasets than {results.files[0].parent}: "
            f"{_list([name for name, *_ in theirs])} instead of {_list([name for name, *_ in ours])}"
        )


def _groups(results: RunResults, round: int, datasets: Sequence[HeldDataset]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of each dataset's clients; nothing where all clients have one model."""
    rows = np.flatnonzero(results.rounds == round)
    if not rows.size or results.group[rows[0]].max() < 1:
        return ()
    groups = results.group[rows[0]]
    return tuple(tuple(np.unique(groups[list(dataset.clients)]).tolist()) for dataset in datasets)


def _list(items: Sequence[object]) -> str:
    """Join items for a message."""
    return ", ".join(map(str, items)) or "none"
