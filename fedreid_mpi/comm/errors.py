"""What ends a phase or a message: failures that all ranks agree on, lost ranks, silent ranks."""

from dataclasses import dataclass

from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.wording import counted

LONGEST_LINE, LONGEST_TRACE = 900, 1 << 16
"""Longest message and traceback of an error that is sent to other ranks, in characters."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a rank sends to the others about the error that ended its part of a phase.

    Attributes
    ----------
    rank, phase
        Where it happened.
    message
        One line for the user.
    exit_code
        Exit code of all ranks.
    trace
        The traceback of an unexpected error; otherwise empty.
    abandoned
        Whether there was no error, but the round was abandoned because the run is to stop.
    """

    rank: int
    phase: str
    message: str
    exit_code: int
    trace: str
    abandoned: bool = False

    @classmethod
    def of(cls, rank: int, phase: str, message: str, exit_code: int, trace: str = "") -> "Failure":
        """Describe an error in texts that may travel; longer ones are cut, saying by how much."""
        if (more := len(message) - LONGEST_LINE) > 0:
            message = f"{message[:LONGEST_LINE]}… ({counted(more, 'more character')})"
        return cls(rank, phase, message, exit_code, trace[-LONGEST_TRACE:])


class PhaseError(FedReIDError):
    """A phase failed on some rank; raised on every rank, with the same failure.

    Attributes
    ----------
    failure
        That of the lowest rank on which it failed.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.exit_code = failure.exit_code


class RanksLost(Exception):  # noqa: N818 (an event that a run may survive, not an error)
    """A rank is lost; raised on every other rank, by the method it is in or the next one it calls.

    From then on messages can only be sent through what `Communicator.shrink` returns. Deliberately not a
    `FedReIDError`: only code that can continue without the rank should catch it.
    """


class SilentRankError(FedReIDError):
    """Ranks gave no sign of life for too long, and the job cannot continue without them."""
