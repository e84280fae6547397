"""Scores of a shared model, the work of all client ranks; and of a model that is a client's alone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.evaluation import (
    ExtractedFeatures,
    Scoring,
    all_tests,
    extract_features,
    mean_scores,
    query_then_gallery,
    score_split,
    shards,
)
from fedreid_mpi.federated.client import Client, load_client, reestimated
from fedreid_mpi.federated.exchange import collect_features
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.records import ClientSpec, Evaluation, ModelKind, Scores, UnseenEvaluation


@dataclass(frozen=True, slots=True)
class Tested:
    """A dataset that a shared model is scored on.

    Attributes
    ----------
    archive
        Holds it.
    images
        Indices of the images that are needed, in the order in which they are cut into shards.
    splits
        How many of its splits are scored; what counts is the mean over them.
    rank
        Rank on which it is ranked.
    """

    archive: DatasetArchive
    images: NDArray[np.int64]
    splits: int = 1
    rank: int = 0

    @classmethod
    def by_client(cls, state: RankState, spec: ClientSpec) -> "Tested":
        """Describe a client's test split."""
        archive = state.archives[spec.dataset]
        return cls(archive, query_then_gallery(archive), rank=state.hosts[spec.id])


def score_shared(
    state: RankState,
    clients: Collection[int],
    round: int,
    kind: ModelKind = ModelKind.GLOBAL,
    group: int | None = None,
) -> tuple[tuple[Evaluation, ...], tuple[UnseenEvaluation, ...]]:
    """Score the shared part of ``state.model``; all client ranks help.

    It is scored on some clients' test splits, split 0 of their archives, and where it is a group's global
    model on all splits of the unseen datasets. Features of a dataset are extracted in shards wherever there
    is time, and ranked on one rank: that which hosts the first of its clients, of unseen datasets each on
    another. No image leaves the rank that read it.

    Parameters
    ----------
    state
        Holds the model, the same on every rank.
    clients
        Ids of those whose test splits are used. Those without one are passed over, and so are those of whose
        images the model makes features that are not finite.
    round, kind
        What the scores are of.
    group
        Number of the group whose global model it is; None: unseen datasets are not scored.

    Returns
    -------
    evaluations : tuple of Evaluation
        In client-id order on the server; empty elsewhere.
    unseen : tuple of UnseenEvaluation
        In the order of ``data.unseen`` on the server; empty elsewhere.
    """
    first: dict[int, ClientSpec] = {}  # dataset to the first client that is tested on it
    for spec in state.specs:
        if spec.id in clients and spec.test_images:
            first.setdefault(spec.dataset, spec)
    tests = [Tested.by_client(state, spec) for spec in first.values()]
    positions = {dataset: position for position, dataset in enumerate(first)}
    hosts = state.comm.client_ranks
    tests += [
        Tested(archive, all_tests(archive), archive.splits, hosts[number % len(hosts)])
        for number, archive in enumerate(state.unseen if group is not None else ())
    ]
    scores = _score(state, tests)
    evaluations = tuple(
        Evaluation(round, spec.id, kind, scores[positions[spec.dataset]])
        for spec in state.specs
        if spec.id in clients and positions.get(spec.dataset) in scores
    )
    unseen = tuple(
        UnseenEvaluation(round, position - len(first), group, scores[position])
        for position in range(len(first), len(tests))
        if group is not None and position in scores
    )
    return evaluations, unseen


def _score(state: RankState, tests: Sequence[Tested]) -> dict[int, Scores]:
    """Score ``state.model`` on datasets: position in ``tests`` to scores, on the server; empty elsewhere."""
    comm = state.comm
    work = [unit for n, test in enumerate(tests) for unit in shards(n, len(test.images))]
    placed = place([unit.stop - unit.start for unit in work], len(comm.client_ranks))
    owner = {n: rank for rank, numbers in zip(comm.client_ranks, placed, strict=True) for n in numbers}

    def extract() -> dict[int, Tensor]:
        mine = ((n, unit) for n, unit in enumerate(work) if owner[n] == comm.rank)
        return {n: _features_of(state, tests[unit.dataset], unit.start, unit.stop).cpu() for n, unit in mine}

    def rank(features: dict[int, Tensor]) -> dict[int, Scores]:
        device = state.model.buffer.device
        ranked = {number: _rank(state, tests[number], rows.to(device)) for number, rows in features.items()}
        return {number: scores for number, scores in ranked.items() if scores is not None}

    with state.timed("evaluate"):
        pieces = comm.phase("evaluate", extract)
        mine: dict[int, Tensor] = {}
        for number, test in enumerate(tests):
            numbers = [n for n, unit in enumerate(work) if unit.dataset == number]
            features = collect_features(
                comm,
                {position: pieces[n] for position, n in enumerate(numbers) if n in pieces},
                [owner[n] for n in numbers],
                [work[n].stop - work[n].start for n in numbers],
                state.model.network.width,
                test.rank,
            )
            if features is not None:
                mine[number] = torch.from_numpy(features)
        gathered = comm.gather(comm.phase("rank", lambda: rank(mine)))
    return {number: score for part in gathered or () for number, score in part.items()}


def score_loaded(state: RankState, spec: ClientSpec) -> Scores | None:
    """Score the model that is loaded on a client's test split, on this rank alone.

    Returns
    -------
    Scores or None
        None where the model makes features that are not finite.
    """
    test = Tested.by_client(state, spec)
    return _rank(state, test, _features_of(state, test))


def score_reestimated(state: RankState, round: int) -> tuple[Evaluation, ...]:
    """Score the clients' global models with BatchNorm statistics of their own training images.

    Each client's rank does it, as the images are there.

    Returns
    -------
    tuple of Evaluation
        In client-id order on the server; empty elsewhere.
    """

    def score(client: Client) -> Evaluation | None:
        experiment = state.experiment
        shared = state.progress.shared_of(client.spec.id)
        private = state.progress.private[client.spec.id]
        load_client(state.model, client.spec, shared, private, experiment)
        with reestimated(client, state.model, experiment, state.heartbeat):
            scores = score_loaded(state, client.spec)
        return None if scores is None else Evaluation(round, client.spec.id, ModelKind.REESTIMATED, scores)

    tested = [client for client in state.clients if client.spec.test_images]
    with state.timed("evaluate"):
        scored = state.comm.gather(state.comm.phase("re-estimate", lambda: [score(c) for c in tested]))
    found = [evaluation for part in scored or () for evaluation in part if evaluation is not None]
    return tuple(sorted(found, key=lambda evaluation: evaluation.client))


def _features_of(state: RankState, test: Tested, start: int = 0, stop: int | None = None) -> Tensor:
    experiment = state.experiment
    images, mirror = test.images[start:stop], experiment.evaluation.mirror
    return extract_features(
        state.model.network, test.archive, images, experiment.compute, mirror, state.advance
    )


def _rank(state: RankState, test: Tested, features: Tensor) -> Scores | None:
    """Rank a dataset's galleries by the features of all its test images; None if they are not finite."""
    if not features.isfinite().all():
        return None
    extracted = ExtractedFeatures(test.archive, test.images, features)
    scoring = Scoring(state.experiment.evaluation.protocol, state.experiment.run.seed)
    splits = [score_split(extracted, split, scoring, state.advance) for split in range(test.splits)]
    return mean_scores([ranking.scores() for ranking in splits])
