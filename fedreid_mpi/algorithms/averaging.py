"""Weighted means of float vectors as sums of integers, which know no order.

Every average of a run (models, BatchNorm statistics, teacher features) is such a mean. Client k contributes
``round(q_k · θ_k · 2^S)``, a 64-bit integer for each element, with its share q_k = w_k / w_ref in (0, 1].
The sum of integers is the same in whatever order they are added, on one rank or over many; it is divided
once, by Σ q_k · 2^S, and rounded once to float32. So the mean has the same bits for any number of ranks and
any placement.

The grid's resolution 2^-S follows from the room in 64 bits: values may be as large as 2^8 (statistics:
2^20), and as many of them as clients can take part in a round are added without overflow. The error of the
mean is at most K · 2^-(S+1) / Σ q_k, for K clients, beside the last rounding: with nine clients S is 50,
with ten thousand 40.

Fixed point makes sums reproducible (Demmel and Nguyen, "Parallel Reproducible Summation", IEEE Transactions
on Computers 64(7), 2015, have the general case) and is what secure aggregation adds (Bonawitz et al., CCS
2017).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SumRole = Literal["parameters", "features", "statistics", "gradients"]
"""What is summed: it decides how large its values may be."""

SUM_BITS = 62
"""A sum stays below 2^62: half of what 64 bits hold, so that no rounding can reach their end."""

RANGE_BITS: Mapping[SumRole, int] = {
    "parameters": 8,
    "features": 8,
    "statistics": 20,
    "gradients": 20,
}
"""Values are smaller than two to this power; a larger one counts as diverged. Variances and gradients can be
large."""

TILE = 1 << 16
"""Elements that a CPU turns into integers at a time: they stay in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that stand for the values of one role.

    Attributes
    ----------
    bits
        S: a value is a multiple of 2^-S.
    limit
        Values are smaller than this in size.
    """

    bits: int
    limit: float


def grid_of(role: SumRole, participants: int) -> Grid:
    """Return the grid on which as many values are summed as a round can have participants.

    Raises
    ------
    ValueError
        If there are no participants, or so many that nothing is left for the values.
    """
    if not 1 <= participants <= 1 << 20:
        raise ValueError(f"{participants} participants, expected 1 to {1 << 20}")
    room = SUM_BITS - (participants - 1).bit_length()
    return Grid(room - RANGE_BITS[role], float(1 << RANGE_BITS[role]))


def share_of(weight: float, reference: float) -> float:
    """Return a client's share q = weight / reference, rounded to float32.

    With 24 bits its product with a float32 value is exact in float64.

    Parameters
    ----------
    weight
        Finite, at most ``reference``, and not negative.
    reference
        The largest weight that a client of the round can have; known before anyone has trained.

    Raises
    ------
    ValueError
        If the weight is none.
    """
    if not 0 <= weight <= reference or not math.isfinite(reference) or reference <= 0:
        raise ValueError(f"weight {weight}, expected 0 to {reference}")
    return float(np.float32(weight / reference))


def fits(values: Tensor, grid: Grid) -> bool:
    """Tell whether all values are finite and on the grid; the one rule for what counts as diverged."""
    if not len(values):
        return True
    least, most = values.aminmax()
    return bool(least > -grid.limit) and bool(most < grid.limit)  # a NaN is neither


@torch.no_grad()
def add_contribution(total: Tensor, values: Tensor, share: float, grid: Grid, first: bool = False) -> None:
    """Add one client's contribution to a sum, in place.

    Parameters
    ----------
    total
        Shape (elements,), int64.
    values
        Shape (elements,), float32, on the same device; `fits` must hold.
    share
        Of the client; see `share_of`.
    grid
        The same for all that is added.
    first
        Whether the sum begins with this contribution, whatever was in its memory.
    """
    scale = math.ldexp(share, grid.bits)
    step = TILE if values.device.type == "cpu" else max(len(values), 1)
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        contribution = values[part].double().mul_(scale).round_()
        if first:
            total[part].copy_(contribution)
        else:
            total[part].add_(contribution.long())


def mean_of(total: NDArray[np.int64], shares: float, grid: Grid) -> NDArray[np.float32]:
    """Divide a sum of contributions by the sum of their shares.

    Parameters
    ----------
    total
        Shape (elements,), int64.
    shares
        Σ q_k, summed without error (`math.fsum`), greater than 0.
    grid
        On which the sum was taken.

    Returns
    -------
    ndarray
        Shape (elements,), float32.
    """
    divisor, mean = math.ldexp(shares, grid.bits), np.empty(len(total), np.float32)
    for start in range(0, len(total), TILE):
        part = slice(start, start + TILE)
        mean[part] = total[part] / divisor
    return mean


def weighted_average(updates: Sequence[Any], weights: Sequence[float]) -> NDArray[np.float32]:
    """Average parameters: FedAvg's server step (McMahan et al., AISTATS 2017, algorithm 1), all in one.

    Parameters
    ----------
    updates
        float32 arrays of one shape, or what NumPy views as such (CPU tensors), all smaller than 2^8.
    weights
        One each, finite and not negative. What has weight 0 is left out.

    Returns
    -------
    ndarray
        The average, float32, of the updates' shape. A lone update comes back unchanged.

    Raises
    ------
    ValueError
        If there are no updates, their number is not that of the weights, a weight is negative or not finite,
        all weights are 0, or an array has another shape, type or range than expected.
    """
    arrays = [np.ascontiguousarray(update) for update in updates]
    if not arrays or len(arrays) != len(weights):
        raise ValueError(
            f"{len(arrays)} updates and {len(weights)} weights, expected as many of each, at least one"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights {list(weights)}, expected finite values that are not negative")
    if not any(weights):
        raise ValueError("all weights are 0")
    grid, shape = grid_of("parameters", len(arrays)), arrays[0].shape
    for number, array in enumerate(arrays):
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(
                f"update {number} is {array.dtype} of shape {array.shape}, expected float32 of shape {shape}"
            )
    vectors = [torch.from_numpy(array.reshape(-1)) for array in arrays]
    for number, vector in enumerate(vectors):
        if not fits(vector, grid):
            raise ValueError(f"update {number} has values that are not finite, or {grid.limit:g} and larger")
    counted = [(vector, weight) for vector, weight in zip(vectors, weights, strict=True) if weight > 0]
    if len(counted) == 1:
        return counted[0][0].numpy().reshape(shape).copy()
    total = torch.zeros(len(vectors[0]), dtype=torch.int64)
    shares = [share_of(weight, max(weights)) for _, weight in counted]
    for (vector, _), share in zip(counted, shares, strict=True):
        add_contribution(total, vector, share, grid)
    return mean_of(total.numpy(), math.fsum(shares), grid).reshape(shape)
