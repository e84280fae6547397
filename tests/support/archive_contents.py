"""Contents of a small archive, with what is easily got wrong."""

import hashlib

import numpy as np

from fedreid_mpi.data.archive import ArchiveContents

PATHS = [f"query/{number:04d}_ä.jpg" for number in range(7)]
PIDS = [-1, 0, 5, 5, 9, 9, 2**31 - 1]
CAMIDS = [1, 2, 3, 4, 5, 6, 15]
SPLITS = [
    {"train": [0, 1], "query": [6, 2], "gallery": [3, 4, 5]},
    {"train": [3], "query": [4], "gallery": [5]},
]


def contents(**changes):
    fields = {
        "name": "market1501",
        "layout": "original",
        "height": 12,
        "width": 6,
        "paths": PATHS,
        "pids": PIDS,
        "camids": CAMIDS,
        "splits": SPLITS,
        "attributes": {"train_images": 2, "split_seed": 3, "subset_allowed": True},
        "skipped": ["query/broken.jpg"],
    }
    return ArchiveContents(**(fields | changes))


def pixels(count=7, height=12, width=6):
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def stream(images):
    return ((image, hashlib.sha256(image).digest()) for image in images)
