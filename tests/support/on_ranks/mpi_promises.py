"""What ranks owe each other beside messages, in one launch without torch; see `main` for what is tried.

Usage: mpirun --with-ft ulfm -n 4 python mpi_promises.py FOLDER
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedreid_mpi.comm import PhaseError, RanksLost, connect
from fedreid_mpi.comm.mpi import communicator
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.run_directory import hold

LIMIT = 2.0
HOLDER = (
    "import fcntl, sys, time\n"
    "with open(sys.argv[1], 'a+') as file:\n"
    "    fcntl.flock(file, fcntl.LOCK_EX)\n"
    "    print('held', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
)


def long_messages_arrive(comm):
    """Longer than a message may be, though not so long as to need gigabytes."""
    communicator.LONGEST_MESSAGE, parts = 1000, []

    cuts = communicator.spans

    def spans(length, chunk):
        parts.extend(cut := list(cuts(length, chunk)))
        return cut

    communicator.spans = spans
    rows = np.arange(30001, dtype=np.float32).reshape(-1, 1) + comm.rank
    comm.broadcast_rows(rows, "models")
    assert (rows[:, 0] == np.arange(30001)).all()
    assert [part.stop - part.start for part in parts] == [1000] * 30 + [1]
    counts = [2, 0, 3, 1]
    mine = np.full((counts[comm.rank], 700), comm.rank, np.float32)
    stacked = comm.gather_rows(mine, counts, 3, "features")
    if comm.rank == 3:
        assert stacked[:, 699].tolist() == [0, 0, 2, 2, 2, 3]


def long_errors_are_cut(comm):
    def fail():
        if comm.rank == 2:
            raise ConfigurationError("x" * 500_000)

    with pytest.raises(PhaseError, match=r"x… \(499,100 more characters\)$") as caught:
        comm.phase("work", fail)
    assert caught.value.exit_code == 2


def who_waits_for_a_lock_is_not_taken_for_hung(comm, folder):
    """The others would have the server killed after `LIMIT` seconds of silence."""

    def wait():
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, folder / "lock", "5"], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout.readline() == "held\n"
            with hold(folder, inherited=True, waiting=comm.heartbeat):
                return comm.size

    assert comm.decide("lock", wait) == 4


def wishes_of_the_dead_are_forgotten(comm, wish):
    """Rank 1 asks for the round to be abandoned, all others hear of it, and it dies."""
    wish.extend([comm.rank] * (comm.rank == 1))
    while not comm.heartbeat():
        time.sleep(0.01)
    comm.broadcast(comm.gather(None) and None)
    try:
        while True:
            if comm.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            comm.broadcast(comm.gather(None) and None)
    except RanksLost:
        comm, lost = comm.shrink()
    assert lost == (1,)
    for _ in range(50):
        assert not comm.heartbeat()
        time.sleep(0.03)
    comm.broadcast(comm.gather(None) and None)
    wish.extend([comm.rank] * (comm.rank == 2))  # who lives may ask
    while not comm.heartbeat():
        time.sleep(0.01)
    comm.broadcast(comm.gather(None) and None)
    return comm


def main(folder):
    wish = []
    comm = connect(fault_tolerant=True, abandon_requested=lambda: bool(wish))
    comm.rank_timeout = LIMIT
    long_messages_arrive(comm)
    long_errors_are_cut(comm)
    who_waits_for_a_lock_is_not_taken_for_hung(comm, folder)
    comm = wishes_of_the_dead_are_forgotten(comm, wish)
    comm.agree(True)
    if comm.is_server:
        print("all kept", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
