"""One round of federated partial averaging, the same code on every rank.

Train → group and aggregate → distil → deliver and evaluate. Each step that can fail is a phase of the
communicator: models move only after every rank has said that its part went well.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.algorithms.clustering import cluster_clients, feature_distances
from fedreid_mpi.algorithms.grouping import plan_groups, require_finite_models
from fedreid_mpi.algorithms.schedule import learning_rate
from fedreid_mpi.algorithms.selection import select_participants
from fedreid_mpi.algorithms.weighting import cosine_distance_weight
from fedreid_mpi.comm.exchange import aggregate, distribute
from fedreid_mpi.config import Experiment
from fedreid_mpi.evaluation import extract_features, query_then_gallery, rank_gallery
from fedreid_mpi.member import Member
from fedreid_mpi.scoring import score_reestimated, score_shared
from fedreid_mpi.training import Client, probe, train
from fedreid_mpi.types import (
    ClientReport,
    ClientSpec,
    Evaluation,
    Event,
    Group,
    Message,
    ModelKind,
    RoundPlan,
    RoundRecord,
)


def trainers(experiment: Experiment, specs: Sequence[ClientSpec]) -> tuple[int, ...]:
    """Return the ids of the clients that train at all: the pool alone in mode ``"centralised"``."""
    pooled = experiment.federation.mode == "centralised"
    return tuple(spec.id for spec in specs if (spec.dataset == -1) == pooled)


def plan_round(
    experiment: Experiment, specs: Sequence[ClientSpec], round: int, dropped: Collection[int] = ()
) -> RoundPlan:
    """Decide what a round does: who trains, how fast, and what follows the training.

    In round 0 nobody trains: it scores the model that all clients start from.

    Parameters
    ----------
    experiment, specs, round
        The configuration, all clients, and the round's number.
    dropped
        Ids of clients that take no part, like those that are away (``federation.availability``).
    """
    run, optimizer, federation = experiment.run, experiment.optimizer, experiment.federation
    if round == 0:
        return RoundPlan(round=0, participants=(), learning_rate=0.0, evaluate=True)
    away = {
        name
        for name, spans in federation.availability.items()
        if any(first <= round <= last for first, last in spans)
    }
    there = [id for id in trainers(experiment, specs) if specs[id].name not in away and id not in dropped]
    count = federation.clients_per_round
    drawn = select_participants(len(there), count, run.seed, round) if there else ()
    return RoundPlan(
        round=round,
        participants=tuple(there[position] for position in drawn),
        learning_rate=learning_rate(
            round,
            run.rounds,
            optimizer.lr,
            optimizer.schedule,
            optimizer.warmup,
            optimizer.step_every,
            optimizer.step_factor,
        ),
        evaluate=round % experiment.evaluation.every == 0 or round == run.rounds,
        cluster=bool(there) and experiment.clustering.enabled and round % experiment.clustering.every == 0,
        distil=bool(there) and experiment.distillation.enabled and round % experiment.distillation.every == 0,
        edge=bool(round % (federation.edge_rounds + 1)),
    )


def play_round(member: Member, plan: RoundPlan) -> RoundRecord | None:
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
    comm = member.comm
    member.seconds.clear()
    if member.experiment.federation.mode == "local" and plan.participants:
        reports, _ = _train(member, plan)
        enough = member.experiment.reliability.min_clients
        comm.decide("train", partial(require_finite_models, reports, enough))
        outcome = _Outcome(reports)
    else:
        outcome = _federate(member, plan)
    # All that was sent since the last round's record; this message will be in the next one's.
    ledger, comm.ledger = comm.ledger, Counter()
    ledgers = comm.gather(ledger)
    if ledgers is None:
        return None
    messages = dict(enumerate(ledgers))
    return RoundRecord(
        plan=plan,
        reports=outcome.reports,
        weights={
            client: weight
            for group in outcome.groups
            for client, weight in group.weights.items()
            if client in group.members
        },
        groups={client: n for n, group in enumerate(outcome.groups) for client in group.members},
        distillation_loss=outcome.losses,
        feature_distances=_distances(member, plan, outcome.reports),
        evaluations=outcome.evaluations + _local_evaluations(plan, outcome.reports),
        events=_events(member, plan, outcome),
        phase_seconds=dict(member.seconds),
        bytes_sent=_bytes_by_kind(messages),
        messages=messages,
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a round; reports, losses and evaluations are known to the server alone."""

    reports: tuple[ClientReport, ...] = ()
    groups: tuple[Group, ...] = ()
    losses: dict[int, float] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()


