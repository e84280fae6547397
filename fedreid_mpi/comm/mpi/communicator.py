"""The contract kept over MPI. This package is the only one that imports mpi4py."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from mpi4py import MPI

from fedreid_mpi.comm.base import Communicator, Location, Rows, spans

T = TypeVar("T")

FIRST_NAP = 10e-6
LONGEST_NAP = 2e-3
"""Seconds between two looks at whether the others have arrived."""


class MPICommunicator(Communicator):
    """The contract over an MPI communicator.

    Parameters
    ----------
    world
        Is duplicated, so that no message of anybody else's can be mistaken for one of ours.
    """

    def __init__(self, world: MPI.Intracomm) -> None:
        super().__init__()
        self._comm = world.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        self.location = self._locate()

    def _locate(self) -> Location:
        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        ranks = node.allgather(self.rank)
        node.Free()
        clients = [rank for rank in ranks if rank in self.client_ranks]
        index = clients.index(self.rank) if self.rank in clients else max(len(clients) - 1, 0)
        cores = tuple(sorted(os.sched_getaffinity(0)))
        return Location(MPI.Get_processor_name(), index, max(len(clients), 1), cores)

    def _meet(self) -> None:
        """Wait until every rank is here, asleep: a blocking collective would spin and take a core away."""
        arrival = self._comm.Ibarrier()
        nap = FIRST_NAP
        while not arrival.Test():
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)

    def broadcast(self, value: T) -> T:
        """Return the server's value on every rank."""
        self._meet()
        sent: T = self._comm.bcast(value)
        return sent

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on the server."""
        self._meet()
        return self._comm.gather(value)

    def broadcast_rows(self, rows: Rows, kind: str) -> None:
        """Overwrite an array with the server's."""
        self._meet()
        if self.is_server:
            self.bytes_sent[kind] += rows.nbytes * (self.size - 1)
        self._comm.Bcast(rows)

    def gather_rows(self, rows: Rows, counts: Sequence[int], root: int, kind: str) -> Rows | None:
        """Stack arrays of all ranks on one of them."""
        self._meet()
        width = rows.shape[1]
        received = np.empty((sum(counts), width), np.float32) if self.rank == root else None
        if self.rank != root:
            self.bytes_sent[kind] += rows.nbytes
        layout = [count * width for count in counts]
        self._comm.Gatherv(rows, None if received is None else [received, layout], root)
        return received

    def stream_to_server(
        self, vectors: Sequence[Rows], counts: Sequence[int], length: int, chunk: int, kind: str
    ) -> Iterator[tuple[slice, list[Rows]]]:
        """Gather chunk by chunk through two sets of buffers: one is filled while the other is worked on."""
        self._meet()
        sending = np.empty((2, len(vectors) * chunk), np.float32)
        receiving = np.empty((2, sum(counts) * chunk if self.is_server else 0), np.float32)
        parts = list(spans(length, chunk))
        if not self.is_server:
            self.bytes_sent[kind] += 4 * length * len(vectors)

        def start(step: int) -> MPI.Request:
            part = parts[step]
            size = part.stop - part.start
            packed = sending[step % 2][: len(vectors) * size]
            for row, vector in zip(packed.reshape(len(vectors), size), vectors, strict=True):
                row[:] = vector[part]
            layout = [receiving[step % 2], [count * size for count in counts]] if self.is_server else None
            return self._comm.Igatherv(packed, layout)

        request = start(0)
        for step, part in enumerate(parts):
            request.Wait()
            if step + 1 < len(parts):
                request = start(step + 1)
            size = part.stop - part.start
            arrived = receiving[step % 2][: sum(counts) * size] if self.is_server else receiving[0]
            yield part, list(arrived.reshape(-1, size))

    def abort(self, exit_code: int) -> None:
        """End all ranks, after what was printed is out."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(exit_code)


def library() -> str:
    """Name the MPI library in use, e.g. ``Open MPI v5.0.11``."""
    return MPI.Get_library_version().partition(",")[0].partition("\n")[0].strip()
