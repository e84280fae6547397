"""What an algorithm remembers of a client from one turn to its next.

The next turn finds it in `ClientTurn.memory`. It belongs to the client, like the rest of its private state:
it stays on the rank that hosts the client and is stored in checkpoints. It is replaced only after a turn that
did not diverge. To remember something else, write a function of the finished turn and list it in `MEMORIES`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedreid_mpi.algorithms.fednova import step_norm
from fedreid_mpi.algorithms.moon import PREVIOUS
from fedreid_mpi.algorithms.scaffold import CONTROLS, next_control
from fedreid_mpi.federated.turn import FinishedTurn, Vectors, shared_parameters


def momentum(finished: FinishedTurn) -> Tensor | None:
    """Keep the momentum if the client continues with the model it belongs to, as in one long training run.

    In a federation the next turn starts from an average of models, whose gradients this momentum says nothing
    about.
    """
    shares = finished.turn.experiment.federation.mode == "federated"
    return None if shares else finished.optimizer.momentum()


def previous_model(finished: FinishedTurn) -> Tensor | None:
    """Return the shared part of the client's trained model, if MOON is to contrast the next one with it."""
    turn = finished.turn
    return turn.model.shared if turn.experiment.objective.contrastive else None


def controls(finished: FinishedTurn) -> Tensor | None:
    """Return SCAFFOLD's control variates: those of the shared parameters, 0 elsewhere."""
    turn, settings = finished.turn, finished.turn.experiment.optimizer
    if CONTROLS not in turn.broadcast:
        return None
    device = turn.model.buffer.device
    common = turn.broadcast[CONTROLS].to(device)
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
"""Name to the function that makes what is remembered under it: shape (elements,), float32, on any device; or
None, to remember nothing."""


def remember(finished: FinishedTurn) -> Vectors:
    """Return what is remembered of a turn, as copies on the host."""
    found = {name: keep(finished) for name, keep in MEMORIES.items()}
    return {
        name: vector.detach().to("cpu", copy=True) for name, vector in found.items() if vector is not None
    }
