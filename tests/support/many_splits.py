"""An archive of noise with three splits, and a model to score on it."""

import hashlib

import numpy as np
import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.data.archive import ArchiveContents, DatasetArchive, write_archive
from fedreid_mpi.model import FlatModel, build_network, save_model

# Person, camera of each image. Three splits; the third asks in the other direction, person 2 in vain.
IMAGES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (3, 1),
    (3, 2),
    (4, 1),
    (4, 2),
    (1, 1),
    (1, 1),
    (3, 1),
    (2, 2),
    (9, 5),
]
SPLITS = [
    {"query": [0, 2], "gallery": [1, 3, 5], "train": [6, 7], "multi_query": [8, 9, 10, 12]},
    {"query": [4, 6], "gallery": [3, 5, 7], "train": [0, 1], "multi_query": [8, 9, 10, 11, 12]},
    {"query": [1, 3], "gallery": [0, 4, 6], "train": [7], "multi_query": [11]},
]


def write(path, splits=SPLITS, name="small"):
    """An archive of noise, so that no two scores are the same by design."""
    contents = ArchiveContents(
        name=name,
        layout="drawn",
        height=32,
        width=16,
        paths=[f"{number:04d}.png" for number in range(len(IMAGES))],
        pids=[pid for pid, _ in IMAGES],
        camids=[camid for _, camid in IMAGES],
        splits=splits,
        attributes={},
    )
    pixels = np.random.default_rng(1).integers(0, 256, (len(IMAGES), 32, 16, 3), dtype=np.uint8)
    write_archive(path, contents, ((image, hashlib.sha256(image).digest()) for image in pixels))
    return DatasetArchive.open(path)


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "small.h5")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    settings = config.Model(backbone="small", embedding_dim=16, dropout=0.0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    flat = FlatModel(build_network(settings, None, 0), torch.device("cpu"))
    save_model(path, flat, settings, 32, 16, round=0)
    return path
