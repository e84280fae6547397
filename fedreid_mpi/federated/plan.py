"""What a round does: who trains, how fast, and what follows; decided on the server."""

from collections.abc import Collection, Sequence

from fedreid_mpi.algorithms.fednova import normalised, step_norm
from fedreid_mpi.algorithms.participants import select_participants, select_poisson
from fedreid_mpi.algorithms.schedule import learning_rate
from fedreid_mpi.algorithms.weighting import WEIGHTINGS, WeightRule
from fedreid_mpi.config import Experiment
from fedreid_mpi.records import ClientSpec, RoundPlan


def trainers(experiment: Experiment, specs: Sequence[ClientSpec]) -> tuple[int, ...]:
    """Return the ids of the clients that train at all: the pool alone in mode ``"centralised"``."""
    pooled = experiment.federation.mode == "centralised"
    return tuple(spec.id for spec in specs if (spec.dataset == -1) == pooled)


def expected_clients(experiment: Experiment, specs: Sequence[ClientSpec]) -> int:
    """Return how many clients a round is expected to have."""
    return experiment.federation.clients_per_round or len(trainers(experiment, specs))


def sampling_probability(experiment: Experiment, specs: Sequence[ClientSpec]) -> float:
    """Return with what probability a client takes part in a round, where each is drawn by itself."""
    return expected_clients(experiment, specs) / len(trainers(experiment, specs))


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
    everyone = trainers(experiment, specs)
    there = [id for id in everyone if specs[id].name not in away and id not in dropped]
    if experiment.privacy.clip:  # the probability must not depend on who is there
        drawn = select_poisson(len(everyone), expected_clients(experiment, specs), run.seed, round)
        participants = tuple(everyone[place] for place in drawn if everyone[place] in there)
    else:
        drawn = (
            select_participants(len(there), federation.clients_per_round, run.seed, round) if there else ()
        )
        participants = tuple(there[place] for place in drawn)
    return RoundPlan(
        round=round,
        participants=participants,
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
    """Describe what a participant's model weighs in a round; with FedNova, by the steps behind it.

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
