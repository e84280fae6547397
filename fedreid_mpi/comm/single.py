"""One process that does everything: no launcher and no MPI library needed."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.comm.contract import Communicator, Location, Rows, never
from fedreid_mpi.records import GridSum

T = TypeVar("T")


class SingleCommunicator(Communicator):
    """The contract kept by a lone process."""

    def __init__(self, abandon_requested: Callable[[], bool] = never) -> None:
        super().__init__(abandon_requested)
        self.rank, self.size = 0, 1
        self._abandoned = False
        cores = tuple(sorted(os.sched_getaffinity(0)))
        self.location = Location(socket.gethostname(), 0, 1, cores)
        self.hosts = (self.location.host,)

    def _broadcast(self, value: T) -> T:
        """Return the value."""
        return value

    def _gather(self, value: T) -> list[T]:
        """Return the value in a list."""
        return [value]

    def _broadcast_rows(self, rows: Rows, kind: str) -> None:
        """Leave the array as it is."""

    def _gather_rows(self, rows: Rows, counts: Sequence[int], root: int, kind: str) -> Rows:
        """Return the rows."""
        return rows

    def _reduce_sum(
        self, own: GridSum | None, length: int, kind: str, out: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Return the sum."""
        return np.zeros(length, np.int64) if own is None else own.values.view(np.int64)

    def heartbeat(self) -> bool:
        """Remember the request."""
        self._abandoned |= self._abandon_requested()
        return self._abandoned

    def agree(self, well: bool) -> bool:
        """Return the value."""
        return well

    def shrink(self) -> tuple[Communicator, tuple[int, ...]]:
        """Refuse: a lone process that lost a rank would not be there to call this."""
        raise RuntimeError("a lone process has no ranks to lose")

    def abort(self, exit_code: int) -> None:
        """Do nothing: there is no other rank to end."""
