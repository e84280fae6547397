"""The contract kept over MPI.

Every wait is a poll that can be given up: nothing blocks within the library while another rank may be lost,
hang, or have ended the job. Small values go straight between the server and the other ranks, model values
through MPI's collectives.
"""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.comm.contract import Communicator, Location, Rows, never
from fedreid_mpi.comm.errors import RanksLost, SilentRankError
from fedreid_mpi.comm.mpi.bindings import MPI
from fedreid_mpi.comm.mpi.heartbeat import NOBODY, HeartbeatMonitor
from fedreid_mpi.comm.mpi.processes import Process
from fedreid_mpi.comm.payload import pack
from fedreid_mpi.records import GridSum, Message

T = TypeVar("T")

FIRST_NAP = 10e-6
LONGEST_NAP = 2e-3
"""Seconds between two looks at whether the others have arrived."""

LONGEST_MESSAGE = 1 << 30
"""Values broadcast at a time: MPI counts them in C's int."""

TEND = 0.02
"""Seconds between two looks at signs of life."""

LAST_WORDS = 0.2
"""Seconds that signs and messages get to leave this process before it ends all."""

CHUNK = 1 << 18
"""Elements of a sum that are added at a time: 2 MiB."""

GRACE = 10.0
"""Seconds after which a hung rank that was killed must be known to MPI as lost."""


