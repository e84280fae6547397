"""How much of a client's images does an update give away, plain, masked or noised?

    python -m benchmarks.inversion [--archive FILE.h5] [--images 1] [--iterations 300] [--picture FILE.png]

Gradient inversion: a client takes one step of SGD on a few images with the small network. The attacker has
the model before and what the server sees, and looks for images whose gradient points the same way (Geiping et
al., "Inverting Gradients", NeurIPS 2020: cosine distance, total variation, signed steps of Adam). It is given
more than a server has: labels, the client's private classifier, and BatchNorm that normalises by known
statistics and not by the batch. So the figures bound what it could do. What it sees:

plain     the sum of a rank with this one client
sum of 9  the sum of nine such clients, as it is left when masks cancel
masked    the client's masked sum
noise r   the clipped update with noise r times as long as it
"""

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.playing import Outcome, options_of, play
from fedreid_mpi import config
from fedreid_mpi.algorithms.averaging import add_contribution, grid_of
from fedreid_mpi.algorithms.differential_privacy import clip_update, draw_noise
from fedreid_mpi.algorithms.masking import mask
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.model import build_network

CLIENTS, PEOPLE, RATE, CLIP = 9, 8, 0.05, 1e-3
MEAN, DEVIATION, SMOOTH = 0.45, 0.225, 0.05


def measure(options: argparse.Namespace) -> Outcome:
    """Attack what the server sees in each of the ways; tell how near the images come."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        archive = DatasetArchive.open(options.archive or draw_archive(Path(folder)))
        rows = np.random.default_rng(0).permutation(archive.split("train"))[: CLIENTS * options.images]
        pixels = torch.from_numpy(np.stack([archive.images[row] for row in rows])).permute(0, 3, 1, 2) / 255
    settings = config.Model(backbone="small", embedding_dim=32, dropout=0.0, neck="bnneck")
    network = build_network(settings, PEOPLE, 0, "inversion").eval()
    assert network.classifier is not None
    torch.nn.init.normal_(network.classifier.weight, 0.0, 0.1, generator=torch.Generator().manual_seed(1))
    shared = [p for name, p in network.named_parameters() if p.requires_grad and "classifier" not in name]
    labels = torch.arange(options.images) % PEOPLE

    def gradient(images: Tensor, graph: bool = False) -> Tensor:
        loss = F.cross_entropy(network((images - MEAN) / DEVIATION), labels)
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, shared, create_graph=graph)])

    groups = pixels.split(options.images)
    updates = [-RATE * gradient(images).detach() for images in groups]
    images, rates = groups[0], (0.1, 1.0, 10.0)
    hidden = sums(updates[:1], bytes(range(32)))
    seen = {"plain": sums(updates[:1]), "sum of 9": sums(updates), "masked": hidden}
    seen |= {f"noise {rate:g}": noised(updates[0], rate) for rate in rates}
    found = {
        name: invert(gradient, -vector, images.shape, options.iterations) for name, vector in seen.items()
    }
    if options.picture:
        draw({"client's images": images, **found}, options.picture)
    found["a grey image"] = torch.full_like(images, float(images.mean()))
    near = {name: likeness(each, images) for name, each in found.items()}
    return Outcome(
        "PSNR of the image found, in dB: "
        + ", ".join(f"{name} {decibels:.1f}" for name, decibels in near.items()),
        None,
        [{"what the server sees": name, "PSNR, dB": decibels} for name, decibels in near.items()],
    )


def draw_archive(folder: Path) -> Path:
    """Draw the synthetic VIPeR, the smallest dataset that has people enough, and prepare it."""
    fedreid = (sys.executable, "-m", "fedreid_mpi")
    archive = folder / "viper.h5"
    drawn = (*fedreid, "synth", str(folder / "synthetic"), "--only", "viper")
    prepared = (*fedreid, "prepare", "--dataset", "viper", str(folder / "synthetic" / "VIPeR"), str(archive))
    for command in (drawn, (*prepared, "--size", "64x32")):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return archive


def sums(updates: list[Tensor], key: bytes | None = None) -> Tensor:
    """Return what a sum of integers tells: of the clients together, masked with a key where there is one."""
    grid, total = grid_of("parameters", CLIENTS), torch.zeros(len(updates[0]), dtype=torch.int64)
    for update in updates:
        add_contribution(total, update, 1.0, grid)
    if key is not None:
        mask(total.numpy().view(np.uint64), [(key, True)])
    return (total.double() * 2.0**-grid.bits).float()


def noised(update: Tensor, rate: float) -> Tensor:
    """Return the clipped update with noise whose norm is so many times that of the update."""
    clipped = update.clone()
    clip_update(clipped, CLIP)
    scale = rate * float(clipped.norm()) / math.sqrt(len(clipped))
    return clipped + torch.from_numpy(draw_noise(len(clipped), scale, 0, 1, "parameters")).float()


def invert(gradient: Callable[..., Tensor], target: Tensor, shape: torch.Size, iterations: int) -> Tensor:
    """Look for images whose gradient points like the target: shape as asked for, values 0 to 1."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    guess = (MEAN + DEVIATION * drawn).clamp(0, 1).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.1 * DEVIATION)
    steps = [int(share * iterations) for share in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps)
    for _ in range(iterations):
        optimizer.zero_grad()
        distance = 1 - F.cosine_similarity(gradient(guess, graph=True), target, dim=0)
        rough = guess.diff(dim=2).abs().mean() + guess.diff(dim=3).abs().mean()
        (distance + SMOOTH * rough).backward()
        assert guess.grad is not None
        guess.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
    return guess.detach()


def likeness(found: Tensor, images: Tensor) -> float:
    """Return the peak signal-to-noise ratio in the best order, in dB."""
    errors = [
        float((found[list(order)] - images).square().mean())
        for order in itertools.permutations(range(len(images)))
    ]
    return -10 * math.log10(max(min(errors), 1e-12))


def draw(pictures: dict[str, Tensor], path: Path) -> None:
    """Draw images side by side, a row for each way."""
    from matplotlib.figure import Figure

    count = len(next(iter(pictures.values())))
    figure = Figure(figsize=(1.2 * len(pictures), 2.1 * count + 0.3), layout="constrained")
    axes = figure.subplots(count, len(pictures), squeeze=False)
    for column, (name, images) in enumerate(pictures.items()):
        axes[0, column].set_title(name, fontsize=8)
        for row, image in enumerate(images):
            axes[row, column].imshow(image.permute(1, 2, 0).numpy())
            axes[row, column].axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--archive", type=Path, help="images of this one, instead of drawn ones")
    options.add_argument("--images", type=int, default=1)
    options.add_argument("--iterations", type=int, default=300)
    options.add_argument("--picture", type=Path, help="draw what was found")
    play(measure, options, {"iterations": 3})


if __name__ == "__main__":
    main()
