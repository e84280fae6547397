"""What waiting ranks cost the one that works: sleep with back-off against a blocking barrier.

    mpirun -n 10 python benchmarks/waiting.py [--seconds 3]

Rank 1 works while the others wait, once in a phase of the communicator and once in MPI's own barrier. Printed
are the seconds the work took and the processor time that all waiting ranks spent meanwhile.
"""

import argparse
import time

import numpy as np
from mpi4py import MPI

from fedreid_mpi.comm.mpi.communicator import MPICommunicator


def work(steps: int) -> None:
    """Keep one core busy."""
    matrix = np.full((64, 64), 1e-3)
    for _ in range(steps):
        matrix = matrix @ matrix + 1e-3


def main() -> None:
    """Measure both ways of waiting and print them on rank 0."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    arguments = options.parse_args()
    world = MPI.COMM_WORLD
    comm = MPICommunicator(world)
    work(1000)  # warm up
    world.Barrier()
    began = time.perf_counter()
    if comm.rank == 0:
        work(5000)
    steps = world.bcast(int(5000 * arguments.seconds / (time.perf_counter() - began)))

    def share() -> None:
        if comm.rank == min(1, comm.size - 1):
            work(steps)

    def block() -> None:
        share()
        world.Barrier()

    for name, way in (("phase", lambda: comm.phase("work", share)), ("barrier", block)):
        world.Barrier()
        began, spent = time.perf_counter(), time.process_time()
        way()
        took, spent = time.perf_counter() - began, time.process_time() - spent
        waiting = world.reduce(0.0 if comm.rank == min(1, comm.size - 1) else spent)
        if comm.is_server:
            print(f"{name:>8}: {took:5.2f} s of work, {waiting:5.2f} s of processor time spent waiting")


if __name__ == "__main__":
    main()
