"""One client's turn in a round: what is known before its first step, and after its last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from fedreid_mpi.config import Experiment
from fedreid_mpi.federated.sgd import Sgd
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import ParamSpec, Role

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
        The shared part at the beginning of the turn: shape (shared,), float32, on the model's device.
    memory
        What the client remembers of its last turn, on the host; empty in its first turn.
    broadcast
        What the server broadcasts to all clients in addition to the model, on the host.
    """

    experiment: Experiment
    model: FlatModel
    start: Tensor
    memory: Vectors = field(default_factory=dict)
    broadcast: Vectors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FinishedTurn:
    """One client's turn, after its last step.

    Attributes
    ----------
    turn
        The turn as it began, except that its model is now the trained one.
    optimizer
        Its state is that after the last step.
    steps
        Number of optimiser steps taken.
    """

    turn: ClientTurn
    optimizer: Sgd
    steps: int


def shared_parameters(model: FlatModel, experiment: Experiment) -> tuple[ParamSpec, ...]:
    """Return the parameters that start a round equal on all clients.

    These are the parameters of backbone and embedding, without BatchNorm's scale and shift if
    ``aggregation.bn = "local"``.
    """
    own = local_normalisation(model, experiment)
    shared = (Role.BACKBONE, Role.EMBEDDING)
    return tuple(spec for spec in model.specs if spec.role in shared and spec.name not in own)


def local_normalisation(model: FlatModel, experiment: Experiment) -> frozenset[str]:
    """Return the names of the BatchNorm tensors that each client keeps to itself."""
    local = experiment.aggregation.bn == "local"
    return frozenset(spec.name for spec in model.normalisation if local)


def paired(model: FlatModel, specs: Sequence[ParamSpec], values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair each trainable parameter with its part of a vector that is laid out like the flat model."""
    parameters = dict(model.network.named_parameters())
    return [
        (parameters[spec.name], values.as_strided(spec.shape, spec.stride, spec.offset))
        for spec in specs
        if parameters[spec.name].requires_grad
    ]
