"""One round with a small network of each family of backbones, on 2 and on 4 ranks, in one launch.

Usage: mpirun -n 4 python -m mpi4py mpi_backbones.py FOLDER EXPERIMENT.toml...

Runs are written to FOLDER/<experiment>/<ranks>. ResNet-50 is played with few and narrow blocks.
"""

import sys
from pathlib import Path
from unittest import mock

from support.small import Silent

FAMILIES = {
    "resnet": "resnet50",
    "ibn-a": "resnet50_ibn_a",
    "ibn-b": "resnet50_ibn_b",
    "osnet": "osnet_x1_0",
    "mobilenet": "mobilenet_v2",
    "timm-convolutional": "timm:test_efficientnet",
    "timm-transformer": "timm:test_vit",
}


def narrow_resnet50():
    """Let ResNet-50 be built with few and narrow blocks."""
    from torchvision.models import resnet

    def narrow(weights: None) -> resnet.ResNet:
        return resnet.ResNet(resnet.Bottleneck, [2, 2, 1, 1], width_per_group=8)

    return mock.patch.object(resnet, "resnet50", narrow)


def main(folder: Path, experiments: list[Path]) -> None:
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator
    from fedreid_mpi.config import load_experiment
    from fedreid_mpi.run.loop import run_federation

    world = MPI.COMM_WORLD
    pair, everyone = MPICommunicator(world.Split(world.rank < 2)), MPICommunicator(world)
    with narrow_resnet50():
        for path in experiments:
            if world.rank < 2:
                run_federation(pair, load_experiment(path), folder / path.stem / "2", Silent())
            everyone.broadcast(None)
            run_federation(everyone, load_experiment(path), folder / path.stem / "4", Silent())


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