def _federate(member: Member, plan: RoundPlan) -> _Outcome:
    """Train the participants, join their models group by group, and give every client its group's model.

    Where there are no participants the models stay as they are, and are scored where that is planned.
    """
    reports, lessons = _train(member, plan)
    with member.timed("aggregate"):
        groups = member.comm.decide("aggregate", lambda: _plan_groups(member, plan, reports))
        models = [_aggregate(member, group) for group in groups]
    evaluations: tuple[Evaluation, ...] = ()
    losses: dict[int, float] = {}
    if plan.distil:
        if plan.evaluate:
            evaluations = _deliver(member, plan, groups, models, ModelKind.AGGREGATED)
        with member.timed("distil"):
            losses = _distil(member, plan, groups, models, lessons)
    evaluations += _deliver(member, plan, groups, models, ModelKind.GLOBAL)
    if plan.evaluate and member.experiment.evaluation.reestimate_bn:
        evaluations += score_reestimated(member, plan.round)
    member.groups[:] = [group.members for group in groups]
    member.newcomers.difference_update(plan.participants)
    member.models[:] = [model for model in models if model is not None]
    return _Outcome(reports, groups, losses, evaluations)


def _train(member: Member, plan: RoundPlan) -> tuple[tuple[ClientReport, ...], dict[int, Tensor]]:
    """Train the participants where they are, and measure what needs their models while they are loaded.

    Returns
    -------
    reports : tuple of ClientReport
        In client-id order on the server, empty elsewhere.
    lessons : dict
        This rank's participants: id to teacher features, where the round distils.
    """
    lessons: dict[int, Tensor] = {}

    def one(client: Client) -> ClientReport:
        report, lesson = _train_client(member, client, plan)
        if lesson is not None:
            lessons[client.spec.id] = lesson
        return report

    with member.timed("train"):
        hosted = [client for client in member.clients if client.spec.id in plan.participants]
        reports = member.comm.phase("train", lambda: [one(client) for client in hosted])
        gathered = member.comm.gather(reports)
    ordered = sorted((r for part in gathered or () for r in part), key=lambda report: report.client)
    return tuple(ordered), lessons


def _train_client(member: Member, client: Client, plan: RoundPlan) -> tuple[ClientReport, Tensor | None]:
    """Train one client; one that diverges is left as it was before the round, its classifier included."""
    kept = client.model.buffer.clone()
    report, lesson = _train_and_measure(member, client, plan)
    if report.finite:
        return report, lesson
    client.model.buffer.copy_(kept)
    return replace(report, cosine_distance=None, feature=None, local_scores=None), None


def _train_and_measure(member: Member, client: Client, plan: RoundPlan) -> tuple[ClientReport, Tensor | None]:
    """Stop at the first thing that is not finite: finite parameters can be too large to compute with."""
    experiment, network = member.experiment, client.model.network
    measured = (
        experiment.aggregation.weights == "cosine-distance" and experiment.federation.mode == "federated"
    )
    before = probe(client, plan, experiment) if measured else None
    report = train(client, plan, experiment, member.pulse)
    if not report.finite:
        return report, None
    diverged = replace(report, finite=False)
    if before is not None:
        after = probe(client, plan, experiment)
        if not np.isfinite(after).all():
            return diverged, None
        report = replace(report, cosine_distance=cosine_distance_weight(before, after))
    public, lesson = member.public, None
    if public is not None and plan.cluster:
        feature = public.clustering_feature(network, plan)
        if not np.isfinite(feature).all():
            return diverged, None
        report = replace(report, feature=feature)
    if public is not None and plan.distil:
        lesson = public.teach(network, plan, member.pulse).cpu()
        if not lesson.isfinite().all():
            return diverged, None
    if plan.evaluate and experiment.evaluation.local_models and client.spec.test_images:
        archive, settings = member.archives[client.spec.dataset], experiment.evaluation
        features = extract_features(
            network, archive, query_then_gallery(archive), experiment.compute, member.advance
        )
        if not features.isfinite().all():
            return diverged, None
        ranking = rank_gallery(features, archive, settings.protocol, experiment.run.seed)
        report = replace(report, local_scores=ranking.scores())
    return report, lesson


def _plan_groups(member: Member, plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Group, ...]:
    if not plan.participants:
        return tuple(Group(members, {}, {}, before) for before, members in enumerate(member.groups))
    settings, clustering = member.experiment.aggregation, member.experiment.clustering
    features = _features(reports)
    labels: Mapping[int, int] | None = None
    if plan.cluster and features:
        labels = cluster_clients(features, clustering.partition, clustering.max_distance)
    elif member.experiment.federation.edge_rounds:
        labels = {report.client: member.specs[report.client].dataset * plan.edge for report in reports}
    return plan_groups(
        member.groups,
        labels,
        reports,
        plan.participants,
        settings.weights,
        settings.bn,
        member.newcomers,
        member.experiment.reliability.min_clients,
    )


def _features(reports: Sequence[ClientReport]) -> dict[int, NDArray[np.float32]]:
    return {report.client: report.feature for report in reports if report.feature is not None}


