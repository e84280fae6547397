"""Archives of random pixels, for benchmarks in which it does not matter what the images show."""

import hashlib
from pathlib import Path

import numpy as np

from fedreid_mpi.data.archive import ArchiveContents, DatasetArchive, write_archive


def write_noise(path: Path, images: int, people: int, height: int, width: int) -> DatasetArchive:
    """Write an archive of training images, dealt out evenly to people, with one camera and no test split."""
    random = np.random.default_rng(len(path.stem))
    contents = ArchiveContents(
        name=path.stem,
        layout="noise",
        height=height,
        width=width,
        paths=[f"{number:06}.png" for number in range(images)],
        pids=[1 + number * people // images for number in range(images)],
        camids=[1] * images,
        splits=[{"train": range(images)}],
        attributes={},
    )
    pixels = (random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(images))
    write_archive(path, contents, ((each, hashlib.sha256(each.tobytes()).digest()) for each in pixels))
    return DatasetArchive.open(path)
