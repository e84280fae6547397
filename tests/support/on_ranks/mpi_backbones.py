"""One round with a small network of each family of backbones, on 2 and on 4 ranks, in one launch.

Usage: mpirun -n 4 python -m mpi4py mpi_backbones.py FOLDER EXPERIMENT.toml...

Runs are written to FOLDER/<experiment>/<ranks>. Large networks are played with few and narrow blocks.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from support.small import Silent

FAMILIES = {
    "small": "small",
    "resnet": "resnet50",
    "ibn-a": "resnet50_ibn_a",
    "ibn-b": "resnet50_ibn_b",
    "osnet": "osnet_x1_0",
    "mobilenet": "mobilenet_v2",
    "ics": "vit_small_ics",
    "timm-convolutional": "timm:test_efficientnet",
    "timm-convnext": "timm:test_convnext",
    "timm-transformer": "timm:test_vit",
    "timm-windows": "timm:swin_tiny_patch4_window7_224",
}

NARROW = {
    "vit_small_patch16_224": {"embed_dim": 48, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)},
}
"""What timm is asked for instead."""


@contextmanager
def narrow_networks() -> Iterator[None]:
    """Let large networks be built with few and narrow blocks."""
    import timm
    from torchvision.models import resnet

    create = timm.create_model

    def narrow_resnet50(weights: None) -> resnet.ResNet:
        return resnet.ResNet(resnet.Bottleneck, [2, 2, 1, 1], width_per_group=8)

    def narrow_timm(name: str, **options: object) -> object:
        return create(name, **options, **NARROW.get(name, {}))

    with (
        mock.patch.object(resnet, "resnet50", narrow_resnet50),
        mock.patch.object(timm, "create_model", narrow_timm),
    ):
        yield


def main(folder: Path, experiments: list[Path]) -> None:
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator
    from fedreid_mpi.config import load_experiment
    from fedreid_mpi.run.loop import run_federation

    world = MPI.COMM_WORLD
    pair, everyone = MPICommunicator(world.Split(world.rank < 2)), MPICommunicator(world)
    with narrow_networks():
        for path in experiments:
            if world.rank < 2:
                run_federation(pair, load_experiment(path), folder / path.stem / "2", Silent())
            everyone.broadcast(None)
            run_federation(everyone, load_experiment(path), folder / path.stem / "4", Silent())


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
