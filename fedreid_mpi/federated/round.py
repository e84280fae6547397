"""One round of federated partial averaging, the same code on every rank.

Train → group and aggregate → distil → deliver and evaluate. Each step that can fail is a phase of the
communicator: models move only after every rank has said that its part went well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan

import numpy as np
import torch
from torch import Tensor

from fedreid_mpi.algorithms.clustering import cluster_clients
from fedreid_mpi.algorithms.grouping import plan_groups, require_finite_models
from fedreid_mpi.algorithms.weighting import cosine_distance_weight
from fedreid_mpi.evaluation import extract_features, query_then_gallery, rank_gallery
from fedreid_mpi.federated.client import Client, probe, train
from fedreid_mpi.federated.exchange import aggregate, distribute
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.record import RoundOutcome, features_of, record_round
from fedreid_mpi.federated.scoring import score_reestimated, score_shared
from fedreid_mpi.records import (
    ClientReport,
    Evaluation,
    Group,
    ModelKind,
    RoundPlan,
    RoundRecord,
)


def run_round(state: RankState, plan: RoundPlan) -> RoundRecord | None:
    """Play one round; nothing but the models in memory is changed.

    Returns
    -------
    RoundRecord or None
        On the server; None elsewhere.

    Raises
    ------
    PhaseError
        On every rank alike, if any failed.
    """
    comm = state.comm
    state.progress.seconds.clear()
    if state.experiment.federation.mode == "local" and plan.participants:
        reports, _ = _train(state, plan)
        enough = state.experiment.reliability.min_clients
        comm.decide("train", partial(require_finite_models, reports, enough))
        outcome = RoundOutcome(reports)
    else:
        outcome = _federate(state, plan)
    return record_round(state, plan, outcome)


def _federate(state: RankState, plan: RoundPlan) -> RoundOutcome:
    """Train the participants, join their models group by group, and give every client its group's model.

    Where there are no participants the models stay as they are, and are scored where that is planned.
    """
    reports, teacher_features_of = _train(state, plan)
    with state.timed("aggregate"):
        groups = state.comm.decide("aggregate", lambda: _plan_groups(state, plan, reports))
        models = [_aggregate(state, group) for group in groups]
    evaluations: tuple[Evaluation, ...] = ()
    losses: dict[int, float] = {}
    if plan.distil:
        if plan.evaluate:
            evaluations = _broadcast_models(state, plan, groups, models, ModelKind.AGGREGATED)
        with state.timed("distil"):
            losses = _distil(state, plan, groups, models, teacher_features_of)
    evaluations += _broadcast_models(state, plan, groups, models, ModelKind.GLOBAL)
    if plan.evaluate and state.experiment.evaluation.reestimate_bn:
        evaluations += score_reestimated(state, plan.round)
    state.progress.groups = tuple(group.members for group in groups)
    state.progress.untrained -= frozenset(plan.participants)
    state.progress.models = tuple(model for model in models if model is not None)
    return RoundOutcome(reports, groups, losses, evaluations)


def _train(state: RankState, plan: RoundPlan) -> tuple[tuple[ClientReport, ...], dict[int, Tensor]]:
    """Train the participants where they are, and measure what needs their models while they are loaded.

    Returns
    -------
    reports : tuple of ClientReport
        In client-id order on the server, empty elsewhere.
    teacher_features_of : dict
        This rank's participants: id to teacher features, where the round distils.
    """
    teacher_features_of: dict[int, Tensor] = {}

    def one(client: Client) -> ClientReport:
        report, features = _train_client(state, client, plan)
        if features is not None:
            teacher_features_of[client.spec.id] = features
        return report

    with state.timed("train"):
        hosted = [client for client in state.clients if client.spec.id in plan.participants]
        reports = state.comm.phase("train", lambda: [one(client) for client in hosted])
        gathered = state.comm.gather(reports)
    ordered = sorted((r for part in gathered or () for r in part), key=lambda report: report.client)
    return tuple(ordered), teacher_features_of


def _train_client(state: RankState, client: Client, plan: RoundPlan) -> tuple[ClientReport, Tensor | None]:
    """Train one client; one that diverges is left as it was before the round, its classifier included."""
    kept = client.model.buffer.clone()
    report, features = _train_and_measure(state, client, plan)
    if report.finite:
        return report, features
    client.model.buffer.copy_(kept)
    return replace(report, cosine_distance=None, feature=None, local_scores=None), None


def _train_and_measure(
    state: RankState, client: Client, plan: RoundPlan
) -> tuple[ClientReport, Tensor | None]:
    """Stop at the first thing that is not finite: finite parameters can be too large to compute with."""
    experiment, network = state.experiment, client.model.network
    measured = (
        experiment.aggregation.weights == "cosine-distance" and experiment.federation.mode == "federated"
    )
    before = probe(client, plan, experiment) if measured else None
    report = train(client, plan, experiment, state.heartbeat)
    if not report.finite:
        return report, None
    diverged = replace(report, finite=False)
    if before is not None:
        after = probe(client, plan, experiment)
        if not np.isfinite(after).all():
            return diverged, None
        report = replace(report, cosine_distance=cosine_distance_weight(before, after))
    public, taught = state.public, None
    if public is not None and plan.cluster:
        feature = public.clustering_feature(network, plan, state.heartbeat)
        if not np.isfinite(feature).all():
            return diverged, None
        report = replace(report, feature=feature)
    if public is not None and plan.distil:
        taught = public.teach(network, plan, state.heartbeat).cpu()
        if not taught.isfinite().all():
            return diverged, None
    if plan.evaluate and experiment.evaluation.local_models and client.spec.test_images:
        archive, settings = state.archives[client.spec.dataset], experiment.evaluation
        features = extract_features(
            network, archive, query_then_gallery(archive), experiment.compute, state.advance
        )
        if not features.isfinite().all():
            return diverged, None
        ranking = rank_gallery(
            features, archive, settings.protocol, experiment.run.seed, advance=state.advance
        )
        report = replace(report, local_scores=ranking.scores())
    return report, taught


def _plan_groups(state: RankState, plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Group, ...]:
    if not plan.participants:
        return tuple(Group(members, {}, {}, before) for before, members in enumerate(state.progress.groups))
    settings, clustering = state.experiment.aggregation, state.experiment.clustering
    features = features_of(reports)
    labels: Mapping[int, int] | None = None
    if plan.cluster and features:
        labels = cluster_clients(features, clustering.partition, clustering.max_distance)
    elif state.experiment.federation.edge_rounds:
        labels = {report.client: state.specs[report.client].dataset * plan.edge for report in reports}
    return plan_groups(
        state.progress.groups,
        labels,
        reports,
        plan.participants,
        settings.weights,
        settings.bn,
        state.progress.untrained,
        state.experiment.reliability.min_clients,
    )


def _aggregate(state: RankState, group: Group) -> Tensor | None:
    """Average a group's models on the server: shape (shared,), float32; the old one where nobody trained."""
    comm, region = state.comm, state.shared.statistics
    if not group.weights:
        return state.progress.models[group.before] if comm.is_server else None
    model = torch.empty_like(state.shared.shared, device="cpu") if comm.is_server else None
    parameters = slice(0, region.start)
    for part, weights in ((parameters, group.weights), (region, group.statistics_weights)):
        updates = {client.spec.id: client.model.shared[part] for client in state.clients}
        average = aggregate(comm, state.placement, updates, weights, part.stop - part.start)
        if model is not None and average is not None:
            model[part] = torch.from_numpy(average)
    return model


