"""What does it cost to average models, masked or not, against MPI's own Reduce and against pickles?

    python -m benchmarks.exchange [--ranks 3 10] [--parameters 23600000] [--repeats 5]

The ways run in turn in one launch; what counts is the ratios of their medians. The plain way is the usual
one: every client pickles its state dict to the server, which averages tensor by tensor in fp32. MPI's
Reduce adds floats in an order of its own: its bits depend on the number of ranks, so it stands for what the
hardware can do.
"""

import argparse
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.playing import Outcome, anonymous_memory, on_ranks, options_of, play
from fedreid_mpi.algorithms.averaging import add_contribution, grid_of, mean_of
from fedreid_mpi.federated.exchange import broadcast_model
from fedreid_mpi.federated.masks import agree_on_masks
from fedreid_mpi.records import GridSum

TENSORS = 160
"""Tensors in the state dict of the plain way, as many as ResNet-50 has parameters."""

SUMS, REDUCE, PICKLES, OUT = "sums on a grid", "Reduce of floats", "pickled gather", "broadcast"
MASKED = {"masked, 4 each": 4, "masked, all pairs": 0}
"""Name of a way to the neighbours of a client; 0: all."""


def work(parameters: int, repeats: int) -> dict[str, Any] | None:
    """Average in all ways on these ranks; return their median seconds and the memory beside the model."""
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator

    torch.set_num_threads(1)
    world = MPI.COMM_WORLD
    comm = MPICommunicator(world)
    length = parameters // TENSORS * TENSORS
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
        peaks.setdefault("sums", anonymous_memory())  # the first time, before anything else was done

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

    resting = anonymous_memory() - 8 * length / 1e6
    ways = {
        SUMS: sums,
        **{name: partial(masked, neighbours) for name, neighbours in MASKED.items()},
        REDUCE: floats,
        PICKLES: pickled,
        OUT: out,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):  # the first is to warm up
        for name, way in ways.items():
            world.Barrier()
            began = time.perf_counter()
            way()
            world.Barrier()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    extra = world.gather(peaks["sums"] - resting)
    if extra is None:
        return None
    return {"seconds": {name: statistics.median(times) for name, times in seconds.items()}, "extra": extra}


def measure(options: argparse.Namespace) -> Outcome:
    """Launch each number of ranks and compare."""
    rows, found = [], {}
    for ranks in options.ranks:
        found[ranks] = on_ranks(ranks, "exchange", options.parameters, options.repeats)
        rows += [
            {
                "ranks": ranks,
                "way": name,
                "ms": 1e3 * seconds,
                "times the sums": seconds / found[ranks]["seconds"][SUMS],
            }
            for name, seconds in found[ranks]["seconds"].items()
        ]
    seconds, extra = found[ranks]["seconds"], max(found[ranks]["extra"])
    reduces = {ranks: each["seconds"][SUMS] / each["seconds"][REDUCE] for ranks, each in found.items()}
    whole = seconds[SUMS] + seconds[OUT]
    masked = max((seconds[name] + seconds[OUT]) / whole for name in MASKED)
    return Outcome(
        f"models of {4 * options.parameters / 1e6:,.0f} MB: "
        + ", ".join(
            f"{ratio:.1f} times a Reduce of floats on {ranks} ranks" for ranks, ratio in reduces.items()
        )
        + f", {seconds[PICKLES] / seconds[SUMS]:.1f} times as fast as a gather of pickles; {extra:,.0f} MB "
        f"per rank beside the model; with masks at most {masked:.1f} times the whole exchange",
        reduces[ranks],
        rows,
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--ranks", type=int, nargs="+", default=[3, 10])
    options.add_argument("--parameters", type=int, default=23_600_000)
    options.add_argument("--repeats", type=int, default=5)
    play(measure, options, {"ranks": [3], "parameters": 16_000, "repeats": 2}, work)


if __name__ == "__main__":
    main()
