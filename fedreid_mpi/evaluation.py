"""Features of test images, and how well they rank a gallery."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.algorithms.ranking import Ranking, evaluate_ranking
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.device import autocast
from fedreid_mpi.model import ReIDNetwork
from fedreid_mpi.types import Advance, EvaluationProtocol

BATCH = 64
"""Images in a batch. Fixed, as another size gives other last bits."""

UNIT = 16 * BATCH
"""Images in the smallest piece of work that one rank does."""


@dataclass(frozen=True, slots=True)
class Unit:
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


def units(dataset: int, images: int) -> Iterator[Unit]:
    """Cut a dataset's test images into units; the cuts depend on nothing but their number."""
    for start in range(0, images, UNIT):
        yield Unit(dataset, start, min(start + UNIT, images))


def query_then_gallery(archive: DatasetArchive, split: int = 0) -> NDArray[np.int64]:
    """Return the indices of an archive's test images: queries first, then the gallery."""
    return np.concatenate([archive.split("query", split), archive.split("gallery", split)])


@torch.no_grad()
def extract_features(
    network: ReIDNetwork,
    archive: DatasetArchive,
    indices: NDArray[np.int64],
    compute: config.Compute,
    advance: Advance | None = None,
) -> Tensor:
    """Extract features: embedding of the image plus that of its mirror image, scaled to length 1.

    Parameters
    ----------
    network
        Is put into evaluation mode.
    archive
        Where the images are; each batch is read from the file when its turn comes.
    indices
        Which images, shape (n,).
    compute
        Precision and memory layout.
    advance
        Told of every batch.

    Returns
    -------
    Tensor
        Shape (n, embedding_dim), float32, on the network's device.
    """
    network.eval()
    weight = network.embedding.weight
    device, width = weight.device, weight.shape[0]
    memory_format = torch.channels_last if compute.channels_last else torch.contiguous_format
    features = torch.empty(len(indices), width, device=device)
    for start in range(0, len(indices), BATCH):
        chosen = indices[start : start + BATCH]
        images = normalise(torch.from_numpy(archive.images[chosen]).to(device))
        both = torch.cat([images, images.flip(3)]).contiguous(memory_format=memory_format)
        with autocast(compute, device):
            embeddings = network.features(both).float()
        plain, mirrored = embeddings[: len(images)], embeddings[len(images) :]
        features[start : start + len(images)] = F.normalize(plain + mirrored)
        if advance is not None:
            advance(len(images))
    return features


def rank_gallery(
    features: Tensor, archive: DatasetArchive, protocol: EvaluationProtocol, seed: int, split: int = 0
) -> Ranking:
    """Score the features of an archive's test images.

    Parameters
    ----------
    features
        Shape (queries + gallery, embedding_dim), in the order of `query_then_gallery`.
    archive
        Gives person and camera of each image.
    protocol
        See `evaluate_ranking`.
    seed
        Of the protocol's random draws.
    split
        Number of the split.
    """
    query, gallery = archive.split("query", split), archive.split("gallery", split)
    return evaluate_ranking(
        features[: len(query)],
        archive.pids[query],
        archive.camids[query],
        features[len(query) :],
        archive.pids[gallery],
        archive.camids[gallery],
        protocol=protocol,
        seed=seed,
    )