def _distil(
    state: RankState,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: list[Tensor | None],
    teacher_features_of: Mapping[int, Tensor],
) -> dict[int, float]:
    """Fine-tune the model of each group that trained on what its clients make of the public images.

    What travels is features, not models: their mean is taken like that of models, in client-id order. The
    server's result takes the place of the aggregated model, unless it diverged.

    Returns
    -------
    dict
        Group to the student's mean loss, on the server; NaN if it diverged.
    """
    comm, settings, public = state.comm, state.experiment.distillation, state.public
    assert public is not None
    width = state.experiment.model.embedding_dim
    losses: dict[int, float] = {}

    def mean(clients: Sequence[int]) -> Tensor | None:
        flat = {client: features.flatten() for client, features in teacher_features_of.items()}
        weights = dict.fromkeys(clients, 1.0)
        average = aggregate(comm, state.placement, flat, weights, len(public) * width, "features")
        return None if average is None else torch.from_numpy(average).view(-1, width)

    def fine_tune(number: int, targets: Tensor | None) -> None:
        model = models[number]
        if model is not None and targets is not None:
            state.shared.shared.copy_(model)
            losses[number] = public.distil(state.shared, targets, plan, state.heartbeat)
            if not isnan(losses[number]):
                models[number] = state.shared.shared.to("cpu", copy=True)

    taught = [number for number, group in enumerate(groups) if group.weights]
    everyone = [client for number in taught for client in groups[number].weights]
    together = mean(sorted(everyone)) if settings.scope == "global" else None
    for number in taught:
        targets = together if settings.scope == "global" else mean(list(groups[number].weights))
        comm.phase("distil", partial(fine_tune, number, targets))
    return losses


def _broadcast_models(
    state: RankState,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: Sequence[Tensor | None],
    kind: ModelKind,
) -> tuple[Evaluation, ...]:
    """Send each group's model to every rank, where its clients load it and all help to score it."""
    evaluations: tuple[Evaluation, ...] = ()
    keep = state.experiment.aggregation.bn == "local"
    for group, model in zip(groups, models, strict=True):
        with state.timed("aggregate"):
            if model is not None:
                state.shared.shared.copy_(model)
            distribute(state.comm, state.shared.shared)
            for client in state.clients:
                if client.spec.id in group.members and kind is ModelKind.GLOBAL:
                    client.model.load_shared(state.shared.shared, keep_normalisation=keep)
        if plan.evaluate:
            evaluations += score_shared(state, group.members, plan.round, kind)
    return tuple(sorted(evaluations, key=lambda evaluation: evaluation.client))
