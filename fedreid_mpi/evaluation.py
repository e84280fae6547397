"""Features of test images, and how well they rank a gallery."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.algorithms.ranking import Distances, Ranking, cosine_distances, evaluate_ranking
from fedreid_mpi.data.archive import DatasetArchive, SplitRole
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.device import autocast
from fedreid_mpi.model import ReIDNetwork
from fedreid_mpi.types import Advance, EvaluationProtocol

BATCH = {"cpu": 8, "cuda": 64}
"""Images in a batch, by type of device. Fixed, as another size gives other last bits. On a CPU a small batch
costs little, and keeps the activations of ResNet-50 to some hundred megabytes."""

UNIT = 1024
"""Images in the smallest piece of work that one rank does: whole batches."""


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
    """Return the indices of a split's test images: queries first, then the gallery.

    Of an archive with several splits, the evaluation while training takes split 0.
    """
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
    size = BATCH[device.type]
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
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
    queries = len(archive.split("query", split))
    return _rank(features[:queries], features[queries:], archive, split, Scoring(protocol, seed))


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the features of a split become scores.

    Attributes
    ----------
    protocol, seed
        See `evaluate_ranking`.
    multi_query
        Whether a query's feature is replaced by the mean of those of its person's images of the role
        ``multi_query`` in its camera, scaled to length 1. A query without such images keeps its own.
    distances
        What galleries are ranked by.
    """

    protocol: EvaluationProtocol = "standard"
    seed: int = 0
    multi_query: bool = False
    distances: Distances = cosine_distances


def images_to_score(
    archive: DatasetArchive, splits: Sequence[int], multi_query: bool = False
) -> list[NDArray[np.int64]]:
    """Collect the images that are needed to score some splits of an archive, each image once.

    Returns
    -------
    list of ndarray
        For each split those of its images that no split before it has, and likewise its multi-query images:
        apart, so that the batches of the first split are those of the evaluation while training.

    Raises
    ------
    DataError
        When the archive has no such split, or no multi-query images where they are asked for.
    """
    wanted = []
    for split in splits:
        wanted.append(query_then_gallery(archive, split))
        if multi_query:
            wanted.append(np.unique(np.concatenate(multi_query_images(archive, split))))
    seen = np.zeros(len(archive.pids), bool)
    parts = []
    for images in wanted:
        parts.append(images[~seen[images]])
        seen[images] = True
    return parts


def multi_query_images(archive: DatasetArchive, split: int = 0) -> list[NDArray[np.int64]]:
    """Return for each query of a split its person's multi-query images in its camera; there may be none."""
    views: dict[tuple[int, int], list[int]] = defaultdict(list)
    for image in archive.split(SplitRole.MULTI_QUERY, split):
        views[archive.pids[image], archive.camids[image]].append(image)
    return [
        np.array(views.get((archive.pids[query], archive.camids[query]), []), np.int64)
        for query in archive.split("query", split)
    ]


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
        """Return the features of some of the images: a view where they stand in a row, to spare memory."""
        rows = self.rows(images)
        if (np.diff(rows) == 1).all():
            return self.features[rows[0] : rows[0] + len(rows)]
        return self.features[torch.from_numpy(rows)]


def extract_parts(
    network: ReIDNetwork,
    archive: DatasetArchive,
    parts: Sequence[NDArray[np.int64]],
    compute: config.Compute,
    advance: Advance | None = None,
) -> ExtractedFeatures:
    """Extract the features of several sets of images, no batch across two; see `extract_features`."""
    features = [extract_features(network, archive, part, compute, advance) for part in parts]
    # A large dataset has one split, whose features are not copied.
    return ExtractedFeatures(
        archive, np.concatenate(parts), features[0] if len(parts) == 1 else torch.cat(features)
    )


def score_split(
    extracted: ExtractedFeatures, split: int, scoring: Scoring, advance: Advance | None = None
) -> Ranking:
    """Score one split of an archive.

    Parameters
    ----------
    extracted
        Features of the images that `images_to_score` names, or more.
    split
        Number of the split.
    scoring
        How.
    advance
        Told of the queries just ranked.
    """
    archive = extracted.archive
    queries = extracted.of(archive.split("query", split))
    if scoring.multi_query:
        queries = queries.clone()
        for query, images in enumerate(multi_query_images(archive, split)):
            if len(images):
                queries[query] = F.normalize(extracted.of(images).double().mean(0), dim=0)
    gallery = extracted.of(archive.split("gallery", split))
    return _rank(queries, gallery, archive, split, scoring, advance)


def _rank(
    queries: Tensor,
    gallery: Tensor,
    archive: DatasetArchive,
    split: int,
    scoring: Scoring,
    advance: Advance | None = None,
) -> Ranking:
    query_images, gallery_images = archive.split("query", split), archive.split("gallery", split)
    return evaluate_ranking(
        queries,
        archive.pids[query_images],
        archive.camids[query_images],
        gallery,
        archive.pids[gallery_images],
        archive.camids[gallery_images],
        protocol=scoring.protocol,
        seed=scoring.seed,
        advance=advance,
        distances=scoring.distances,
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample deviation (n - 1) of a score over splits; the deviation of one value is NaN."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation
