"""What a client adds to the averages besides its model: vectors that are averaged with the models' weights.

The server's steps find their means in `ServerTurn.means`. To add one, write a function of the finished turn
and list it in `CONTRIBUTIONS`; the round knows none of them by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fedreid_mpi.algorithms.averaging import SumRole
from fedreid_mpi.algorithms.scaffold import CONTROLS
from fedreid_mpi.config import Experiment
from fedreid_mpi.federated.turn import FinishedTurn, Vectors


@dataclass(frozen=True, slots=True)
class Contribution:
    """A vector that is laid out like the shared parameters.

    Attributes
    ----------
    asked
        Whether an experiment has it.
    role
        Decides how large its values may be.
    of
        From a client's finished turn and what is remembered of it to the vector: shape (parameters,),
        float32, on the host.
    """

    asked: Callable[[Experiment], bool]
    role: SumRole
    of: Callable[[FinishedTurn, Vectors], Tensor]


def has_controls(experiment: Experiment) -> bool:
    """Whether an experiment has control variates: with SCAFFOLD."""
    return experiment.aggregation.rule == "scaffold"


def change_of_controls(finished: FinishedTurn, remembered: Vectors) -> Tensor:
    """Return the change of the client's control variates; in its first turn they change from 0."""
    return remembered[CONTROLS] - finished.turn.memory.get(CONTROLS, 0)


CONTRIBUTIONS: Mapping[str, Contribution] = {
    CONTROLS: Contribution(has_controls, "gradients", change_of_controls),
}
"""Kind, which is the name in the ledger as well, to the contribution."""


def contributions_asked(experiment: Experiment) -> dict[str, Contribution]:
    """Return the contributions that an experiment has, the same on all ranks."""
    return {kind: each for kind, each in CONTRIBUTIONS.items() if each.asked(experiment)}


def contribute(finished: FinishedTurn, remembered: Vectors) -> Vectors:
    """Return what a client adds: kind to vector."""
    asked = contributions_asked(finished.turn.experiment)
    return {kind: each.of(finished, remembered) for kind, each in asked.items()}