class MPICommunicator(Communicator):
    """The contract over an MPI communicator.

    Parameters
    ----------
    world
        Duplicated, so that no other code's message can be mistaken for one of ours.
    fault_tolerant
        Whether a lost rank raises `RanksLost` on the others; otherwise MPI ends them all.
    abandon_requested
        See `Communicator`.
    """

    def __init__(
        self,
        world: MPI.Intracomm,
        fault_tolerant: bool = False,
        abandon_requested: Callable[[], bool] = never,
    ) -> None:
        super().__init__(abandon_requested)
        self._fault_tolerant = fault_tolerant
        self._processes: list[Process] = []
        self._condemned: set[int] = set()
        self._tended = 0.0
        self._comm, signs = self._duplicate(world), self._duplicate(world)
        self._monitor = HeartbeatMonitor(signs)
        self.rank, self.size = self._comm.rank, self._comm.size
        self._processes = self._broadcast(self._gather(Process.this()) or [])
        self.hosts = tuple(process.host for process in self._processes)
        self.location = self._locate()

    def _duplicate(self, world: MPI.Intracomm) -> MPI.Intracomm:
        """Duplicate it on all ranks, or on none."""
        if not self._fault_tolerant:
            return world.Dup()
        world.Set_errhandler(MPI.ERRORS_RETURN)
        copy = None
        with contextlib.suppress(MPI.Exception):
            copy = world.Dup()
        try:
            if copy is None:
                world.Revoke()  # others may still be within Dup
            if world.Agree(copy is not None) and copy is not None:
                copy.Set_errhandler(MPI.ERRORS_RETURN)
                return copy
        except MPI.Exception as error:
            raise RanksLost("a rank was lost while the ranks joined") from error
        raise RanksLost("a rank was lost while the ranks joined")

    def _locate(self) -> Location:
        here = self._processes[self.rank].host
        clients = [rank for rank in self.client_ranks if self._processes[rank].host == here]
        index = clients.index(self.rank) if self.rank in clients else max(len(clients) - 1, 0)
        cores = tuple(sorted(os.sched_getaffinity(0)))
        return Location(here, index, max(len(clients), 1), cores)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Turn whatever MPI reports after a loss into `RanksLost`, and see that all others hear of it."""
        try:
            yield
        except MPI.Exception as error:
            if not self._fault_tolerant:
                raise
            self._revoke()
            raise RanksLost(f"rank {self.rank} heard from MPI: {error.Get_error_string()}") from error

    def _revoke(self) -> None:
        # MPI.Finalize can wait for a lost rank forever; mpirun accepts ranks that just end.
        atexit.unregister(MPI.Finalize)
        for comm in (self._comm, self._monitor.comm):
            if not comm.Is_revoked():
                comm.Revoke()

    def _wait(self, done: Callable[[], bool], asleep: bool) -> None:
        """Poll until it is done, and look after the others meanwhile.

        Parameters
        ----------
        done
            Looks, without waiting.
        asleep
            Whether to nap between two looks: where the others may still be at work, a rank that spins would
            take a core away from them. Else the core is offered to others.
        """
        began = time.monotonic()
        nap = FIRST_NAP
        while not done():
            if asleep:
                time.sleep(nap)
                nap = min(2 * nap, LONGEST_NAP)
            else:
                os.sched_yield()
            if time.monotonic() - self._tended >= TEND:
                self._tend()
                self._look_for_hung_ranks(began)

    def _tend(self) -> None:
        """Read and give signs of life, pass on the request to abandon, and obey the orders in the signs."""
        self._tended = time.monotonic()
        signs = self._monitor.signs
        if self._abandon_requested() and not self._monitor.abandon:
            self._monitor.request_abandon()
        self._monitor.tend()
        if self._monitor.ending != NOBODY:
            self._end(self._monitor.ending)
        while self._monitor.to_kill:
            self._processes[self._monitor.to_kill.pop()].kill()
        if self._monitor.signs != signs:
            self.ledger[Message("heartbeat", "int64", (3,), 24)] += self._monitor.signs - signs

    def _look_for_hung_ranks(self, since: float) -> None:
        """Have ranks killed that were silent for too long; where that cannot be survived, raise.

        The server looks at all others, they look at the server, one a second later than the next, so that one
        of them speaks.
        """
        if not self.rank_timeout:
            return
        patience = self.rank_timeout + max(self.rank - 1, 0)
        hung = self._monitor.silent(since, patience)
        if not hung:
            return
        if not self._fault_tolerant or self._monitor.silent(since, patience + GRACE):
            raise self._silence(hung)
        for rank in hung:
            if rank not in self._condemned:
                self._condemned.add(rank)
                self._see_to_the_end_of(rank, hung)

    def _see_to_the_end_of(self, rank: int, hung: Sequence[int]) -> None:
        """See that a survivor on its host kills a hung rank: then it is lost like any other."""
        host = self._processes[rank].host
        if host == self.location.host:
            self._processes[rank].kill()
            return
        neighbours = [
            r for r, process in enumerate(self._processes) if process.host == host and r not in hung
        ]
        if not neighbours:
            raise self._silence(hung)
        if self.is_server:  # who hears nothing from the server acts without being asked
            self._monitor.give(neighbours[:1], to_kill=rank)

    def _silence(self, ranks: Sequence[int]) -> SilentRankError:
        names = ", ".join(f"rank {rank} on {self._processes[rank].host}" for rank in ranks)
        return SilentRankError(
            f"{names}: no heartbeat for {self.rank_timeout:g} s (reliability.rank_timeout) "
            f"while others waited ({self._doing or 'start'})"
        )

    # Small values: pickled here, so that their size is known.

    def _meet(self) -> None:
        """Wait until every rank is here."""
        self._broadcast(self._gather(None) and None)

    def _broadcast(self, value: T) -> T:
        with self._surviving():
            if self.is_server:
                data = pack(value)
                requests = [self._comm.Isend([data, MPI.BYTE], rank) for rank in range(1, self.size)]
                self._enter_value(value, len(data), len(requests))
                self._wait(lambda: MPI.Request.Testall(requests), asleep=True)
                return value
            (received,) = self._receive([0])
            sent: T = MPI.pickle.loads(received)
            return sent

    def _gather(self, value: T) -> list[T] | None:
        with self._surviving():
            if self.is_server:
                return [value, *map(MPI.pickle.loads, self._receive(range(1, self.size)))]
            data = pack(value)
            request = self._comm.Isend([data, MPI.BYTE], 0)
            self._enter_value(value, len(data), 1)
            self._wait(request.Test, asleep=True)
            return None

    def _receive(self, sources: Sequence[int]) -> list[bytearray]:
        """Receive one message from each rank; asleep until they come."""
        arrived: dict[int, tuple[bytearray, MPI.Request]] = {}
        status = MPI.Status()

        def done() -> bool:
            for source in sources:
                if source not in arrived:
                    message = self._comm.Improbe(source, MPI.ANY_TAG, status)
                    if message is not None:
                        data = bytearray(status.Get_count(MPI.BYTE))
                        arrived[source] = data, message.Irecv([data, MPI.BYTE])
            return len(arrived) == len(sources) and bool(
                MPI.Request.Testall([request for _, request in arrived.values()])
            )

        self._wait(done, asleep=True)
        return [arrived[source][0] for source in sources]

    # Model values.

    def _broadcast_rows(self, rows: Rows, kind: str) -> None:
        self._meet()
        if self.is_server:
            self._enter_array(kind, rows, self.size - 1)
        values = rows.reshape(-1)
        with self._surviving():
            for part in spans(values.size, LONGEST_MESSAGE):
                self._wait(self._comm.Ibcast(values[part]).Test, asleep=False)

    def _gather_rows(self, rows: Rows, counts: Sequence[int], root: int, kind: str) -> Rows | None:
        self._meet()
        width = rows.shape[1]
        received = np.empty((sum(counts), width), np.float32) if self.rank == root else None
        if self.rank != root:
            self._enter_array(kind, rows)
        row = MPI.FLOAT.Create_contiguous(width).Commit()  # counted in C's int: in rows, not in values
        layout = None if received is None else [received, counts, row]
        with self._surviving():
            request = self._comm.Igatherv([rows, len(rows), row], layout, root)
            self._wait(request.Test, asleep=False)
        row.Free()
        return received

    def _reduce_sum(
        self, own: GridSum | None, length: int, kind: str, out: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Add chunk by chunk, as MPI is slow to add what does not fit the cache."""
        self._meet()
        total = (np.empty(length, np.int64) if out is None else out) if self.is_server else None
        added = None if total is None else total.view(np.uint64)  # unsigned: an overflow is defined
        nothing = np.zeros(min(CHUNK, length), np.uint64)
        values = None if own is None else own.values.view(np.uint64)
        if own is not None and not self.is_server:
            self._enter_array(kind, own.values)
        with self._surviving():
            for part in spans(length, CHUNK):
                sent = nothing[: part.stop - part.start] if values is None else values[part]
                request = self._comm.Ireduce(sent, None if added is None else added[part], MPI.SUM)
                self._wait(request.Test, asleep=False)
        return total

    # Lives and ends.

    def heartbeat(self) -> bool:
        """Give a sign of life, and pass on the request to abandon the round."""
        if time.monotonic() - self._tended >= TEND:  # a look may give the core away, so not with each batch
            with self._surviving():
                self._tend()
        return self._monitor.abandon

    def agree(self, well: bool) -> bool:
        """Agree across losses; afterwards the ranks end without `MPI.Finalize`."""
        if not self._fault_tolerant:
            raise RuntimeError("without fault tolerance there is nothing to agree on: all end together")
        atexit.unregister(MPI.Finalize)  # if a rank died just now, it could wait forever
        try:
            with self._bounded():
                return bool(self._comm.Agree(well))
        except MPI.Exception:
            return False

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Bound the time that all ranks take to meet in a call that cannot be polled."""
        watchdogs = [
            threading.Timer(self.rank_timeout, self._kill_the_stopped),
            threading.Timer(self.rank_timeout + GRACE + self.rank, self._give_up),
        ]
        for watchdog in watchdogs if self.rank_timeout else ():
            watchdog.daemon = True
            watchdog.start()
        try:
            yield
        finally:
            for watchdog in watchdogs:
                watchdog.cancel()

    def shrink(self) -> tuple["MPICommunicator", tuple[int, ...]]:
        """Leave lost ranks behind, and what they asked for; starts over if another one is lost meanwhile."""
        if not self._fault_tolerant:
            raise RuntimeError("without fault tolerance no rank is left to shrink to")
        self._revoke()
        with self._bounded():
            successor, lost = self._succeed()
        if not lost:
            raise RuntimeError("MPI reported an error, but no rank is lost")
        successor.rank_timeout = self.rank_timeout
        successor.ledger.update(self.ledger)
        return successor, lost

    def _succeed(self) -> tuple["MPICommunicator", tuple[int, ...]]:
        while True:
            survivors = MPI.Intracomm(self._comm.Shrink())
            try:
                successor = MPICommunicator(survivors, True, self._abandon_requested)
                left = successor._broadcast(successor._gather(self.rank))
            except RanksLost:
                left = None
            with contextlib.suppress(MPI.Exception):  # another loss: raised on all, so that all start over
                if survivors.Agree(left is not None) and left is not None:
                    return successor, tuple(rank for rank in range(self.size) if rank not in left)

    def _kill_the_stopped(self) -> None:
        """Kill ranks of this host that were stopped before they could shrink: then they are lost, too."""
        for process in self._processes:
            if process.host == self.location.host and process.is_stopped:
                process.kill()

    def _give_up(self) -> None:
        """End the job, from another thread: Shrink itself cannot be interrupted."""
        message = f"the ranks that are left did not all meet within {self.rank_timeout + GRACE:g} s of a loss"
        print(f"fedreid-mpi: error: {message}", file=sys.stderr)  # noqa: T201 (nobody is left to raise it to)
        self._end(1)

    def abort(self, exit_code: int) -> None:
        """End all ranks, after what was printed is out."""
        _flush()
        if not self._fault_tolerant:
            time.sleep(LAST_WORDS)  # the launcher passes on what was printed before it prints its banner
            self._comm.Abort(exit_code)
        # With fault tolerance, Open MPI's Abort ends the calling process alone.
        with contextlib.suppress(MPI.Exception):
            others = [rank for rank in range(self.size) if rank != self.rank]
            self._monitor.give(others, ending=exit_code)
            time.sleep(LAST_WORDS)
            self._monitor.give([])
        self._end(exit_code)

    def _end(self, exit_code: int) -> NoReturn:
        """End this process and all others on this host, hung ones included."""
        _flush()
        for rank, process in enumerate(self._processes):
            if rank != self.rank and process.host == self.location.host:
                process.kill()
        os._exit(exit_code)


def spans(length: int, chunk: int) -> Iterator[slice]:
    """Cut ``range(length)`` into slices of at most ``chunk``."""
    for start in range(0, length, chunk):
        yield slice(start, min(start + chunk, length))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
