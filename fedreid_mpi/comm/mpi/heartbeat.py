"""Heartbeats, or signs of life: tiny messages between the server and every other rank, about one a second.

They travel on a communicator of their own. A rank gives and reads them in each `heartbeat` and while it
waits, so silence means that it hangs: stopped, stuck in a file system, or in an endless loop.
"""

import time
from collections.abc import Iterable

import numpy as np

from fedreid_mpi.comm.mpi.bindings import MPI

PERIOD = 1.0
"""Seconds between two signs to the same rank."""

NOBODY = -1


class HeartbeatMonitor:
    """What this rank knows of the others' lives, requests and orders.

    Parameters
    ----------
    comm
        Carries only signs of life.

    Attributes
    ----------
    abandon
        Whether any rank is known to ask for the round to be abandoned.
    heard
        When each rank was last heard of, in seconds of the monotonic clock.
    to_kill
        The ranks of this host that the server asks this rank to end.
    ending
        The exit code with which some rank ended the job, or `NOBODY`.
    signs
        Number of signs given since it was last set to 0.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.abandon = False
        self.heard = [time.monotonic()] * comm.size
        self.to_kill: set[int] = set()
        self.ending = NOBODY
        self.signs = 0
        self._partners = range(1, comm.size) if comm.rank == 0 else range(1)
        self._given = time.monotonic()
        self._sends: list[tuple[MPI.Request, np.ndarray]] = []

    def tend(self) -> None:
        """Read the signs that have come, and give one where it is time."""
        known = self.abandon
        self._read()
        news = self.comm.rank == 0 and self.abandon and not known
        if news or time.monotonic() - self._given >= PERIOD:
            self.give(self._partners)

    def request_abandon(self) -> None:
        """Tell the server, or as the server everybody, that the round is to be abandoned."""
        self.abandon = True
        self.give(self._partners)

    def give(self, ranks: Iterable[int], to_kill: int = NOBODY, ending: int = NOBODY) -> None:
        """Send a sign to some ranks; it is on its way, or waits for the next call."""
        self._given = time.monotonic()
        self._sends = [(request, sign) for request, sign in self._sends if not request.Test()]
        for rank in ranks:
            sign = np.array([self.abandon, to_kill, ending], np.int64)
            self._sends.append((self.comm.Isend(sign, rank), sign))
            self.signs += 1

    def silent(self, since: float, seconds: float) -> list[int]:
        """Return the partners that were not heard of for so long, counted from ``since`` at the earliest."""
        limit = time.monotonic() - seconds
        return [rank for rank in self._partners if max(self.heard[rank], since) < limit]

    def _read(self) -> None:
        status, sign = MPI.Status(), np.empty(3, np.int64)
        while self.comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            self.comm.Recv(sign, status.source)
            self.heard[status.source] = time.monotonic()
            abandon, to_kill, ending = sign.tolist()
            self.abandon |= bool(abandon)
            self.to_kill |= {to_kill} - {NOBODY}
            self.ending = max(self.ending, ending)