def _distances(
    member: Member, plan: RoundPlan, reports: Sequence[ClientReport]
) -> NDArray[np.float32] | None:
    return feature_distances(_features(reports), len(member.specs)) if plan.cluster else None


def _aggregate(member: Member, group: Group) -> Tensor | None:
    """Average a group's models on the server: shape (shared,), float32; the old one where nobody trained."""
    comm, region = member.comm, member.shared.statistics
    if not group.weights:
        return member.models[group.before] if comm.is_server else None
    model = torch.empty_like(member.shared.shared, device="cpu") if comm.is_server else None
    parameters = slice(0, region.start)
    for part, weights in ((parameters, group.weights), (region, group.statistics_weights)):
        updates = {client.spec.id: client.model.shared[part] for client in member.clients}
        average = aggregate(comm, member.placement, updates, weights, part.stop - part.start)
        if model is not None and average is not None:
            model[part] = torch.from_numpy(average)
    return model


def _distil(
    member: Member,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: list[Tensor | None],
    lessons: Mapping[int, Tensor],
) -> dict[int, float]:
    """Fine-tune the model of each group that trained on what its clients make of the public images.

    What travels is features, not models: their mean is taken like that of models, in client-id order. The
    server's result takes the place of the aggregated model, unless it diverged.

    Returns
    -------
    dict
        Group to the student's mean loss, on the server; NaN if it diverged.
    """
    comm, settings, public = member.comm, member.experiment.distillation, member.public
    assert public is not None
    width = member.experiment.model.embedding_dim
    losses: dict[int, float] = {}

    def mean(clients: Sequence[int]) -> Tensor | None:
        flat = {client: lesson.flatten() for client, lesson in lessons.items()}
        weights = dict.fromkeys(clients, 1.0)
        average = aggregate(comm, member.placement, flat, weights, len(public) * width, "features")
        return None if average is None else torch.from_numpy(average).view(-1, width)

    def fine_tune(number: int, targets: Tensor | None) -> None:
        model = models[number]
        if model is not None and targets is not None:
            member.shared.shared.copy_(model)
            losses[number] = public.distil(member.shared, targets, plan, member.pulse)
            if not isnan(losses[number]):
                models[number] = member.shared.shared.to("cpu", copy=True)

    taught = [number for number, group in enumerate(groups) if group.weights]
    everyone = [client for number in taught for client in groups[number].weights]
    together = mean(sorted(everyone)) if settings.scope == "global" else None
    for number in taught:
        targets = together if settings.scope == "global" else mean(list(groups[number].weights))
        comm.phase("distil", partial(fine_tune, number, targets))
    return losses


def _deliver(
    member: Member,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: Sequence[Tensor | None],
    kind: ModelKind,
) -> tuple[Evaluation, ...]:
    """Send each group's model to every rank, where its clients load it and all help to score it."""
    evaluations: tuple[Evaluation, ...] = ()
    keep = member.experiment.aggregation.bn == "local"
    for group, model in zip(groups, models, strict=True):
        with member.timed("aggregate"):
            if model is not None:
                member.shared.shared.copy_(model)
            distribute(member.comm, member.shared.shared)
            for client in member.clients:
                if client.spec.id in group.members and kind is ModelKind.GLOBAL:
                    client.model.load_shared(member.shared.shared, keep_normalisation=keep)
        if plan.evaluate:
            evaluations += score_shared(member, group.members, plan.round, kind)
    return tuple(sorted(evaluations, key=lambda evaluation: evaluation.client))


def _bytes_by_kind(messages: Mapping[int, Mapping[Message, int]]) -> dict[str, int]:
    """Add up the model values and features that travelled; not the small values, whose kinds are many."""
    sent: Counter[str] = Counter()
    for ledger in messages.values():
        for message, count in ledger.items():
            if message.dtype == "float32":
                sent[message.kind] += message.bytes * count
    return dict(sent)


def _local_evaluations(plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(plan.round, report.client, ModelKind.LOCAL, report.local_scores)
        for report in reports
        if report.local_scores is not None
    )


def _events(member: Member, plan: RoundPlan, outcome: _Outcome) -> tuple[Event, ...]:
    """Tell of everything that was left out because it was not finite."""
    texts = [
        f"client {report.client} is left out: its model is not finite"
        for report in outcome.reports
        if not report.finite
    ]
    texts += [
        f"group {group} keeps its aggregated model: the distilled one is not finite"
        for group, loss in outcome.losses.items()
        if isnan(loss)
    ]
    scored = {evaluation.client for evaluation in outcome.evaluations}
    texts += [
        f"client {spec.id} is not scored: features of the shared model are not finite"
        for spec in member.specs
        if plan.evaluate and outcome.groups and spec.test_images and spec.id not in scored
    ]
    return tuple(Event(plan.round, "non-finite", text) for text in texts)
