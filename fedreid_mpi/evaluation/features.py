"""Features of test images, and how well they rank a gallery."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.device import autocast
from fedreid_mpi.model import ReIDNetwork
from fedreid_mpi.records import Advance

BATCH = {"cpu": 8, "cuda": 64}
"""Images in a batch, by type of device. Fixed, as another size gives other last bits. On a CPU a small batch
costs little, and keeps the activations of ResNet-50 to some hundred megabytes."""

SHARD = 1024
"""Images in the smallest piece of work that one rank does: whole batches."""


@dataclass(frozen=True, slots=True)
class EvalShard:
    """A range of one dataset's test images: query images first, then the gallery.

    Attributes
    ----------
    dataset
        Number of the dataset.
    start, stop
        Range of test images.
    """

    dataset: int
    start: int
    stop: int


def shards(dataset: int, images: int) -> Iterator[EvalShard]:
    """Cut a dataset's test images into shards; the cuts depend on nothing but their number."""
    for start in range(0, images, SHARD):
        yield EvalShard(dataset, start, min(start + SHARD, images))


def query_then_gallery(archive: DatasetArchive, split: int = 0) -> NDArray[np.int64]:
    """Return the indices of a split's test images: queries first, then the gallery.

    Of an archive with several splits, the evaluation while training takes split 0.
    """
    return np.concatenate([archive.split("query", split), archive.split("gallery", split)])


def extract_features(
    network: ReIDNetwork,
    archive: DatasetArchive,
    indices: NDArray[np.int64],
    compute: config.Compute,
    mirror: bool,
    advance: Advance | None = None,
) -> Tensor:
    """Extract features, scaled to length 1.

    Parameters
    ----------
    network
        Is put into evaluation mode.
    archive
        Where the images are; each batch is read from the file when its turn comes.
    indices
        Which images, shape (n,).
    compute
        Precision.
    mirror
        Whether the feature of the mirror image is added before the scaling.
    advance
        Told of every batch.

    Returns
    -------
    Tensor
        Shape (n, width), float32, on the network's device.
    """
    network.eval()
    device = next(network.parameters()).device
    features = torch.empty(len(indices), network.width, device=device)
    size = BATCH[device.type]
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        images = torch.from_numpy(archive.images[chosen])
        features[start : start + len(images)] = batch_features(network, images, compute, mirror)
        if advance is not None:
            advance(len(images))
    return features


@torch.no_grad()
def batch_features(network: ReIDNetwork, images: Tensor, compute: config.Compute, mirror: bool) -> Tensor:
    """Extract the features of one batch, scaled to length 1.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        Shape (B, height, width, 3), uint8.
    compute, mirror
        See `extract_features`.

    Returns
    -------
    Tensor
        Shape (B, width), float32, on the network's device.
    """
    device = next(network.parameters()).device
    images = normalise(images.to(device), network.pixel_scale)
    shown = torch.cat([images, images.flip(3)]) if mirror else images
    with autocast(compute, device):
        found = network.features(shown).float()
    if mirror:
        found = found[: len(images)] + found[len(images) :]
    return F.normalize(found)


class ExtractedFeatures:
    """Features of some images of an archive.

    Attributes
    ----------
    archive
        Where the images are.
    images
        Indices into the archive's images, shape (n,), int64, each once.
    features
        Shape (n, width), float32, of length 1.
    """

    def __init__(self, archive: DatasetArchive, images: NDArray[np.int64], features: Tensor) -> None:
        self.archive = archive
        self.images = images
        self.features = features
        self._rows = np.full(len(archive.pids), -1)
        self._rows[images] = np.arange(len(images))

    def rows(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some of the images."""
        return self._rows[images]

    def of(self, images: NDArray[np.int64]) -> Tensor:
        """Return the features of some of the images: a view if they are contiguous, to save memory."""
        rows = self.rows(images)
        if (np.diff(rows) == 1).all():
            return self.features[rows[0] : rows[0] + len(rows)]
        return self.features[torch.from_numpy(rows)]


def extract_parts(
    network: ReIDNetwork,
    archive: DatasetArchive,
    parts: Sequence[NDArray[np.int64]],
    compute: config.Compute,
    mirror: bool,
    advance: Advance | None = None,
) -> ExtractedFeatures:
    """Extract the features of several sets of images, no batch across two; see `extract_features`."""
    features = [extract_features(network, archive, part, compute, mirror, advance) for part in parts]
    # A large dataset has one split, whose features are not copied.
    return ExtractedFeatures(
        archive, np.concatenate(parts), features[0] if len(parts) == 1 else torch.cat(features)
    )
