"""What it costs to average models: sums on a grid, masked or not, a Reduce of floats, and pickles.

    mpirun -n 10 python benchmarks/exchange.py [--parameters 23600000] [--repeats 5]

The ways run in turn in one launch; what counts is the ratios of their medians. The plain way is the usual
one: every client pickles its state dict to the server, which averages tensor by tensor in fp32. MPI's
Reduce adds floats in an order of its own: its bits depend on the number of ranks, so it stands for what the
hardware can do.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from mpi4py import MPI

from fedreid_mpi.algorithms.averaging import add_contribution, grid_of, mean_of
from fedreid_mpi.comm.mpi.communicator import MPICommunicator
from fedreid_mpi.federated.exchange import broadcast_model
from fedreid_mpi.federated.masks import agree_on_masks
from fedreid_mpi.records import GridSum

TENSORS = 160
"""Tensors in the state dict of the plain way, as many as ResNet-50 has parameters."""


def anonymous() -> float:
    """Return the megabytes of this process's memory that no file backs."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))


def main() -> None:
    """Time all ways and print medians and their ratios on rank 0."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parameters", type=int, default=23_600_000)
    options.add_argument("--repeats", type=int, default=5)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    world = MPI.COMM_WORLD
    comm = MPICommunicator(world)
    length = arguments.parameters // TENSORS * TENSORS
    model = torch.from_numpy(np.random.default_rng(comm.rank).standard_normal(length, np.float32) * 0.05)
    clients, grid = comm.size - 1, grid_of("parameters", comm.size - 1)
    peaks: dict[str, float] = {}
    values = torch.zeros(length, dtype=torch.int64)  # which a run keeps from round to round

    def pickled() -> None:
        state = {f"layer.{n}": part for n, part in enumerate(model.view(TENSORS, -1).numpy())}
        states = world.gather(state if comm.rank else None)
        if states is not None:
            for name in state:
                sum(states[client + 1][name] * (1 / clients) for client in range(clients))

    def floats() -> None:
        received = np.empty(length, np.float32) if comm.is_server else None
        world.Reduce(model.numpy(), received)

    def sums() -> None:
        total = None
        if comm.rank:
            add_contribution(values, model, 1.0, grid, first=True)
            total = GridSum(values.numpy())
        added = comm.reduce_sum(total, length, "models", values.numpy())
        if added is not None:
            mean_of(added, float(clients), grid)
        peaks.setdefault("sums", anonymous())  # the first time, before anything else was done

    def masked(neighbours: int) -> None:
        masks, total = agree_on_masks(comm, neighbours), None
        if masks is not None:
            add_contribution(values, model, 1.0, grid, first=True)
            total = masks.hide(values.numpy(), "models 0")
        added = comm.reduce_sum(total, length, "models", values.numpy())
        if added is not None:
            mean_of(added, float(clients), grid)

    def out() -> None:
        broadcast_model(comm, model)

    resting = anonymous() - 8 * length / 2**20
    ways = {
        "sums on a grid": sums,
        "masked, 4 each": lambda: masked(4),
        "masked, all pairs": lambda: masked(0),
        "Reduce of floats": floats,
        "pickled gather": pickled,
        "broadcast": out,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):  # the first is to warm up
        for name, way in ways.items():
            world.Barrier()
            began = time.perf_counter()
            way()
            world.Barrier()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    extra = world.gather(peaks["sums"] - resting)
    if comm.is_server and extra is not None:
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        print(f"{comm.size} ranks, {length:,} values ({4 * length / 1e6:.0f} MB) a model")
        for name, median in medians.items():
            print(f"{name:>17}: {1e3 * median:8.0f} ms (median of {arguments.repeats})")
        ours, out_again = medians["sums on a grid"], medians["broadcast"]
        for name in ("masked, 4 each", "masked, all pairs"):
            whole = (medians[name] + out_again) / (ours + out_again)
            print(f"{name}: {medians[name] / ours:.2f} times the sums, {whole:.2f} times the whole exchange")
        print(f"times a Reduce of floats: {ours / medians['Reduce of floats']:.2f}")
        print(f"as fast as pickles: {medians['pickled gather'] / ours:.1f}")
        print(f"memory beside the model: server {extra[0]:.0f} MB, client ranks {max(extra[1:]):.0f} MB")


if __name__ == "__main__":
    main()
