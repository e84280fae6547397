"""Weighted means of float vectors as sums of integers, whose order does not matter.

Every average of a run (models, BatchNorm statistics, teacher features) is such a mean. Client k, with weight
wₖ, parameters θₖ and share qₖ = wₖ / w_ref in (0, 1], contributes round(qₖ · θₖ · 2ˢ): one 64-bit integer per
element. Integers have the same sum in whatever order they are added, on one rank or on many. It is divided
once, by Σ qₖ · 2ˢ, and rounded once to float32. So the mean has the same bits for any number of ranks and any
placement.

The grid's resolution 2⁻ˢ follows from the room in 64 bits: values may be as large as 2⁸ (statistics: 2²⁰),
and those of all clients of a round must add up without overflow. With nine clients s is 50, with ten thousand
40. Beside the last rounding, the error of the mean is at most K · 2⁻⁽ˢ⁺¹⁾ / Σ qₖ for K clients.

Fixed point makes sums reproducible (the general case is in Demmel and Nguyen, "Parallel Reproducible
Summation", IEEE Transactions on Computers 64(7), 2015), and secure aggregation adds fixed-point numbers as
well (Bonawitz et al., CCS 2017).
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
"""What is summed, which decides how large its values may be."""

SUM_BITS = 62
"""A sum stays below 2⁶², half of what 64 bits hold, so that rounding cannot make it overflow."""

RANGE_BITS: Mapping[SumRole, int] = {
    "parameters": 8,
    "features": 8,
    "statistics": 20,
    "gradients": 20,
}
"""Values are smaller than two to this power; a larger one counts as diverged. Variances and gradients can be
large."""

TILE = 1 << 16
"""Elements that a CPU converts to integers at a time, so that they stay in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that represent the values of one role.

    Attributes
    ----------
    bits
        s: values are multiples of 2⁻ˢ.
    limit
        Values are smaller than this in magnitude.
    """

    bits: int
    limit: float


def grid_of(role: SumRole, participants: int) -> Grid:
    """Return the grid for summing one value per participant of a round.

    Raises
    ------
    ValueError
        If there are no participants, or so many that no bits are left for the values.
    """
    if not 1 <= participants <= 1 << 20:
        raise ValueError(f"{participants} participants, expected 1 to {1 << 20}")
    room = SUM_BITS - (participants - 1).bit_length()
    return Grid(room - RANGE_BITS[role], float(1 << RANGE_BITS[role]))


def share_of(weight: float, reference: float) -> float:
    """Return a client's share q = weight / reference, rounded to float32.

    A share then has 24 bits, so its product with a float32 value is exact in float64.

    Parameters
    ----------
    weight
        Finite, at most ``reference``, and not negative.
    reference
        Upper bound of the weights of the round, known before anyone has trained.

    Raises
    ------
    ValueError
        If the weight is out of range or the bound is not positive and finite.
    """
    if not 0 <= weight <= reference or not math.isfinite(reference) or reference <= 0:
        raise ValueError(f"weight {weight}, expected 0 to {reference}")
    return float(np.float32(weight / reference))


def fits(values: Tensor, grid: Grid) -> bool:
    """Whether all values are finite and within the grid's limit; otherwise the client counts as diverged."""
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
        The client's; see `share_of`.
    grid
        The same for all contributions.
    first
        Whether this contribution is the first: what is in `total` is then overwritten.
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
        Σ qₖ, summed without error (`math.fsum`), greater than 0.
    grid
        The grid that the sum was taken on.

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
    """Average parameters in one call: FedAvg's server step (McMahan et al., AISTATS 2017, algorithm 1).

    Parameters
    ----------
    updates
        float32 arrays of one shape, or CPU tensors, with values smaller than 2⁸ in magnitude.
    weights
        One per update, finite and not negative. Updates of weight 0 are left out.

    Returns
    -------
    ndarray
        The average, float32, of the updates' shape. A single update is returned unchanged.

    Raises
    ------
    ValueError
        If there are no updates or not as many weights, a weight is negative or not finite, all weights are 0,
        or an array's shape, type or range is not as expected.
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
