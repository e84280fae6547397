"""What an algorithm remembers of a client between two of its turns.

The next turn finds it in `ClientTurn.memory`. It is the client's, like its private state: it stays on the
rank that hosts the client, is stored in checkpoints, and is taken over only where the turn was good, so a
client that diverges remembers what it did before. To add something is to write a function of the finished
turn and to name it in `MEMORIES`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedreid_mpi.algorithms.fednova import step_norm
from fedreid_mpi.algorithms.moon import PREVIOUS
from fedreid_mpi.algorithms.scaffold import CONTROLS, next_control
from fedreid_mpi.federated.turn import FinishedTurn, Vectors, shared_parameters


def momentum(finished: FinishedTurn) -> Tensor | None:
    """Keep the momentum where the client goes on with the model that it belongs to: as one long training.

    In a federation the next turn begins with an average of models, of whose gradients it tells nothing.
    """
    shares = finished.turn.experiment.federation.mode == "federated"
    return None if shares else finished.optimizer.momentum()


def previous_model(finished: FinishedTurn) -> Tensor | None:
    """Return the shared part of the client's trained model, where MOON contrasts the next one with it."""
    turn = finished.turn
    return turn.model.shared if turn.experiment.objective.contrastive else None


def controls(finished: FinishedTurn) -> Tensor | None:
    """Return the client's control variates: with SCAFFOLD, of parameters that all share; 0 elsewhere."""
    turn, settings = finished.turn, finished.turn.experiment.optimizer
    if CONTROLS not in turn.told:
        return None
    device = turn.model.buffer.device
    common = turn.told[CONTROLS].to(device)
    before = turn.memory.get(CONTROLS, torch.zeros_like(common)).to(device)
    after = torch.zeros_like(common)
    norm = step_norm(finished.steps, settings.momentum, settings.nesterov)
    rates = {each: rate for parameters, rate in finished.optimizer.groups for each in parameters}
    parameters = dict(turn.model.network.named_parameters())
    for spec in shared_parameters(turn.model, turn.experiment):
        part, rate = slice(spec.offset, spec.offset + spec.size), rates.get(parameters[spec.name])
        if rate:  # what does not move needs no control
            after[part] = next_control(
                before[part], common[part], turn.start[part], turn.model.buffer[part], rate * norm
            )
    return after


MEMORIES: Mapping[str, Callable[[FinishedTurn], Tensor | None]] = {
    "momentum": momentum,
    PREVIOUS: previous_model,
    CONTROLS: controls,
}
"""Name to what is remembered under it: shape (elements,), float32, on any device; None: nothing is."""


def remember(finished: FinishedTurn) -> Vectors:
    """Return what is remembered of a turn: vectors of their own, on the host."""
    found = {name: keep(finished) for name, keep in MEMORIES.items()}
    return {
        name: vector.detach().to("cpu", copy=True) for name, vector in found.items() if vector is not None
    }
