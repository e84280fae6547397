"""The contract between the federation and whatever carries its messages.

Two back ends keep it: `single` (one process does everything) and `mpi`. Rank 0 is the server and the other
ranks host clients; a single process is both.
"""

import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.comm.errors import Failure, PhaseError, RanksLost
from fedreid_mpi.comm.payload import check_rows, check_sum, check_value, kind_of
from fedreid_mpi.errors import Abandoned, FedReIDError
from fedreid_mpi.records import GridSum, Message

T = TypeVar("T")
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a rank runs.

    Attributes
    ----------
    host
        Name of the node.
    index
        The rank's index among the client ranks of its node; the server has that of the last one.
    count
        Number of client ranks on the node, at least 1.
    cores
        CPU cores that the rank may use.
    """

    host: str
    index: int
    count: int
    cores: tuple[int, ...]


def never() -> bool:
    """Return False: nobody asks for the round to be abandoned."""
    return False


class Communicator(ABC):
    """A group of ranks that call the same methods in the same order.

    Parameters
    ----------
    abandon_requested
        Tells whether this rank asks for the round to be abandoned; called in `heartbeat` and while it waits.

    Attributes
    ----------
    rank, size
        Number of this process, and number of processes.
    location
        Where this rank runs.
    hosts
        Name of each rank's node.
    ledger
        Everything that left this rank: message to how often it was sent. The owner may clear it.
    rank_timeout
        Seconds without a sign of life after which a rank that others wait for counts as hung; 0: never.
    """

    rank: int
    size: int
    location: Location
    hosts: tuple[str, ...]

    def __init__(self, abandon_requested: Callable[[], bool] = never) -> None:
        self.ledger: Counter[Message] = Counter()
        self.rank_timeout = 0.0
        self._abandon_requested = abandon_requested
        self._doing = ""  # the phase, for the message about a rank that hangs

    @property
    def is_server(self) -> bool:
        """Whether this rank aggregates, writes files and prints."""
        return self.rank == 0

    @property
    def client_ranks(self) -> tuple[int, ...]:
        """The ranks that host clients: all but the server, or the only rank."""
        return tuple(range(1, self.size)) or (0,)

    def phase(self, name: str, work: Callable[[], T]) -> T:
        """Do work that can fail, and return only if it succeeded on every rank.

        The work sends no messages, so no rank waits for one that fails. Every exception counts as a failure,
        ``SystemExit`` and ``KeyboardInterrupt`` included: if one rank exited alone, the others would hang
        when MPI is shut down.

        Parameters
        ----------
        name
            What is being done, for the message.
        work
            This rank's part of it.

        Returns
        -------
        object
            What ``work`` returned on this rank.

        Raises
        ------
        PhaseError
            On every rank, if the work failed on any.
        RanksLost
            If a rank is lost, whichever rank noticed.
        """
        failure, self._doing = None, name
        try:
            result = work()
        except RanksLost:
            raise
        except BaseException as error:  # noqa: BLE001
            failure = self.describe(name, error)
        verdict = self.broadcast(self._first_failure(self.gather(failure)))
        if verdict is not None:
            raise PhaseError(verdict)
        return result

    def decide(self, name: str, work: Callable[[], T]) -> T:
        """Do work on the server alone and return its result, a small value, on every rank.

        Parameters
        ----------
        name
            What is being decided, for the message.
        work
            Called on the server only.

        Raises
        ------
        PhaseError
            On every rank, if the work failed.
        """
        decision: T = self.broadcast(self.phase(name, work if self.is_server else _nothing))
        return decision

    def describe(self, phase: str, error: BaseException) -> Failure:
        """Describe an error for the other ranks; an unexpected one includes its traceback."""
        if isinstance(error, FedReIDError):
            return Failure.of(self.rank, phase, str(error), error.exit_code)
        if isinstance(error, Abandoned):
            return Failure(self.rank, phase, f"{phase} abandoned", 0, "", abandoned=True)
        if isinstance(error, KeyboardInterrupt):
            return Failure.of(self.rank, phase, f"interrupted (rank {self.rank}, {phase})", 130)
        trace = "".join(traceback.format_exception(error))
        message = f"rank {self.rank}, {phase}: {type(error).__name__}: {error}"
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        return Failure.of(self.rank, phase, message, code or 1, trace)

    @staticmethod
    def _first_failure(failures: Sequence[Failure | None] | None) -> Failure | None:
        return next((failure for failure in failures or () if failure is not None), None)

    def broadcast(self, value: T) -> T:
        """Return the server's value on every rank; for small values that may travel (`comm.payload`)."""
        if self.is_server:
            check_value(value, from_server=True)
        return self._broadcast(value)

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value, in rank order, on the server and None elsewhere.

        For small values that may travel (`comm.payload`).
        """
        check_value(value, from_server=False)
        return self._gather(value)

    def broadcast_rows(self, rows: Rows, kind: str) -> None:
        """Overwrite an array with the server's on every rank, in place.

        Parameters
        ----------
        rows
            C-contiguous float32, of the same shape on every rank.
        kind
            Name in the ledger.
        """
        check_rows(rows, kind)
        self._broadcast_rows(rows, kind)

    def gather_rows(self, rows: Rows, counts: Sequence[int], root: int, kind: str) -> Rows | None:
        """Stack arrays of all ranks on one of them.

        Parameters
        ----------
        rows
            This rank's rows: shape (counts[rank], width), float32, C-contiguous.
        counts
            Number of rows that each rank sends.
        root
            The rank that receives them.
        kind
            Name in the ledger.

        Returns
        -------
        ndarray or None
            Shape (sum(counts), width), in rank order, on ``root``; None elsewhere.
        """
        check_rows(rows, kind)
        return self._gather_rows(rows, counts, root, kind)

    def reduce_sum(
        self, own: GridSum | None, length: int, kind: str, out: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64] | None:
        """Add the sums of all ranks on the server, modulo 2⁶⁴, so that masks cancel.

        Parameters
        ----------
        own
            This rank's sum, of shape (length,); None if it has nothing to add.
        length
            Number of elements.
        kind
            Name in the ledger.
        out
            Buffer that may receive the sum on the server: shape (length,), int64.

        Returns
        -------
        ndarray or None
            Shape (length,), int64, on the server; None elsewhere.
        """
        if own is not None:
            check_sum(own, kind)
        return self._reduce_sum(own, length, kind, out)

    @abstractmethod
    def heartbeat(self) -> bool:
        """Give a sign of life between two batches; cheap, and not collective.

        Returns
        -------
        bool
            Whether any rank is known to ask for the round to be abandoned; once true it stays true.
        """

    @abstractmethod
    def agree(self, well: bool) -> bool:
        """Return whether all is well on every rank; for work during which ranks may be lost.

        The answer is the same on all ranks that are left, whichever are lost meanwhile; it is False if one
        is. Afterwards a rank may end without the others.

        Parameters
        ----------
        well
            Whether all is well here: False if `RanksLost` was raised.

        Returns
        -------
        bool
            Whether all ranks are there and well.
        """

    @abstractmethod
    def shrink(self) -> tuple["Communicator", tuple[int, ...]]:
        """Continue without lost ranks; called on every rank that is left, after `RanksLost`.

        Returns
        -------
        communicator : Communicator
            Of the ranks that are left, in their old order, numbered from 0.
        lost : tuple of int
            The old numbers of the lost ranks, ascending; the same on all ranks.
        """

    @abstractmethod
    def abort(self, exit_code: int) -> None:
        """End all ranks now, after an error that was not agreed on in a phase."""

    @abstractmethod
    def _broadcast(self, value: T) -> T: ...

    @abstractmethod
    def _gather(self, value: T) -> list[T] | None: ...

    @abstractmethod
    def _broadcast_rows(self, rows: Rows, kind: str) -> None: ...

    @abstractmethod
    def _gather_rows(self, rows: Rows, counts: Sequence[int], root: int, kind: str) -> Rows | None: ...

    @abstractmethod
    def _reduce_sum(
        self, own: GridSum | None, length: int, kind: str, out: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None: ...

    def _enter_array(self, kind: str, array: NDArray[Any], count: int = 1) -> None:
        """Enter an array that is being sent in the ledger."""
        if count and array.size:
            self.ledger[Message(kind, array.dtype.name, array.shape, array.nbytes)] += count

    def _enter_value(self, value: object, size: int, count: int) -> None:
        """Enter a small value in the ledger; ``size`` is that of its pickle in bytes."""
        if count:
            self.ledger[Message(kind_of(value), "pickle", (), size)] += count


def _nothing() -> Any:  # noqa: ANN401 (stands in for a value that only the server has)
    """Do no work."""
