"""How much each client's model counts in the average."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fedreid_mpi.records import ClientReport, Weighting


def sample_weights(images: Mapping[int, int]) -> dict[int, float]:
    """Weigh each client by its number of training images n_k, as FedPav does; in client-id order.

    Source: Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark
    Analysis", ACM MM 2020.
    """
    return {client: float(images[client]) for client in sorted(images)}


def uniform_weights(clients: Iterable[int]) -> dict[int, float]:
    """Weigh all clients alike; in client-id order."""
    return dict.fromkeys(sorted(clients), 1.0)


def cosine_distance_weights(distances: Mapping[int, float]) -> dict[int, float]:
    """Weigh each client by how far its training moved it; all alike where none moved. In client-id order.

    Source: Zhuang et al., ACM TOMM 19(1s), 2023, cosine distance weight.
    """
    if not any(distances.values()):
        return uniform_weights(distances)
    return {client: float(distances[client]) for client in sorted(distances)}


def cosine_distance_weight(before: ArrayLike, after: ArrayLike) -> float:
    """Measure how far a client's training moved its model: the mean of 1 - cos over a batch of logits.

    Parameters
    ----------
    before, after
        Logits of the same images before and after training, shape (images, identities).

    Returns
    -------
    float
        In [0, 2]. Rows that are equal are at distance 0, even if they are zero; a zero row is at distance 1
        from any other.

    Raises
    ------
    ValueError
        If the shapes differ or are not those of at least one image's logits.
    """
    p, q = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if p.shape != q.shape or p.ndim != 2 or not p.size:
        raise ValueError(
            f"logits have shapes {p.shape} and {q.shape}, expected one shape (images, identities)"
        )
    dots, norms = (p * q).sum(1), (p * p).sum(1) * (q * q).sum(1)
    # For equal rows this is sqrt(x * x) = x, so that their distance is exactly 0.
    cosines = np.divide(dots, np.sqrt(norms), out=np.zeros(len(p)), where=norms > 0)
    cosines[(p == q).all(1)] = 1.0
    return float(np.clip(1 - cosines, 0, 2).mean())


def weigh(reports: Sequence[ClientReport], weights: Weighting) -> dict[int, float]:
    """Weigh the clients that reported; in client-id order.

    Parameters
    ----------
    reports
        Of the clients whose models are to be averaged.
    weights
        What a client's weight is.
    """
    return WEIGHTINGS[weights](reports)


WEIGHTINGS: dict[Weighting, Callable[[Sequence[ClientReport]], dict[int, float]]] = {
    "samples": lambda reports: sample_weights({report.client: report.images for report in reports}),
    "uniform": lambda reports: uniform_weights(report.client for report in reports),
    "cosine-distance": lambda reports: cosine_distance_weights(
        {report.client: report.cosine_distance or 0.0 for report in reports}
    ),
}
"""Name in the configuration to what it makes of the round's reports."""
