"""What an algorithm remembers of a client between two of its turns.

The next turn finds it in `ClientTurn.memory`. It is the client's, like its private state: it stays on the
rank that hosts the client, is stored in checkpoints, and is taken over only where the turn was good, so a
client that diverges remembers what it did before. To add something is to write a function of the finished
turn and to name it in `MEMORIES`.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from fedreid_mpi.algorithms.moon import PREVIOUS
from fedreid_mpi.federated.turn import FinishedTurn, Vectors


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


MEMORIES: Mapping[str, Callable[[FinishedTurn], Tensor | None]] = {
    "momentum": momentum,
    PREVIOUS: previous_model,
}
"""Name to what is remembered under it: shape (elements,), float32, on any device; None: nothing is."""


def remember(finished: FinishedTurn) -> Vectors:
    """Return what is remembered of a turn: vectors of their own, on the host."""
    found = {name: keep(finished) for name, keep in MEMORIES.items()}
    return {
        name: vector.detach().to("cpu", copy=True) for name, vector in found.items() if vector is not None
    }
