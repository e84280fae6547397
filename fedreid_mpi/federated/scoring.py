"""Scores of a shared model, the work of all client ranks; and of a model that is a client's alone."""

from collections.abc import Collection

import torch
from torch import Tensor

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.evaluation import extract_features, query_then_gallery, rank_gallery, shards
from fedreid_mpi.federated.client import Client, load_client, reestimated
from fedreid_mpi.federated.exchange import collect_features
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.records import ClientSpec, Evaluation, ModelKind, Scores


def score_shared(
    state: RankState, clients: Collection[int], round: int, kind: ModelKind = ModelKind.GLOBAL
) -> tuple[Evaluation, ...]:
    """Score the shared part of ``state.model`` on some clients' test splits; all client ranks help.

    Features of a dataset are extracted in shards wherever there is time, and ranked on the rank that hosts
    the first of its clients, once for all of them. No image leaves the rank that read it.

    Parameters
    ----------
    state
        Holds the model, the same on every rank.
    clients
        Ids of those whose test splits are used. Those without one are passed over, and so are those of whose
        images the model makes features that are not finite.
    round, kind
        What the scores are of.

    Returns
    -------
    tuple of Evaluation
        In client-id order on the server; empty elsewhere.
    """
    comm = state.comm
    tested: dict[int, ClientSpec] = {}  # dataset to the first client that is tested on it
    for spec in state.specs:
        if spec.id in clients and spec.test_images:
            tested.setdefault(spec.dataset, spec)
    work = [unit for spec in tested.values() for unit in shards(spec.dataset, spec.test_images)]
    placed = place([unit.stop - unit.start for unit in work], len(comm.client_ranks))
    owner = {n: rank for rank, numbers in zip(comm.client_ranks, placed, strict=True) for n in numbers}

    def extract() -> dict[int, Tensor]:
        mine = ((n, unit) for n, unit in enumerate(work) if owner[n] == comm.rank)
        return {n: _features_of(state, unit.dataset, unit.start, unit.stop).cpu() for n, unit in mine}

    def rank(features: dict[int, Tensor]) -> dict[int, Scores]:
        device = state.model.buffer.device
        ranked = {dataset: _rank(state, dataset, rows.to(device)) for dataset, rows in features.items()}
        return {dataset: scores for dataset, scores in ranked.items() if scores is not None}

    with state.timed("evaluate"):
        pieces = comm.phase("evaluate", extract)
        mine: dict[int, Tensor] = {}
        for dataset, spec in tested.items():
            numbers = [n for n, unit in enumerate(work) if unit.dataset == dataset]
            features = collect_features(
                comm,
                {position: pieces[n] for position, n in enumerate(numbers) if n in pieces},
                [owner[n] for n in numbers],
                [work[n].stop - work[n].start for n in numbers],
                state.model.network.width,
                state.hosts[spec.id],
            )
            if features is not None:
                mine[dataset] = torch.from_numpy(features)
        gathered = comm.gather(comm.phase("rank", lambda: rank(mine)))
    scores = {dataset: score for part in gathered or () for dataset, score in part.items()}
    return tuple(
        Evaluation(round, spec.id, kind, scores[spec.dataset])
        for spec in state.specs
        if spec.id in clients and spec.dataset in scores
    )


def score_loaded(state: RankState, spec: ClientSpec) -> Scores | None:
    """Score the model that is loaded on a client's test split, on this rank alone.

    Returns
    -------
    Scores or None
        None where the model makes features that are not finite.
    """
    return _rank(state, spec.dataset, _features_of(state, spec.dataset))


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


def _features_of(state: RankState, dataset: int, start: int = 0, stop: int | None = None) -> Tensor:
    archive, experiment = state.archives[dataset], state.experiment
    images, mirror = query_then_gallery(archive)[start:stop], experiment.evaluation.mirror
    return extract_features(state.model.network, archive, images, experiment.compute, mirror, state.advance)


def _rank(state: RankState, dataset: int, features: Tensor) -> Scores | None:
    """Rank a dataset's gallery by the features of all its test images; None if they are not finite."""
    if not features.isfinite().all():
        return None
    protocol, seed = state.experiment.evaluation.protocol, state.experiment.run.seed
    return rank_gallery(features, state.archives[dataset], protocol, seed, advance=state.advance).scores()
