"""What the server makes of the clients' mean: the mean itself, or a step towards it or beyond it.

A step is a function of a `ServerTurn`. It returns the parameters of the new model and what the server is to
remember; the next one in `STEPS` continues from there. Steps change only parameters that start a round equal
on all clients: BatchNorm's statistics are averaged, and so are its scale and shift if clients keep their own.
To add a step, write its mathematics in a file of its own in ``algorithms``, a function here, and list it in
`STEPS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

import torch
from torch import Tensor

from fedreid_mpi.algorithms import server_optimizers
from fedreid_mpi.algorithms.averaging import fits, grid_of
from fedreid_mpi.algorithms.fednova import extrapolate, extrapolation, step_norm
from fedreid_mpi.algorithms.scaffold import CONTROLS, next_common_control
from fedreid_mpi.algorithms.weighting import WEIGHTINGS
from fedreid_mpi.config import Experiment
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.federated.contributions import has_controls
from fedreid_mpi.federated.exchange import broadcast_model
from fedreid_mpi.federated.plan import trainers
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.turn import Vectors, shared_parameters
from fedreid_mpi.records import ClientReport, ClientSpec


@dataclass(frozen=True, slots=True)
class ServerTurn:
    """A round on the server, after the clients' models were averaged.

    Attributes
    ----------
    experiment
        The resolved configuration.
    specs
        All clients, in id order.
    reports
        Of the clients in the mean, in client-id order.
    start
        Parameters of the model that the round began with: shape (parameters,), float32, on the host.
    mean
        The clients' weighted mean, or what an earlier step made of it: of the same shape.
    means
        Weighted means of what else the clients contributed (`contributions`): kind to vector, shape
        (parameters,), float32, on the host.
    memory
        What the server remembers, as earlier steps of this round left it.
    """

    experiment: Experiment
    specs: Sequence[ClientSpec]
    reports: Sequence[ClientReport]
    start: Tensor
    mean: Tensor
    means: Vectors
    memory: Vectors


ServerStep = Callable[[ServerTurn], tuple[Tensor, Vectors]]
"""Returns the parameters of the new model, shape (parameters,), float32, and what the server is to remember.
What it is given is not changed."""


def normalise(turn: ServerTurn) -> tuple[Tensor, Vectors]:
    """Move as far as the clients did on average: FedNova's extrapolation."""
    settings = turn.experiment.optimizer
    weight = WEIGHTINGS[turn.experiment.aggregation.weights].weight
    factor = extrapolation(
        [weight(report) for report in turn.reports],
        [step_norm(report.steps, settings.momentum, settings.nesterov) for report in turn.reports],
    )
    return extrapolate(turn.start, turn.mean, factor), turn.memory


def move_controls(turn: ServerTurn) -> tuple[Tensor, Vectors]:
    """Keep the mean, and let the common control follow the clients': SCAFFOLD."""
    change = turn.means[CONTROLS]
    # Of one client alone, the largest weight that there can be is the client's weight.
    weight = WEIGHTINGS[turn.experiment.aggregation.weights].reference
    everyone = [turn.specs[id] for id in trainers(turn.experiment, turn.specs)]
    taken = fsum(weight([report.images]) for report in turn.reports)
    fraction = taken / fsum(weight([spec.images]) for spec in everyone)
    common = turn.memory.get(CONTROLS, torch.zeros_like(change))
    moved = next_common_control(common, change, fraction)
    return turn.mean, {**turn.memory, CONTROLS: moved}


def optimise(turn: ServerTurn) -> tuple[Tensor, Vectors]:
    """Use the clients' mean change as a gradient: momentum, Adam, Yogi."""
    settings = turn.experiment.server
    assert settings.optimizer != "none"
    rates = server_optimizers.Rates(settings.lr, settings.momentum, settings.beta2, settings.epsilon)
    initial = server_optimizers.initial_moments(settings.optimizer, len(turn.mean), rates)
    moments = {name: turn.memory.get(name, vector) for name, vector in initial.items()}
    model, moments = server_optimizers.step(settings.optimizer, turn.start, turn.mean, moments, rates)
    return model, {**turn.memory, **moments}


STEPS: Sequence[tuple[Callable[[Experiment], bool], ServerStep]] = (
    (lambda experiment: experiment.aggregation.rule == "fednova", normalise),
    (has_controls, move_controls),
    (lambda experiment: experiment.server.optimizer != "none", optimise),
)
"""Whether an experiment needs a step, and the step; in the order in which they are taken."""

BROADCAST: Mapping[str, Callable[[Experiment], bool]] = {CONTROLS: has_controls}
"""Name in the server's memory of what clients are sent before they train, to whether an experiment needs it.
It is 0 at first."""


def steps_of(experiment: Experiment) -> tuple[ServerStep, ...]:
    """Return the steps that an experiment needs."""
    return tuple(step for asked, step in STEPS if asked(experiment))


def step_from_mean(
    state: RankState, reports: Sequence[ClientReport], mean: Tensor, means: Vectors
) -> Vectors:
    """Step from the clients' mean to the round's new model, on the server.

    Parameters
    ----------
    state
        The server's.
    reports
        Of the clients in the mean, in client-id order.
    mean
        Shape (shared,), float32, on the host; overwritten by the new model.
    means
        See `ServerTurn`.

    Returns
    -------
    Mapping
        What the server is to remember once the round is over.

    Raises
    ------
    FedReIDError
        The new model is not finite, or has values too large to be averaged in the next round.
    """
    experiment, model = state.experiment, state.model
    (before,) = state.progress.models  # rules that step are refused where there could be several
    assert before is not None  # the server keeps it
    length = model.statistics.start
    turn = ServerTurn(
        experiment,
        state.specs,
        reports,
        before[:length].cpu(),
        mean[:length].clone(),
        means,
        state.progress.server,
    )
    for step in steps_of(experiment):
        parameters, memory = step(turn)
        turn = replace(turn, mean=parameters, memory=memory)
    grid = grid_of("parameters", len(reports))
    if not fits(turn.mean, grid):
        raise FedReIDError(
            f"after the server's step its model has values that are not finite, or {grid.limit:g} and larger "
            "(a lower server.lr or optimizer.lr may help)"
        )
    for spec in shared_parameters(model, experiment):
        part = slice(spec.offset, spec.offset + spec.size)
        mean[part] = turn.mean[part]
    return turn.memory


def broadcast_to_clients(state: RankState) -> Vectors:
    """Broadcast what clients need of the server's memory."""
    vectors = {
        name: state.progress.server.get(name, torch.zeros(state.model.statistics.start))
        for name, asked in BROADCAST.items()
        if asked(state.experiment)
    }
    for name, vector in vectors.items():
        broadcast_model(state.comm, vector, name)
    return vectors
