"""What a round does: who trains, how fast, and what follows; decided on the server."""

from collections.abc import Collection, Sequence

from fedreid_mpi.algorithms.fednova import normalised, step_norm
from fedreid_mpi.algorithms.participants import select_participants
from fedreid_mpi.algorithms.schedule import learning_rate
from fedreid_mpi.algorithms.weighting import WEIGHTINGS, WeightRule
from fedreid_mpi.config import Experiment
from fedreid_mpi.records import ClientSpec, RoundPlan


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
            optimizer.milestones,
        ),
        evaluate=round % experiment.evaluation.every == 0 or round == run.rounds,
        cluster=bool(there) and experiment.clustering.enabled and round % experiment.clustering.every == 0,
        distil=bool(there) and experiment.distillation.enabled and round % experiment.distillation.every == 0,
        edge=bool(round % (federation.edge_rounds + 1)),
    )


def weight_rule(experiment: Experiment, specs: Sequence[ClientSpec], plan: RoundPlan) -> WeightRule:
    """Say what a participant's model weighs in a round; with FedNova, by the steps behind it.

    Parameters
    ----------
    experiment, specs, plan
        The configuration, all clients, and a round that somebody trains in.
    """
    aggregation, optimizer = experiment.aggregation, experiment.optimizer
    rule = WEIGHTINGS[aggregation.weights]
    if aggregation.rule != "fednova":
        return rule

    def norm_of(steps: int) -> float:
        return step_norm(steps, optimizer.momentum, optimizer.nesterov)

    return normalised(rule, norm_of, norm_of(min(specs[client].steps for client in plan.participants)))
