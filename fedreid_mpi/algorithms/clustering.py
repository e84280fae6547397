"""FINCH: clustering by first neighbours, without a number of clusters to choose.

Sarfraz, Sharma, Stiefelhagen, Efficient Parameter-free Clustering Using First Neighbor Relations, CVPR 2019.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_ELEMENTS = 1 << 22
"""Largest number of distances in memory at a time, 32 MiB: memory is linear in the number of rows."""

Labels = NDArray[np.int64]


def finch(features: ArrayLike, max_distance: float | None = None) -> list[Labels]:
    """Cluster rows at every level of FINCH's hierarchy.

    Each row is linked to its first neighbour κ, the row at the smallest cosine distance; the clusters of the
    finest partition are the connected components (equation 1: i and j are linked if j = κ(i), i = κ(j) or
    κ(i) = κ(j), the last of which follows from the first two). Each further partition clusters the means of
    the previous clusters' rows, until one cluster is left or none merge.

    Parameters
    ----------
    features
        Shape (n, d). A zero row has distance 1 from all others. Of equally near rows, the lowest is the first
        neighbour.
    max_distance
        In the finest partition, only links shorter than this count; None: all count. Without a limit no row
        stays alone.

    Returns
    -------
    list of ndarray
        One array per partition, finest first: shape (n,), int64, the cluster of each row. Clusters are
        numbered in the order of their lowest rows.

    Raises
    ------
    ValueError
        If the features are not a finite matrix with at least one row.
    """
    rows = np.array(features, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"features have shape {rows.shape}, expected a finite matrix with at least one row")
    partitions = [_link(rows, np.inf if max_distance is None else max_distance)]
    while (clusters := int(partitions[-1].max()) + 1) > 1:
        merged = _link(_means(rows, partitions[-1], clusters), np.inf)
        if merged.max() + 1 == clusters:
            break
        partitions.append(merged[partitions[-1]])
    return partitions


def cluster_clients(
    features: Mapping[int, ArrayLike], partition: int = 0, max_distance: float | None = None
) -> dict[int, int]:
    """Cluster clients by their features.

    Parameters
    ----------
    features
        Client id to feature, shape (d,).
    partition
        Level of the hierarchy, 0 being the finest; a level beyond the last one means the last.
    max_distance
        See `finch`.

    Returns
    -------
    dict
        Client id to cluster, in client-id order.
    """
    clients = sorted(features)
    partitions = finch(np.stack([np.asarray(features[client]) for client in clients]), max_distance)
    labels = partitions[min(partition, len(partitions) - 1)]
    return dict(zip(clients, labels.tolist(), strict=True))


def feature_distances(features: Mapping[int, ArrayLike], clients: int) -> NDArray[np.float32]:
    """Return the cosine distances between the features of all pairs of clients, for the record.

    Parameters
    ----------
    features
        Client id to feature, shape (d,).
    clients
        Number of clients.

    Returns
    -------
    ndarray
        Shape (clients, clients), float32; NaN in the rows and columns of clients without a feature.
    """
    distances = np.full((clients, clients), np.nan, np.float32)
    if known := sorted(features):
        directions = _directions(np.stack([np.asarray(features[client], np.float64) for client in known]))
        distances[np.ix_(known, known)] = _rounded(1 - directions @ directions.T)
    return distances


def _directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to length 1; zero rows stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: NDArray[np.float64] = rows / np.where(lengths > 0, lengths, 1)
    return directions


def _link(rows: NDArray[np.float64], max_distance: float) -> Labels:
    """Link every row to its first neighbour and label the connected components."""
    neighbours, distances = _first_neighbours(rows)
    root = np.arange(len(rows))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = int(root[row])
        return row

    for row in np.flatnonzero(distances < max_distance):
        low, high = sorted((find(int(row)), find(int(neighbours[row]))))
        root[high] = low
    # The root of a component is its lowest row, so numbering the roots in order numbers the clusters.
    labels: Labels = np.unique([find(row) for row in range(len(rows))], return_inverse=True)[1]
    return labels.astype(np.int64)


def _first_neighbours(rows: NDArray[np.float64]) -> tuple[Labels, NDArray[np.float64]]:
    """Return each row's nearest other row and its distance; infinity where there is no other row."""
    directions = _directions(rows)
    neighbours = np.zeros(len(rows), np.int64)
    nearest = np.full(len(rows), np.inf)
    size = max(1, BLOCK_ELEMENTS // len(rows))
    for start in range(0, len(rows), size):
        block = _rounded(1 - directions[start : start + size] @ directions.T)
        own = np.arange(len(block))
        block[own, start + own] = np.inf
        neighbours[start : start + size] = block.argmin(axis=1)  # the first of equal ones
        nearest[start : start + size] = block.min(axis=1)
    return neighbours, nearest


def _rounded(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to 2**-40, far above the error of sums: how a BLAS library orders them then decides nothing."""
    rounded: NDArray[np.float64] = np.rint(distances * 2.0**40) / 2.0**40
    return rounded


def _means(rows: NDArray[np.float64], labels: Labels, clusters: int) -> NDArray[np.float64]:
    """Return the mean of each cluster's rows, shape (clusters, d)."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(clusters))
    sums = np.add.reduceat(rows[order], starts, axis=0)
    means: NDArray[np.float64] = sums / np.bincount(labels, minlength=clusters)[:, None]
    return means
