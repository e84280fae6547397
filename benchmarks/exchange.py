"""What it costs to average the clients' models: pickled state dicts against the streamed exchange.

    mpirun -n 10 python benchmarks/exchange.py [--parameters 23600000] [--repeats 5]

Both ways run in turn in one launch; what counts is the ratio of their medians. The plain way is the usual
one: every client pickles its state dict to the server, which averages tensor by tensor in fp32.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from mpi4py import MPI

from fedreid_mpi.comm.mpi.communicator import MPICommunicator
from fedreid_mpi.federated.exchange import aggregate, distribute

TENSORS = 160
"""Tensors in the state dict of the plain way, as many as ResNet-50 has parameters."""


def main() -> None:
    """Time both ways and print medians and their ratio on rank 0."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parameters", type=int, default=23_600_000)
    options.add_argument("--repeats", type=int, default=5)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    comm = MPICommunicator(MPI.COMM_WORLD)
    length = arguments.parameters // TENSORS * TENSORS
    clients = range(comm.size - 1)
    placement = [(), *((client,) for client in clients)]
    weights = {client: 100.0 + client for client in clients}
    model = torch.from_numpy(np.random.default_rng(comm.rank).standard_normal(length, np.float32))
    mine = {comm.rank - 1: model} if comm.rank else {}

    def plain() -> None:
        state = {f"layer.{n}": part for n, part in enumerate(model.view(TENSORS, -1).numpy())}
        states = MPI.COMM_WORLD.gather(state if comm.rank else None)
        if states is not None:
            total = sum(weights.values())
            for name in state:
                sum(states[client + 1][name] * (weights[client] / total) for client in clients)

    def streamed() -> None:
        aggregate(comm, placement, mine, weights, length)

    def out() -> None:
        distribute(comm, model)

    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for name, way in (("pickled gather", plain), ("streamed", streamed), ("broadcast", out)):
            MPI.COMM_WORLD.Barrier()
            began = time.perf_counter()
            way()
            MPI.COMM_WORLD.Barrier()
            seconds.setdefault(name, []).append(time.perf_counter() - began)
    if comm.is_server:
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        print(f"{comm.size} ranks, {length:,} values ({4 * length / 1e6:.0f} MB) a model")
        for name, median in medians.items():
            print(f"{name:>15}: {1e3 * median:8.0f} ms (median of {arguments.repeats})")
        print(f"ratio: {medians['pickled gather'] / medians['streamed']:.1f}")


if __name__ == "__main__":
    main()
