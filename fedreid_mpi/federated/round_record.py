"""What is kept of a round: reports, scores and events, with the seconds and bytes that they took."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.algorithms.clustering import feature_distances
from fedreid_mpi.federated.plan import sampling_probability
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.records import (
    ClientReport,
    Evaluation,
    Event,
    Group,
    Message,
    ModelKind,
    RoundPlan,
    RoundRecord,
    UnseenEvaluation,
)


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What came of a round; reports, losses and evaluations are known to the server alone.

    Attributes
    ----------
    reports
        One per participant, in client-id order.
    groups
        Clients that share a model from now on.
    losses
        Group to the student's mean loss, where the round distilled; NaN if it diverged.
    evaluations
        Of the shared models.
    unseen
        Of the groups' models, on datasets that nobody trains on.
    """

    reports: tuple[ClientReport, ...] = ()
    groups: tuple[Group, ...] = ()
    losses: Mapping[int, float] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    unseen: tuple[UnseenEvaluation, ...] = ()


def record_round(state: RankState, plan: RoundPlan, outcome: RoundOutcome) -> RoundRecord | None:
    """Collect what all ranks have sent, and put the round on record.

    Returns
    -------
    RoundRecord or None
        On the server; None elsewhere.
    """
    comm = state.comm
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
        epsilon=_epsilon(state, plan),
        feature_distances=_distances(state, plan, outcome.reports),
        evaluations=outcome.evaluations + _local_evaluations(plan, outcome.reports),
        unseen=outcome.unseen,
        events=_events(state, plan, outcome),
        phase_seconds=dict(state.progress.seconds),
        bytes_sent=_bytes_by_kind(messages),
        messages=messages,
    )


def _epsilon(state: RankState, plan: RoundPlan) -> float | None:
    """Describe what has been spent of differential privacy, this round included."""
    privacy = state.experiment.privacy
    if not privacy.clip:
        return None
    from fedreid_mpi.algorithms.accountant import epsilon_after  # needs an optional package

    sampling = sampling_probability(state.experiment, state.specs)
    return epsilon_after(plan.round, sampling, privacy.noise_multiplier, privacy.delta)


def features_of(reports: Sequence[ClientReport]) -> dict[int, NDArray[np.float32]]:
    """Return what the clients are grouped by: client id to feature, of those that have one."""
    return {report.client: report.feature for report in reports if report.feature is not None}


def _distances(
    state: RankState, plan: RoundPlan, reports: Sequence[ClientReport]
) -> NDArray[np.float32] | None:
    return feature_distances(features_of(reports), len(state.specs)) if plan.cluster else None


def _bytes_by_kind(messages: Mapping[int, Mapping[Message, int]]) -> dict[str, int]:
    """Add up the model values and features that travelled; not the small values, whose kinds are many."""
    sent: Counter[str] = Counter()
    for ledger in messages.values():
        for message, count in ledger.items():
            if message.dtype != "pickle" and message.kind != "heartbeat":
                sent[message.kind] += message.bytes * count
    return dict(sent)


def _local_evaluations(plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(plan.round, report.client, ModelKind.LOCAL, report.local_scores)
        for report in reports
        if report.local_scores is not None
    )


def _events(state: RankState, plan: RoundPlan, outcome: RoundOutcome) -> tuple[Event, ...]:
    """Record everything that was left out because it was not finite."""
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
        for spec in state.specs
        if plan.evaluate and outcome.groups and spec.test_images and spec.id not in scored
    ]
    found = {(evaluation.dataset, evaluation.group) for evaluation in outcome.unseen}
    texts += [
        f"group {group} is not scored on {archive.name}: features of its model are not finite"
        for number, archive in enumerate(state.unseen)
        for group in range(len(outcome.groups))
        if plan.evaluate and (number, group) not in found
    ]
    return tuple(Event(plan.round, "non-finite", text) for text in texts)
