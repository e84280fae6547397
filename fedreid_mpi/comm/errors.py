"""What ends a phase or a message: failures that all ranks agree on, lost ranks, silent ranks."""

from dataclasses import dataclass

from fedreid_mpi.errors import FedReIDError

LONGEST_LINE, LONGEST_TRACE = 900, 1 << 16
"""Characters of an error that are told to other ranks, who may be sent no longer texts."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What one rank tells the others about the error that ended its part of a phase.

    Attributes
    ----------
    rank, phase
        Where it happened.
    message
        One line for the user.
    exit_code
        Of all ranks.
    trace
        The traceback of an error that nobody raised on purpose, else empty.
    abandoned
        Whether there was no error: the round was given up, as the run is to stop.
    """

    rank: int
    phase: str
    message: str
    exit_code: int
    trace: str
    abandoned: bool = False

    @classmethod
    def of(cls, rank: int, phase: str, message: str, exit_code: int, trace: str = "") -> "Failure":
        """Describe an error in texts that may travel: what is too long of them is left out, and how much."""
        if (more := len(message) - LONGEST_LINE) > 0:
            message = f"{message[:LONGEST_LINE]}… ({more:,} characters more)"
        return cls(rank, phase, message, exit_code, trace[-LONGEST_TRACE:])


class PhaseError(FedReIDError):
    """A phase failed on some rank; raised alike on every rank, once all have heard of it.

    Attributes
    ----------
    failure
        The failure of the lowest rank that had one.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.exit_code = failure.exit_code


class RanksLost(Exception):  # noqa: N818 (no error of the program's: an event that it may survive)
    """A rank is gone; raised on every rank that is left by the method it is in, or the next one it calls.

    Nothing can be sent any more but through what `Communicator.shrink` returns. Deliberately no
    `FedReIDError`: only what knows how to go on without the rank should catch it.
    """


class SilentRankError(FedReIDError):
    """Ranks have given no sign of life for too long and cannot be done without: the job ends."""
