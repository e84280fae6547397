"""Search by unlabelled images: the gallery images most similar to each query."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi import config
from fedreid_mpi.data.decoding import BrokenImagesError, decode_images
from fedreid_mpi.data.folders import ImageFolder
from fedreid_mpi.evaluation.distances import STEPS, Rows
from fedreid_mpi.evaluation.features import BATCH, batch_features
from fedreid_mpi.evaluation.ranking import cosine_distances
from fedreid_mpi.model import StoredModel
from fedreid_mpi.records import Advance


@dataclass(frozen=True, slots=True)
class Found:
    """What is most like one query.

    Attributes
    ----------
    images
        Rows of the gallery, the most similar first, shape (top,), int64; equal ones by their row.
    similarities
        Cosine similarities, shape (top,), float64.
    """

    images: NDArray[np.int64]
    similarities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SearchedFolder:
    """Features of the images of a folder.

    Attributes
    ----------
    folder
        Lists the images that could be decoded.
    features
        Shape (images, width), float32, of length 1.
    broken
        Paths of images that were left out.
    notes
        What was noticed of the files.
    """

    folder: ImageFolder
    features: Tensor
    broken: tuple[str, ...]
    notes: tuple[str, ...]


def read_folder(
    stored: StoredModel,
    folder: ImageFolder,
    compute: config.Compute,
    mirror: bool,
    jobs: int,
    skip_broken: bool,
    advance: Advance,
) -> SearchedFolder:
    """Decode the images of a folder as `prepare` does, and extract their features as they come.

    Parameters
    ----------
    stored
        The model, its network where it is to run.
    folder
        The images.
    compute, mirror
        See `extract_features`.
    jobs
        Threads that decode.
    skip_broken
        Whether images that cannot be decoded are left out.
    advance
        Called with the number of images just tried; with a negative one where it starts again.

    Raises
    ------
    BrokenImagesError
        Images cannot be decoded and may not be left out, or none is left.
    """
    broken: tuple[str, ...] = ()
    while True:
        notes: list[str] = []
        decoded = decode_images(
            folder.root, folder.paths, stored.height, stored.width, jobs, advance, notes=notes
        )
        try:
            features = torch.cat(list(_features(stored, decoded, compute, mirror)))
        except BrokenImagesError as error:
            if not skip_broken or len(error.paths) == len(folder.paths):
                raise
            advance(-len(folder.paths))
            broken, folder = (*broken, *error.paths), folder.without(error.paths)
        else:
            return SearchedFolder(folder, features, broken, tuple(notes))


def _features(
    stored: StoredModel,
    decoded: Iterable[tuple[NDArray[np.uint8], bytes]],
    compute: config.Compute,
    mirror: bool,
) -> Iterator[Tensor]:
    """Yield the features of each batch; no more than a batch of images is held."""
    network = stored.network.eval()
    size = BATCH[next(network.parameters()).device.type]
    pixels = (image for image, _ in decoded)
    while batch := list(islice(pixels, size)):
        yield batch_features(network, torch.from_numpy(np.stack(batch)), compute, mirror)


def find_nearest(queries: Tensor, gallery: Tensor, top: int, advance: Advance | None = None) -> list[Found]:
    """Rank a gallery for each query, by the evaluation's distances.

    Parameters
    ----------
    queries, gallery
        Features, shapes (Q, width) and (G, width), on one device.
    top
        Images wanted for each query; a smaller gallery gives fewer.
    advance
        Told of the queries just ranked.
    """
    sides = Rows.of("query", queries, gallery.device), Rows.of("gallery", gallery, gallery.device)
    found = []
    for block in cosine_distances(*sides):
        for distances in block.cpu().numpy():
            order = np.argsort(distances, kind="stable")[:top]
            found.append(Found(order, -distances[order] / STEPS + 0.0))
        if advance is not None:
            advance(len(block))
    return found
