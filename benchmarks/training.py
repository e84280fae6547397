"""How fast is a client's whole turn, against bare steps on a batch in memory?

    python -m benchmarks.training [--device cuda] [--precision bf16] [--steps 40] [--repeats 9]

The bare step is forward, backward and SGD on one batch that lies ready in memory. The loop is that of a
client's turn: loading it into the working model, reading and augmenting its batches, dropout's seeds, the
loss, and taking out what it keeps. Both are timed in turn in one run, and compared by their medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.noise import write_noise
from benchmarks.playing import Outcome, options_of, play
from fedreid_mpi.config import Compute, Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import Part
from fedreid_mpi.device import autocast, memory_format, set_arithmetic
from fedreid_mpi.federated.client import (
    describe_client,
    initial_private,
    load_client,
    load_data,
    take_private,
    train,
)
from fedreid_mpi.federated.sgd import Batch
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import Role, RoundPlan

BATCH = 32
PEOPLE = 50

CASES = {"small": (64, 32, 1.0), "resnet18": (128, 64, 0.25), "resnet50": (256, 128, 0.1)}
"""Backbone to the size of its images, and how many of the steps are taken on a CPU."""


def measure(options: argparse.Namespace) -> Outcome:
    """Time both for each backbone."""
    device = torch.device(options.device)
    rows = []
    for backbone in options.backbones:
        height, width, share = CASES[backbone]
        steps = max(int(options.steps * (share if device.type == "cpu" else 1)), 2)
        experiment = Experiment.model_validate(
            {
                "data": {"archives": ["unused.h5"]},
                "model": {"backbone": backbone, "embedding_dim": 512 if backbone != "small" else 128},
                "federation": {"batch_size": BATCH},
                "compute": {"device": device.type, "precision": options.precision, "deterministic": False},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            archive = write_noise(Path(folder) / "noise.h5", steps * BATCH, PEOPLE, height, width)
            bare, loop = time_both(experiment, archive, device, steps, options.repeats)
        rows.append(
            {
                "backbone": backbone,
                "image": f"{height}x{width}",
                "bare images per second": bare,
                "turn's images per second": loop,
                "ratio": loop / bare,
            }
        )
    ratios = {row["backbone"]: row["ratio"] for row in rows}
    return Outcome(
        f"images per second on {options.device}: "
        + ", ".join(f"{ratio:.2f} times bare steps with {name}" for name, ratio in ratios.items()),
        min(ratios.values()),
        rows,
    )


def take_steps(model: FlatModel, batches: Iterable[Batch], compute: Compute) -> None:
    """Take bare steps: forward, backward and SGD, on batches that lie ready in memory."""
    optimizer = torch.optim.SGD(
        model.parameters(*Role), 1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    model.network.train()
    for pixels, labels in batches:
        with autocast(compute, pixels.device):
            logits = model.network(pixels)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def time_both(
    experiment: Experiment, archive: DatasetArchive, device: torch.device, steps: int, repeats: int
) -> tuple[float, float]:
    """Return images per second of the bare step and of the client loop."""
    set_arithmetic(experiment.compute, device)
    part = Part(archive.name, ((0, archive.split("train")),))
    spec = describe_client(0, part, [archive], experiment.federation)
    layout = memory_format(experiment.compute, device)
    model = FlatModel(build_network(experiment.model, spec.identities, 0, "shared"), device, layout)
    private, shared = initial_private(model, spec, experiment), model.shared.clone()
    client = load_data(spec, part, [archive], device)
    pixels = torch.randn(BATCH, 3, archive.height, archive.width, device=device).contiguous(
        memory_format=layout
    )
    labels = client.labels[:BATCH]
    plan = RoundPlan(1, (0,), 1e-4, evaluate=False)

    def bare() -> None:
        load_client(model, spec, shared, private, experiment)
        take_steps(model, [(pixels, labels)] * steps, experiment.compute)

    def loop() -> None:
        load_client(model, spec, shared, private, experiment)
        train(client, model, plan, experiment)
        take_private(model, spec, experiment)

    seconds: dict[str, list[float]] = {"bare": [], "loop": []}
    for _ in range(repeats + 1):  # the first is to warm up
        for name, way in (("bare", bare), ("loop", loop)):
            began = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    medians = [statistics.median(times[1:]) for times in seconds.values()]
    return steps * BATCH / medians[0], steps * BATCH / medians[1]


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--precision", default="fp32")
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--backbones", nargs="+", default=list(CASES))
    play(measure, options, {"steps": 2, "repeats": 1, "backbones": ["small"]})


if __name__ == "__main__":
    main()
