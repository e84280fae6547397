"""One round of federated partial averaging, the same code on every rank.

Train → group and aggregate → distil → broadcast and evaluate. Each step that can fail is a phase of the
communicator: models move only after every rank has said that its part went well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan

from torch import Tensor

from fedreid_mpi.algorithms.clustering import cluster_clients
from fedreid_mpi.algorithms.grouping import plan_groups, require_finite_models, require_sums
from fedreid_mpi.federated.aggregation import (
    average_contributions,
    average_features,
    average_models,
    begin_sums,
    edge_labels,
    shares_in,
)
from fedreid_mpi.federated.client import Client, load_client, take_private, train
from fedreid_mpi.federated.exchange import broadcast_model
from fedreid_mpi.federated.plan import weight_rule
from fedreid_mpi.federated.private_step import step_with_noise
from fedreid_mpi.federated.probes import probes_of
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.round_record import RoundOutcome, features_of, record_round
from fedreid_mpi.federated.scoring import score_reestimated, score_shared
from fedreid_mpi.federated.server_step import broadcast_to_clients, step_from_mean, steps_of
from fedreid_mpi.federated.sums import MODELS, RankSums
from fedreid_mpi.federated.turn import Vectors
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import (
    ClientReport,
    ClientSpec,
    Evaluation,
    Group,
    ModelKind,
    RoundPlan,
    RoundRecord,
    UnseenEvaluation,
)

KeepLocal = Callable[[ClientSpec, FlatModel], None]
"""Keeps the model of a client that has just trained; called while it is loaded."""


def run_round(state: RankState, plan: RoundPlan, keep_local: KeepLocal | None = None) -> RoundRecord | None:
    """Run one round; nothing but what is in memory is changed.

    Parameters
    ----------
    state
        This rank's.
    plan
        What is done, the same on all ranks.
    keep_local
        Is given each client's own model, before aggregation; None: they are not kept.

    Returns
    -------
    RoundRecord or None
        On the server; None elsewhere.

    Raises
    ------
    PhaseError
        On every rank, if any failed.
    """
    state.progress.seconds.clear()
    sums = begin_sums(state, plan)
    broadcast = broadcast_to_clients(state) if plan.participants else {}
    reports = _train(state, plan, sums, broadcast, keep_local)
    if state.experiment.federation.mode == "local":
        enough = state.experiment.reliability.min_clients
        if plan.participants:
            state.comm.decide("train", partial(require_finite_models, reports, enough))
        return record_round(state, plan, RoundOutcome(reports))
    return record_round(state, plan, _federate(state, plan, sums, reports))


def _train(
    state: RankState, plan: RoundPlan, sums: RankSums, broadcast: Vectors, keep_local: KeepLocal | None
) -> tuple[ClientReport, ...]:
    """Train the participants where they are, one after the other in the rank's model.

    Returns
    -------
    tuple of ClientReport
        In client-id order on the server, empty elsewhere.
    """
    share = shares_in(state, plan) if plan.participants else lambda report: 0.0
    participants = frozenset(plan.participants)
    hosted = [client for client in state.clients if client.spec.id in participants]
    with state.timed("train"):
        work = partial(_train_client, state, plan, sums, share, broadcast, keep_local)
        reports = state.comm.phase("train", lambda: [work(client) for client in hosted])
        gathered = state.comm.gather(reports)
    every = [report for part in gathered or () for report in part]
    return tuple(sorted(every, key=lambda report: report.client))


def _train_client(
    state: RankState,
    plan: RoundPlan,
    sums: RankSums,
    share: Callable[[ClientReport], float],
    broadcast: Vectors,
    keep_local: KeepLocal | None,
    client: Client,
) -> ClientReport:
    """Give one client its turn; one that diverges is left as it was before, and is added to nothing."""
    id, model, progress = client.spec.id, state.model, state.progress
    shared = progress.shared_of(id)
    load_client(model, client.spec, shared, progress.private[id], state.experiment)
    probes = probes_of(state, plan, client)
    for probe in probes:
        probe.before()
    memory = progress.memory.get(id, {})
    trained = train(client, model, plan, state.experiment, state.heartbeat, shared, memory, broadcast)
    report, private = trained.report, take_private(model, client.spec, state.experiment)
    diverged = replace(report, finite=False)
    if not (report.finite and private.isfinite().all()):
        return diverged
    if shared is not None and not sums.vectors[MODELS].fits(model.shared):
        return diverged
    if not all(sums.vectors[kind].fits(values) for kind, values in trained.contributed.items()):
        return diverged
    vectors: dict[str, Tensor] = {}
    for probe in probes:  # finite parameters can be too large to compute with
        measured = probe.after()
        if measured is None or not all(sums.vectors[kind].fits(v) for kind, v in measured.sums.items()):
            return diverged
        report = replace(report, **measured.report)
        vectors.update(measured.sums)
    progress.private[id], progress.memory[id] = private, trained.memory
    if shared is not None:
        sums.add(id, MODELS, share(report), sums.contribution(model.shared, shared))
    for kind, values in trained.contributed.items():
        sums.add(id, kind, share(report), values)
    for kind, values in vectors.items():
        sums.add(id, kind, 1.0, values)
    if keep_local is not None:
        keep_local(client.spec, model)
    return report


def _federate(
    state: RankState, plan: RoundPlan, sums: RankSums, reports: tuple[ClientReport, ...]
) -> RoundOutcome:
    """Join the participants' models group by group, and give every rank the groups' models.

    Where there are no participants the models stay as they are, and are scored where that is planned.
    """
    comm, remembered = state.comm, state.progress.server
    with state.timed("aggregate"):
        groups = comm.decide("aggregate", lambda: _plan_groups(state, plan, reports))
        if plan.cluster:
            sums.settle(groups)
        share = shares_in(state, plan) if reports else None
        shares = {report.client: share(report) for report in reports if report.finite} if share else {}
        if state.experiment.privacy.clip and plan.round:
            models = step_with_noise(state, plan, sums, groups)
        else:
            models = average_models(state, sums, groups, shares)
        means = average_contributions(state, sums, groups, shares)
        if steps_of(state.experiment):
            remembered = comm.phase("aggregate", partial(_step, state, groups, reports, models, means))
    evaluations: tuple[Evaluation, ...] = ()
    losses: dict[int, float] = {}
    if plan.distil:
        if plan.evaluate:
            evaluations, _ = _broadcast_models(state, plan, groups, models, ModelKind.AGGREGATED)
        with state.timed("distil"):
            losses = _distil(state, plan, groups, models, average_features(state, sums, groups))
    sums.finish()
    scored, unseen = _broadcast_models(state, plan, groups, models, ModelKind.GLOBAL)
    evaluations += scored
    if plan.evaluate and state.experiment.evaluation.reestimate_bn:
        evaluations += score_reestimated(state, plan.round)
    state.progress.untrained -= frozenset(plan.participants)
    state.progress.server = remembered
    return RoundOutcome(reports, groups, losses, evaluations, unseen)


def _step(
    state: RankState,
    groups: Sequence[Group],
    reports: Sequence[ClientReport],
    models: Sequence[Tensor | None],
    means: Vectors,
) -> Vectors:
    """Let the server step from the clients' mean; return what it is to remember."""
    (group,), (mean,) = groups, models
    if mean is None or not group.weights:
        return state.progress.server
    taken = [report for report in reports if report.client in group.weights]
    return step_from_mean(state, taken, mean, means)


