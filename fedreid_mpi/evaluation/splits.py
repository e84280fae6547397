"""The test splits of an archive: which images they need, and how well features rank their galleries."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi.data.archive import DatasetArchive, SplitRole
from fedreid_mpi.errors import DataError
from fedreid_mpi.evaluation.features import ExtractedFeatures, query_then_gallery
from fedreid_mpi.evaluation.ranking import Distances, Ranking, cosine_distances, evaluate_ranking
from fedreid_mpi.records import Advance, EvaluationProtocol, Scores, UnseenDataset


def rank_gallery(
    features: Tensor,
    archive: DatasetArchive,
    protocol: EvaluationProtocol,
    seed: int,
    split: int = 0,
    advance: Advance | None = None,
) -> Ranking:
    """Score the features of an archive's test images.

    Parameters
    ----------
    features
        Shape (queries + gallery, width), in the order of `query_then_gallery`.
    archive
        Gives person and camera of each image.
    protocol
        See `evaluate_ranking`.
    seed
        Of the protocol's random draws.
    split
        Number of the split.
    advance
        Told of the queries just ranked.
    """
    queries = len(archive.split("query", split))
    return _rank(features[:queries], features[queries:], archive, split, Scoring(protocol, seed), advance)


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


def require_tests(archive: DatasetArchive) -> None:
    """Refuse an archive of which not every split can be scored.

    Raises
    ------
    DataError
        A split has no queries, or no gallery.
    """
    for split in range(archive.splits):
        if not (archive.has("query", split) and archive.has("gallery", split)):
            raise DataError(
                f"{archive.path}: split {split} has images for {', '.join(archive.roles(split))}, expected "
                "query and gallery, on which data.unseen is scored"
            )


def all_tests(archive: DatasetArchive) -> NDArray[np.int64]:
    """Return the indices of the images that scoring all splits of an archive needs, each once."""
    return np.concatenate(images_to_score(archive, range(archive.splits)))


def describe_unseen(archives: Sequence[DatasetArchive]) -> tuple[UnseenDataset, ...]:
    """Describe what the results need to know of datasets that nobody trains on."""
    return tuple(
        UnseenDataset(id, archive.name, len(all_tests(archive)), archive.splits)
        for id, archive in enumerate(archives)
    )


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Average scores over splits; the queries of all splits are counted together."""
    return Scores(
        cmc=np.mean([each.cmc for each in scores], axis=0),
        mean_ap=float(np.mean([each.mean_ap for each in scores])),
        mean_inp=float(np.mean([each.mean_inp for each in scores])),
        queries=sum(each.queries for each in scores),
        unmatched=sum(each.unmatched for each in scores),
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample deviation (n - 1) of a score over splits; the deviation of one value is NaN."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation
