"""Re-ranking by k-reciprocal neighbours: images that are among each other's nearest likely show one person.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. No
labels are used. Where the paper leaves something open, or the code that its authors published, from which the
known figures come, differs from it, the code is followed:

* the N images are queries and gallery together, and the first of an image's neighbours is the image itself,
  so that its k nearest are a list of k + 1;
* d(p, g) is the squared Euclidean distance of features of length 1, divided by p's largest to any image;
* a neighbour's k1/2-reciprocal set joins if *more* than two thirds of it are in the k1-reciprocal set (paper:
  two thirds or more); k1/2 is rounded, halves to even;
* an image's weights exp(-d) are divided by their sum.

Neighbours are exact: distances are those of `fedreid_mpi.evaluation.distances`, and equal ones rank by lower
index, queries before the gallery. No N x N matrix is ever held: neighbours are found for a block of images at
a time, and the weights are a sparse matrix with some tens of entries a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from fedreid_mpi.evaluation import ranking
from fedreid_mpi.evaluation.distances import STEPS, Rows, compare
from fedreid_mpi.records import Advance

_ENCODED = 1024
"""Images encoded at a time."""


@dataclass(frozen=True, slots=True)
class Reranking:
    """Distances after re-ranking; a `fedreid_mpi.evaluation.ranking.Distances`.

    Attributes
    ----------
    k1
        Number of neighbours among which reciprocal ones are looked for.
    k2
        Number of nearest images, itself the first, over which an image's weights are averaged; 1 for none.
    weight
        Of the original distance in the final one: the paper's lambda. The Jaccard distance has the rest.
    advance
        Called with the number of images, of all N, whose neighbours were just found.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    advance: Advance | None = None

    def __post_init__(self) -> None:
        """Refuse settings without a meaning."""
        if not 1 <= self.k2 <= self.k1:
            raise ValueError(f"k1 = {self.k1}, k2 = {self.k2}, expected k1 >= k2 >= 1")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"lambda = {self.weight}, expected 0 to 1")

    def __call__(self, query: Rows, gallery: Rows) -> Iterator[torch.Tensor]:
        """Yield (1 - lambda) times the Jaccard distance plus lambda times d, rounded to whole steps."""
        images = _Both(query, gallery)
        nearest, farthest = _neighbours(images, min(self.k1 + 1, len(images)), self.advance)
        weights = _average(_encode(images, nearest, farthest, self.k1), nearest[:, : self.k2])
        of_queries, of_gallery = weights[: len(query)], weights[len(query) :].tocsc()
        del weights, nearest
        image = 0
        for block in ranking.cosine_distances(query, gallery):
            for distances in block:
                shared = torch.from_numpy(_overlap(of_queries, image, of_gallery)).to(block.device)
                jaccard = 1 - shared / (2 - shared)
                original = _normalised(distances, farthest[image])
                final = (1 - self.weight) * jaccard + self.weight * original
                distances.copy_(final.mul_(STEPS).round_())
                image += 1
            yield block


@dataclass(frozen=True, slots=True)
class _Both:
    """The N images: queries first, then the gallery."""

    query: Rows
    gallery: Rows

    def __len__(self) -> int:
        return len(self.query) + len(self.gallery)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield ranges of images and their distances to all N."""
        block = ranking.new_block(self.gallery, len(self))
        first = 0
        for side in (self.query, self.gallery):
            for start in range(0, len(side), len(block)):
                units = side.unit(slice(start, start + len(block)))
                rows = slice(first + start, first + start + len(units))
                yield rows, compare(units, self.query, self.gallery, out=block)
            first += len(side)

    def unit(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of some images scaled to length 1."""
        is_query = images < len(self.query)
        units = self.query.unit(images[:0]).new_empty(len(images), self.query.values.shape[1])
        units[is_query] = self.query.unit(images[is_query])
        units[~is_query] = self.gallery.unit(images[~is_query] - len(self.query))
        return units


def _neighbours(images: _Both, count: int, advance: Advance | None) -> tuple[NDArray[np.int32], torch.Tensor]:
    """Find each image's nearest, itself the first, (N, count), and its largest distance in steps, (N,)."""
    nearest = np.empty((len(images), count), np.int32)
    farthest = images.query.lengths.new_empty(len(images))
    for rows, block in images.blocks():
        farthest[rows] = block.amax(1)
        itself = torch.arange(rows.start, rows.stop, device=block.device)
        block.scatter_(1, itself[:, None], -torch.inf)
        nearest[rows] = _lowest(block, count).cpu().numpy()
        if advance is not None:
            advance(len(block))
    return nearest, farthest


def _lowest(block: torch.Tensor, count: int) -> torch.Tensor:
    """Return the columns of each row's lowest values, (rows, count), in order; equal values by column."""
    values, columns = block.topk(min(count + 1, block.shape[1]), largest=False)
    chosen = columns[:, :count].sort(1).values
    chosen = chosen.gather(1, block.gather(1, chosen).sort(dim=1, stable=True).indices)
    # Which of several equal values `topk` takes is not defined: where it had to choose, sort the row.
    unsure = values[:, count - 1] == values[:, -1]
    chosen[unsure] = block[unsure].sort(dim=1, stable=True).indices[:, :count]
    return chosen


def _normalised(distances: torch.Tensor, farthest: torch.Tensor) -> torch.Tensor:
    """Turn distances in steps into squared Euclidean ones as shares of the largest; 0 if that is 0."""
    return (distances + STEPS) / (farthest + STEPS).clamp(min=1)  # both are half the square, in steps


def _encode(images: _Both, nearest: NDArray[np.int32], farthest: torch.Tensor, k1: int) -> sparse.csr_array:
    """Return the weights of every image's expanded k-reciprocal set: sparse (N, N), rows that sum to 1."""
    half = nearest[:, : round(k1 / 2) + 1]
    in_full, in_half = _reciprocal(nearest), _reciprocal(half)
    values, columns, counts = [], [], []
    for start in range(0, len(nearest), _ENCODED):
        rows = slice(start, start + _ENCODED)
        row, column = _expanded(nearest[rows], in_full[rows], half, in_half)
        distances = _pair_distances(images, row + start, column, farthest)
        weights, sizes = np.exp(-distances), np.bincount(row, minlength=len(nearest[rows]))
        values.append(weights / np.bincount(row, weights=weights)[row])
        columns.append(column.astype(np.int32))
        counts.append(sizes)
    ends = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return sparse.csr_array(
        (np.concatenate(values), np.concatenate(columns), ends), shape=(len(nearest), len(nearest))
    )


def _reciprocal(nearest: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return for each image and each of its neighbours whether it is among that one's neighbours too."""
    mutual = np.empty(nearest.shape, bool)
    for start in range(0, len(nearest), _ENCODED):
        rows = slice(start, start + _ENCODED)
        images = np.arange(len(nearest))[rows, None, None]
        mutual[rows] = (nearest[nearest[rows]] == images).any(2)
    return mutual


def _expanded(
    nearest: NDArray[np.int32],
    in_full: NDArray[np.bool_],
    half: NDArray[np.int32],
    in_half: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Expand the k1-reciprocal sets of n images, the paper's R*.

    Parameters
    ----------
    nearest, in_full
        Neighbours of these images and whether they are reciprocal, shape (n, k1 + 1).
    half, in_half
        The same of all images with k1/2, shape (N, k1/2 + 1).

    Returns
    -------
    tuple of ndarray
        Row and member of each pair, sorted by row, then member.
    """
    members = np.where(in_full, nearest, -1)
    candidates = np.where(in_half[nearest] & in_full[:, :, None], half[nearest], -2)
    found = np.zeros(candidates.shape, bool)
    for member in members.T:
        found |= candidates == member[:, None, None]
    joins = 3 * found.sum(2) > 2 * (candidates >= 0).sum(2)
    joined = np.where(joins[:, :, None], candidates, -1).reshape(len(nearest), -1)
    everyone = np.sort(np.hstack([members, joined]), axis=1)
    is_new = (everyone >= 0) & (np.diff(everyone, axis=1, prepend=-1) > 0)
    return np.nonzero(is_new)[0], everyone[is_new].astype(np.int64)


def _pair_distances(
    images: _Both, row: NDArray[np.int64], column: NDArray[np.int64], farthest: torch.Tensor
) -> NDArray[np.float64]:
    """Return d of some pairs of images."""
    device = farthest.device
    result = np.empty(len(row))
    size = max(1, ranking.BLOCK_ELEMENTS // (4 * images.query.values.shape[1]))
    for start in range(0, len(row), size):
        pairs = slice(start, start + size)
        first, second = (torch.from_numpy(side[pairs]).to(device) for side in (row, column))
        steps = (images.unit(first) * images.unit(second)).sum(1).mul_(-STEPS).round_()
        result[pairs] = _normalised(steps, farthest[first]).cpu().numpy()
    return result


def _average(weights: sparse.csr_array, nearest: NDArray[np.int32]) -> sparse.csr_array:
    """Give every image the mean of its nearest images' weights: the paper's local query expansion."""
    count, k2 = nearest.shape
    if k2 == 1:
        return weights
    ends = np.arange(0, nearest.size + 1, k2)
    share = sparse.csr_array((np.full(nearest.size, 1 / k2), nearest.ravel(), ends), shape=(count, count))
    return share @ weights


def _overlap(queries: sparse.csr_array, query: int, gallery: sparse.csc_array) -> NDArray[np.float64]:
    """Sum the smaller of the weights of one query and each gallery image: shape (G,)."""
    own = slice(queries.indptr[query], queries.indptr[query + 1])
    columns, weights = queries.indices[own], queries.data[own]
    starts = gallery.indptr[columns]
    counts = gallery.indptr[columns + 1] - starts
    # The ranges starts[i] : starts[i] + counts[i], one after the other.
    entries = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    smaller = np.minimum(np.repeat(weights, counts), gallery.data[entries])
    sums = np.bincount(gallery.indices[entries], weights=smaller, minlength=gallery.shape[0])
    return sums.astype(np.float64, copy=False)  # without any entries they are integers