def _plan_groups(state: RankState, plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Group, ...]:
    progress, experiment = state.progress, state.experiment
    if not plan.participants:
        return tuple(Group(members, {}, {}, before) for before, members in enumerate(progress.groups))
    features = features_of(reports)
    labels: Mapping[int, int] | None = None
    if plan.cluster and features:
        clustering = experiment.clustering
        labels = cluster_clients(features, clustering.partition, clustering.max_distance)
    elif experiment.federation.edge_rounds:
        labels = edge_labels(state, plan)
    groups = plan_groups(
        progress.groups,
        labels,
        reports,
        plan.participants,
        weight_rule(experiment, state.specs, plan),
        experiment.aggregation.bn,
        progress.untrained,
        0 if experiment.privacy.clip else experiment.reliability.min_clients,
    )
    if experiment.privacy.secure_aggregation:
        require_sums(groups)
    return groups


def _distil(
    state: RankState,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: list[Tensor | None],
    targets: Sequence[Tensor | None],
) -> dict[int, float]:
    """Fine-tune the model of each group that trained on what its clients make of the public images.

    The server's result takes the place of the aggregated model, unless it diverged.

    Returns
    -------
    dict
        Group to the student's mean loss, on the server; NaN if it diverged.
    """
    public, student = state.public, state.model
    assert public is not None
    losses: dict[int, float] = {}

    def fine_tune(number: int) -> None:
        model, target = models[number], targets[number]
        if model is not None and target is not None:
            student.shared.copy_(model)
            losses[number] = public.distil(student, target, plan, state.heartbeat)
            if not isnan(losses[number]):
                models[number] = student.shared.to("cpu", copy=True)

    for number, group in enumerate(groups):
        if group.weights:
            state.comm.phase("distil", partial(fine_tune, number))
    return losses


def _broadcast_models(
    state: RankState,
    plan: RoundPlan,
    groups: Sequence[Group],
    models: Sequence[Tensor | None],
    kind: ModelKind,
) -> tuple[tuple[Evaluation, ...], tuple[UnseenEvaluation, ...]]:
    """Send each group's model to every rank, which keeps those of its clients, and helps to score it."""
    evaluations: tuple[Evaluation, ...] = ()
    unseen: tuple[UnseenEvaluation, ...] = ()
    kept: list[Tensor | None] = []
    for number, (group, model) in enumerate(zip(groups, models, strict=True)):
        with state.timed("aggregate"):
            if model is not None:
                state.model.shared.copy_(model)
            broadcast_model(state.comm, state.model.shared)
            kept.append(state.model.shared.clone() if state.needs_model_of(group.members) else None)
        if plan.evaluate:
            final = number if kind is ModelKind.GLOBAL else None
            scored = score_shared(state, group.members, plan.round, kind, final)
            evaluations, unseen = evaluations + scored[0], unseen + scored[1]
    if kind is ModelKind.GLOBAL:
        state.progress.groups = tuple(group.members for group in groups)
        state.progress.models = tuple(kept)
    return tuple(sorted(evaluations, key=lambda evaluation: evaluation.client)), unseen
