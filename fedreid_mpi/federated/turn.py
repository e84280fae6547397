"""One client's turn in a round: what is known of it before its first step, and after its last."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedreid_mpi.config import Experiment
from fedreid_mpi.federated.sgd import Sgd
from fedreid_mpi.model import FlatModel

Vectors = Mapping[str, Tensor]
"""Name to vector, shape (elements,), float32."""


@dataclass(frozen=True, slots=True)
class ClientTurn:
    """One client's turn in a round, before its first step.

    Attributes
    ----------
    experiment
        The resolved configuration.
    model
        The rank's working model, loaded with the client's shared and private parts.
    start
        The shared part that the turn begins with: shape (shared,), float32, on the model's device.
    memory
        What the client remembers of its last turn, on the host: of a client in its first turn, nothing.
    """

    experiment: Experiment
    model: FlatModel
    start: Tensor
    memory: Vectors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FinishedTurn:
    """One client's turn, after its last step.

    Attributes
    ----------
    turn
        Of its beginning; the model in it is the trained one.
    optimizer
        With the state that the steps left.
    steps
        How many there were.
    """

    turn: ClientTurn
    optimizer: Sgd
    steps: int
