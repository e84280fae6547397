"""Ranks that fail in every call of the communicator, and go missing at random moments; without torch.

Usage: mpirun [--with-ft ulfm] -n RANKS python mpi_losses.py end CALL FAULT [survive]
       mpirun --with-ft ulfm -n RANKS python mpi_losses.py survive CALL=FAULT...
       mpirun --with-ft ulfm -n RANKS python mpi_losses.py random SEED

The first has one rank fail where it should make a call; no rank is to survive it. In the second one rank
after the other fails, and the rest go on without it. The third plays seeded calls and checks what they
return, while seeded ranks are killed, stopped or leave.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.cli.train import end_badly
from fedreid_mpi.comm import RanksLost, connect
from fedreid_mpi.comm.payload import check_rows, check_value
from fedreid_mpi.records import GridSum

LIMIT = 2.0
"""Seconds without a sign of life, as ``reliability.rank_timeout``."""

STEPS = 400
"""Calls in a random program, at least; it goes on until all its victims are gone."""


def boom():
    raise RuntimeError("boom")


FAULTS = {
    "raise": boom,
    "exit": lambda: sys.exit(0),
    "vanish": lambda: os._exit(0),
    "sleep": lambda: time.sleep(600),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "send-image": lambda: check_rows(np.zeros((64, 32, 3), np.uint8), "models"),
    "send-labels": lambda: check_rows(np.arange(100), "models"),
    "send-paths": lambda: check_value([Path("query/0001_c1.jpg")], from_server=False),
}


def vector(rank, step, length=5000):
    return np.arange(length, dtype=np.float32) * (rank + 1) + step


def broadcast(comm, step=0):
    assert comm.broadcast(step if comm.is_server else None) == step


def gather(comm, step=0):
    gathered = comm.gather((comm.rank, step))
    assert gathered == ([(rank, step) for rank in range(comm.size)] if comm.is_server else None)


def broadcast_rows(comm, step=0):
    rows = vector(comm.rank, step)
    comm.broadcast_rows(rows, "models")
    assert (rows == vector(0, step)).all()


def gather_rows(comm, step=0):
    root = step % comm.size
    stacked = comm.gather_rows(vector(comm.rank, step)[:, None], [5000] * comm.size, root, "features")
    if comm.rank == root:
        expected = np.concatenate([vector(rank, step) for rank in range(comm.size)])
        assert (stacked[:, 0] == expected).all()


def reduce_sum(comm, step=0):
    length = 3 * (1 << 17) + 5  # several chunks are under way when the rank goes missing
    total = comm.reduce_sum(GridSum(np.arange(length) * (comm.rank + step)), length, "models")
    if comm.is_server:
        assert (total == np.arange(length) * sum(rank + step for rank in range(comm.size))).all()


def phase(comm, step=0, work=lambda: None):
    assert comm.phase("work", lambda: work() or step) == step


def decide(comm, step=0):
    assert comm.decide("plan", lambda: step) == step


def shrink(comm, step=0):
    """Stands for the loss of a rank while the others leave another one behind; see `fail_in`."""


CALLS = {
    call.__name__: call
    for call in (broadcast, gather, broadcast_rows, gather_rows, reduce_sum, phase, decide, shrink)
}


def fail_in(comm, name, fault, victim):
    """Make the call on all ranks but one, which fails instead; within the phase's work, where it has any."""
    if name == "shrink":
        if comm.rank == comm.size - 1:
            FAULTS["kill"]()
        try:
            gather(comm)
            decide(comm)
        except RanksLost:
            if comm.rank == victim:
                FAULTS[fault]()
            raise
    elif name == "phase":
        phase(comm, work=FAULTS[fault] if comm.rank == victim else lambda: None)
    elif comm.rank == victim:
        FAULTS[fault]()
    else:
        CALLS[name](comm)
    decide(comm)  # whoever had not to wait for the victim so far


def fail_in_each(comm, pairs):
    for number, pair in enumerate(pairs):
        name, _, fault = pair.partition("=")
        victim = (0, 1, comm.size - 2)[number % 3]
        missing = {victim, comm.size - 1} if name == "shrink" else {victim}
        try:
            fail_in(comm, name, fault, victim)
            raise AssertionError(f"{name}: nobody noticed")
        except RanksLost:
            comm, lost = comm.shrink()
        assert set(lost) == missing, (name, lost)
        for call in CALLS.values():
            call(comm, 7)
        if comm.is_server:
            print(f"survived {fault} {name}", flush=True)


def doomed(ranks, seed):
    """Seconds until each victim's end and how it ends, in a random program of so many ranks."""
    random = generator(seed, "losses")
    victims = random.permutation(ranks).tolist()[: ranks - 2]
    moments = np.cumsum(random.uniform(0.0, 0.6, len(victims)) * (random.random(len(victims)) < 0.8))
    hows = random.choice(["kill", "kill", "kill", "stop", "vanish"], len(victims)).tolist()
    return {victim: (0.1 + moment, how) for victim, moment, how in zip(victims, moments, hows, strict=True)}


def play_at_random(comm, seed):
    """Play seeded calls while ranks go missing; the survivors' numbers must come out right throughout."""
    fates, names = doomed(comm.size, seed), [name for name in CALLS if name != "shrink"]
    left, step = list(range(comm.size)), 0
    if comm.rank in fates:
        moment, how = fates[comm.rank]
        threading.Timer(moment, FAULTS[how]).start()
    while step < STEPS or len(left) > 2:
        try:
            CALLS[names[int(generator(seed, "call", step).integers(len(names)))]](comm, step)
            comm.heartbeat()
            step += 1
        except RanksLost:
            while True:
                comm, lost = comm.shrink()
                left = [rank for number, rank in enumerate(left) if number not in lost]
                try:
                    step = comm.decide("step", lambda step=step: step)
                    break
                except RanksLost:
                    continue
    assert sorted(left) == sorted(set(range(len(left) + len(fates))) - set(fates))
    if comm.is_server:
        print(f"survived {len(fates)} {' '.join(sorted(how for _, how in fates.values()))}", flush=True)


def main(mode, *arguments):
    comm = connect(fault_tolerant=mode != "end" or arguments[-1] == "survive")
    comm.rank_timeout = LIMIT
    try:
        if mode == "random":
            play_at_random(comm, int(arguments[0]))
        elif mode == "survive":
            fail_in_each(comm, arguments)
        else:
            fail_in(comm, *arguments[:2], victim=comm.size - 2)
    except BaseException as error:  # noqa: BLE001
        sys.exit(end_badly(comm, Path("no-run"), error))


if __name__ == "__main__":
    main(*sys.argv[1:])
