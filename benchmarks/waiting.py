"""How much do waiting ranks slow down the one that works?

    python -m benchmarks.waiting [--ranks 10] [--seconds 3]

Rank 1 works while the others wait, once in a phase of the communicator, which sleeps with back-off, and once
in MPI's own barrier, which blocks. Compared is the processor time that all waiting ranks spend meanwhile.
"""

import argparse
import time

import numpy as np

from benchmarks.playing import Outcome, Row, on_ranks, options_of, play


def keep_busy(steps: int) -> None:
    """Keep one core busy."""
    matrix = np.full((64, 64), 1e-3)
    for _ in range(steps):
        matrix = matrix @ matrix + 1e-3


def work(target: float) -> list[Row] | None:
    """Wait both ways on all ranks while one of them works for about ``target`` seconds."""
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator

    world = MPI.COMM_WORLD
    comm = MPICommunicator(world)
    worker = min(1, comm.size - 1)
    keep_busy(1000)  # warm up
    world.Barrier()
    began = time.perf_counter()
    if comm.rank == 0:
        keep_busy(5000)
    steps = world.bcast(int(5000 * target / (time.perf_counter() - began)))

    def share() -> None:
        if comm.rank == worker:
            keep_busy(steps)

    def block() -> None:
        share()
        world.Barrier()

    rows = []
    for name, way in (("phase", lambda: comm.phase("work", share)), ("barrier", block)):
        world.Barrier()
        began, spent = time.perf_counter(), time.process_time()
        way()
        took, spent = time.perf_counter() - began, time.process_time() - spent
        waiting = world.reduce(0.0 if comm.rank == worker else spent)
        rows.append({"wait": name, "seconds of work": took, "processor seconds of waiting": waiting})
    return rows if comm.is_server else None


def measure(options: argparse.Namespace) -> Outcome:
    """Launch the ranks and compare."""
    rows = on_ranks(options.ranks, "waiting", options.seconds)
    phase, barrier = (row["processor seconds of waiting"] for row in rows)
    return Outcome(
        f"{options.ranks - 1} waiting ranks spend {phase:.1f} s of processor time while one works for "
        f"{rows[0]['seconds of work']:.1f} s; in a barrier {barrier:.1f} s",
        phase / barrier,
        rows,
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--ranks", type=int, default=10)
    options.add_argument("--seconds", type=float, default=3.0)
    play(measure, options, {"ranks": 3, "seconds": 0.2}, work)


if __name__ == "__main__":
    main()
