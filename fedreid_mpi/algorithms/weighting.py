"""How much each client's model counts in the average."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedreid_mpi.records import ClientReport, Weighting

LEAST_DISTANCE = 2.0**-12
"""Floor of the cosine distance weight: below it the model would be lost in a mean of integers (`averaging`).
It also gives all clients the same weight if training moved none of them."""


@dataclass(frozen=True, slots=True)
class WeightRule:
    """A client's weight in the average, and an upper bound of it.

    Attributes
    ----------
    weight
        From a client's report to its weight.
    reference
        From the participants' numbers of training images to a bound that no weight of the round exceeds. All
        ranks know it before anyone has trained.
    """

    weight: Callable[[ClientReport], float]
    reference: Callable[[Collection[int]], float]


def cosine_distance(before: ArrayLike, after: ArrayLike) -> float:
    """Measure how far a client's training moved its model: the mean of 1 - cos over a batch of logits.

    Source: Zhuang et al., ACM TOMM 19(1s), 2023, cosine distance weight.

    Parameters
    ----------
    before, after
        Logits of the same images before and after training, shape (images, identities).

    Returns
    -------
    float
        In [0, 2]. Equal rows have distance 0, even if they are zero; a zero row has distance 1 from any
        other.

    Raises
    ------
    ValueError
        If the shapes differ, or are not those of the logits of at least one image.
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


def weigh(reports: Sequence[ClientReport], rule: WeightRule) -> dict[int, float]:
    """Return the weight of each client that reported, in client-id order.

    Parameters
    ----------
    reports
        Of the clients whose models are to be averaged.
    rule
        Gives the weights.

    Returns
    -------
    dict
        Client id to weight.
    """
    return {
        report.client: rule.weight(report) for report in sorted(reports, key=lambda report: report.client)
    }


WEIGHTINGS: Mapping[Weighting, WeightRule] = {
    # n_k, FedPav's weight (Zhuang et al., ACM MM 2020).
    "samples": WeightRule(lambda report: float(report.images), lambda images: float(max(images))),
    "uniform": WeightRule(lambda report: 1.0, lambda images: 1.0),
    "cosine-distance": WeightRule(
        lambda report: max(report.cosine_distance or 0.0, LEAST_DISTANCE), lambda images: 2.0
    ),
}
"""Value of ``aggregation.weights`` to its rule."""
