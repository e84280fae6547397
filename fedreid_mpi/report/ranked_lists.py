"""Ranked lists: pictures of queries with the gallery images that a model finds most similar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.evaluation import ExtractedFeatures
from fedreid_mpi.evaluation.distances import STEPS, Rows, compare
from fedreid_mpi.evaluation.ranking import Ranking
from fedreid_mpi.report.tiles import Tile, draw_tiles
from fedreid_mpi.wording import counted

# Okabe and Ito's bluish green and vermillion, safe for colour-blind readers; a mark and dashes repeat them.
_RIGHT, _WRONG = ("#009e73", "-", "✓"), ("#d55e00", (0, (3, 1.5)), "✗")


@dataclass(frozen=True, slots=True)
class RankedList:
    """The start of one query's ranked gallery.

    Attributes
    ----------
    query
        Position among the split's queries.
    image
        Index of the query's image in the archive.
    gallery
        Indices of the most similar gallery images, the most similar first; junk is left out.
    similarities
        Their cosine similarities, shape (images,), float64.
    right
        Whether each shows the query's person, shape (images,), bool.
    matches
        Number of true matches in the whole gallery.
    first
        Rank of the first of them in the whole gallery, from 1; 0 where there is none.
    ranked
        Number of images that are ranked: the gallery without junk.
    average_precision
        As the evaluation has it; NaN for a query without a match.
    """

    query: int
    image: int
    gallery: NDArray[np.int64]
    similarities: NDArray[np.float64]
    right: NDArray[np.bool_]
    matches: int
    first: int
    ranked: int
    average_precision: float


def rank_lists(
    extracted: ExtractedFeatures, split: int, queries: Sequence[int], top: int, ranking: Ranking
) -> list[RankedList]:
    """Rank the gallery for some queries, as the evaluation does.

    The same distances, in whole steps; equal ones rank by gallery index; images of person -1 and those of the
    query's person by the query's camera are left out.

    Parameters
    ----------
    extracted
        Features of the split's test images.
    split
        Number of the split.
    queries
        Positions among the split's queries.
    top
        Length of a list; a smaller gallery gives a shorter one.
    ranking
        Scores of the split by protocol ``standard``, for average precision and first match.
    """
    archive = extracted.archive
    query_images, gallery = archive.split("query", split), archive.split("gallery", split)
    chosen = query_images[np.asarray(queries, np.int64)]
    device = extracted.features.device
    rows = Rows.of("gallery", extracted.of(gallery), device)
    units = Rows.of("query", extracted.of(chosen), device).unit(slice(None))
    pids, camids = archive.pids[gallery], archive.camids[gallery]
    block = torch.empty(1, len(rows), dtype=torch.float64, device=device)
    lists = []
    for query, image, unit in zip(queries, chosen.tolist(), units, strict=True):
        distances = compare(unit[None], rows, out=block)[0].cpu().numpy()
        own = pids == archive.pids[image]
        junk = (pids == -1) | (own & (camids == archive.camids[image]))
        order = np.argsort(np.where(junk, np.inf, distances), kind="stable")[: min(top, (~junk).sum())]
        lists.append(
            RankedList(
                query=query,
                image=image,
                gallery=gallery[order],
                similarities=-distances[order] / STEPS,
                right=own[order],
                matches=int((own & ~junk).sum()),
                first=int(ranking.first_match[query]),
                ranked=int((~junk).sum()),
                average_precision=float(ranking.average_precision[query]),
            )
        )
    return lists


def worst_queries(ranking: Ranking, count: int) -> list[int]:
    """Return the queries of the least average precision, the worst first; those without a match do not count.

    Equal ones rank by position.
    """
    precision = ranking.average_precision
    order = np.argsort(np.where(np.isnan(precision), np.inf, precision), kind="stable")
    matched = int(np.isfinite(precision).sum())
    return [int(query) for query in order[: min(count, matched)]]


def draw_ranked_lists(archive: DatasetArchive, lists: Sequence[RankedList], top: int, title: str) -> Figure:
    """Draw one row per query: its image, then its list, right images and wrong ones framed and marked.

    Parameters
    ----------
    archive
        Gives pictures, cameras and paths.
    lists
        At least one.
    top
        Columns beside the query's.
    title
        Above all.
    """
    return draw_tiles([_row(archive, each) for each in lists], top, title)


def _row(archive: DatasetArchive, each: RankedList) -> list[Tile]:
    tiles = [Tile(archive.images[each.image], _describe(each, archive))]
    for image, similarity, right in zip(each.gallery, each.similarities, each.right, strict=True):
        words = f"{similarity:.3f}\ncamera {archive.camids[image]}"
        tiles.append(Tile(archive.images[image], words, *(_RIGHT if right else _WRONG)))
    return tiles


def _describe(each: RankedList, archive: DatasetArchive) -> str:
    """Describe a query and its result in two or three lines."""
    lines = [f"no. {each.query}, camera {archive.camids[each.image]}"]
    if each.matches == 0:
        return "\n".join([*lines, "no match"])
    matches = counted(each.matches, "match", "matches")
    if not math.isnan(each.average_precision):
        matches = f"AP {100 * each.average_precision:.0f} %, {matches}"
    return "\n".join([*lines, matches, f"first at rank {each.first:,}"])
