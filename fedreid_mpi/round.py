"""One round of federated partial averaging, the same code on every rank.

Train → aggregate → evaluate. Each step that can fail is a phase of the communicator: models move only after
every rank has said that its part went well.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.algorithms.schedule import learning_rate
from fedreid_mpi.algorithms.selection import select_participants
from fedreid_mpi.algorithms.weighting import aggregation_plan
from fedreid_mpi.comm.base import Communicator
from fedreid_mpi.comm.exchange import aggregate, collect_features, distribute
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.evaluation import Unit, extract_features, query_then_gallery, rank_gallery, units
from fedreid_mpi.model import FlatModel
from fedreid_mpi.training import Client, train
from fedreid_mpi.types import (
    AggregationPlan,
    ClientReport,
    ClientSpec,
    Evaluation,
    Event,
    ModelKind,
    RoundPlan,
    RoundRecord,
    Scores,
)


@dataclass(frozen=True, slots=True)
class Member:
    """What one rank holds of the federation.

    Attributes
    ----------
    comm
        The ranks.
    experiment
        The resolved configuration.
    specs
        All clients, in id order.
    placement
        Ids of the clients that each rank hosts.
    clients
        The clients that this rank hosts, in id order.
    shared
        The shared model, without classifier, as it stands between two rounds; the same on every rank.
    archives
        All clients' datasets, by id: any client rank can score any of them.
    seconds
        Wall-clock seconds of this round's steps so far.
    """

    comm: Communicator
    experiment: Experiment
    specs: tuple[ClientSpec, ...]
    placement: tuple[tuple[int, ...], ...]
    clients: tuple[Client, ...]
    shared: FlatModel
    archives: tuple[DatasetArchive, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the wall-clock time of a block to the step's seconds."""
        began = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began


def plan_round(experiment: Experiment, clients: int, round: int) -> RoundPlan:
    """Decide what a round does: who trains, how fast, and whether it ends with an evaluation.

    In round 0 nobody trains: it scores the model that all clients start from.
    """
    run, optimizer, every = experiment.run, experiment.optimizer, experiment.evaluation.every
    if round == 0:
        return RoundPlan(round=0, participants=(), learning_rate=0.0, evaluate=True)
    return RoundPlan(
        round=round,
        participants=select_participants(clients, experiment.federation.clients_per_round, run.seed, round),
        learning_rate=learning_rate(
            round,
            run.rounds,
            optimizer.lr,
            optimizer.schedule,
            optimizer.warmup,
            optimizer.step_every,
            optimizer.step_factor,
        ),
        evaluate=round % every == 0 or round == run.rounds,
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
    comm.bytes_sent.clear()
    reports: tuple[ClientReport, ...] = ()
    weights: Mapping[int, float] = {}
    evaluations: tuple[Evaluation, ...] = ()
    federated = member.experiment.federation.mode == "federated"
    if plan.participants:
        reports = _train(member, plan)
        if federated:
            weights = _aggregate(member, plan, reports).weights
    if plan.evaluate and (federated or not plan.participants):
        evaluations = evaluate_shared(member, plan.round)
    traffic = comm.gather(comm.bytes_sent)
    if traffic is None:
        return None
    return RoundRecord(
        plan=plan,
        reports=reports,
        weights=weights,
        evaluations=evaluations + _local_evaluations(plan, reports),
        events=_events(plan, reports),
        phase_seconds=dict(member.seconds),
        bytes_sent=dict(sum(traffic, start=Counter())),
    )


def evaluate_shared(member: Member, round: int) -> tuple[Evaluation, ...]:
    """Score the shared model on every client's test split, the work spread over all client ranks.

    Features of a dataset are extracted in units wherever there is time, and ranked on the rank that hosts its
    client. No image leaves the rank that read it.

    Returns
    -------
    tuple of Evaluation
        In client-id order on the server; empty elsewhere.
    """
    comm, experiment = member.comm, member.experiment
    tested = [spec for spec in member.specs if spec.test_images]
    work = [unit for spec in tested for unit in units(spec.id, spec.test_images)]
    placed = place([unit.stop - unit.start for unit in work], len(comm.client_ranks))
    owner = {n: rank for rank, numbers in zip(comm.client_ranks, placed, strict=True) for n in numbers}
    hosts = {client: rank for rank, clients in enumerate(member.placement) for client in clients}

    def extract() -> dict[int, Tensor]:
        return {n: _features_of(member, unit).cpu() for n, unit in enumerate(work) if owner[n] == comm.rank}

    def rank(features: dict[int, Tensor]) -> dict[int, Scores]:
        protocol, seed = experiment.evaluation.protocol, experiment.run.seed
        device = member.shared.buffer.device
        return {
            client: rank_gallery(rows.to(device), member.archives[client], protocol, seed).scores()
            for client, rows in features.items()
        }

    with member.timed("evaluate"):
        pieces = comm.phase("evaluate", extract)
        mine: dict[int, Tensor] = {}
        for spec in tested:
            numbers = [n for n, unit in enumerate(work) if unit.client == spec.id]
            features = collect_features(
                comm,
                {position: pieces[n] for position, n in enumerate(numbers) if n in pieces},
                [owner[n] for n in numbers],
                [work[n].stop - work[n].start for n in numbers],
                experiment.model.embedding_dim,
                hosts[spec.id],
            )
            if features is not None:
                mine[spec.id] = torch.from_numpy(features)
        gathered = comm.gather(comm.phase("rank", lambda: rank(mine)))
    scores = {client: score for part in gathered or () for client, score in part.items()}
    return tuple(Evaluation(round, client, ModelKind.GLOBAL, scores[client]) for client in sorted(scores))


def _features_of(member: Member, unit: Unit) -> Tensor:
    archive = member.archives[unit.client]
    indices = query_then_gallery(archive)[unit.start : unit.stop]
    return extract_features(member.shared.network, archive, indices, member.experiment.compute)


def _train(member: Member, plan: RoundPlan) -> tuple[ClientReport, ...]:
    """Train the participants where they are; reports in client-id order on the server, empty elsewhere."""
    experiment = member.experiment
    settings, protocol = experiment.evaluation, experiment.evaluation.protocol

    def one(client: Client) -> ClientReport:
        if experiment.federation.mode == "federated":
            client.model.load_shared(
                member.shared.shared, keep_normalisation=experiment.aggregation.bn == "local"
            )
        report = train(client, plan, experiment)
        if not (plan.evaluate and settings.local_models and report.finite and client.spec.test_images):
            return report
        features = extract_features(
            client.model.network, client.archive, query_then_gallery(client.archive), experiment.compute
        )
        ranking = rank_gallery(features, client.archive, protocol, experiment.run.seed)
        return replace(report, local_scores=ranking.scores())

    with member.timed("train"):
        hosted = [client for client in member.clients if client.spec.id in plan.participants]
        reports = member.comm.phase("train", lambda: [one(client) for client in hosted])
        gathered = member.comm.gather(reports)
    return tuple(sorted((r for part in gathered or () for r in part), key=lambda report: report.client))


def _aggregate(member: Member, plan: RoundPlan, reports: Sequence[ClientReport]) -> AggregationPlan:
    """Average the participants' shared parts and give the result to every rank."""
    comm, settings, model = member.comm, member.experiment.aggregation, member.shared

    with member.timed("aggregate"):
        decision = comm.decide(
            "aggregate",
            lambda: aggregation_plan(reports, plan.participants, settings.weights, settings.bn),
        )
        statistics = model.statistics
        parameters = slice(0, statistics.start)
        for part, weights in ((parameters, decision.weights), (statistics, decision.statistics_weights)):
            updates = {client.spec.id: client.model.shared[part] for client in member.clients}
            average = aggregate(comm, member.placement, updates, weights, part.stop - part.start)
            if average is not None:
                model.shared[part] = torch.from_numpy(average).to(model.buffer.device)
        distribute(comm, model.shared)
    return decision


def _local_evaluations(plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(plan.round, report.client, ModelKind.LOCAL, report.local_scores)
        for report in reports
        if report.local_scores is not None
    )


def _events(plan: RoundPlan, reports: Sequence[ClientReport]) -> tuple[Event, ...]:
    return tuple(
        Event(plan.round, "non-finite", f"client {report.client} is left out: its model is not finite")
        for report in reports
        if not report.finite
    )
