"""The weighted mean of models, in an arithmetic that gives the same bits on any number of ranks."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 1 << 15
"""Elements averaged at a time: two float64 tiles of 256 KiB stay in the second-level cache."""


def weighted_average(
    updates: Sequence[Any],
    weights: Sequence[float],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Average equally shaped updates: FedAvg's server step (McMahan et al., AISTATS 2017, algorithm 1).

    The arithmetic, for each element: weights are rounded to float32; products and their sum, in the given
    order and starting from the first product, are float64; the sum is divided once by the float64 sum of the
    rounded weights; the quotient is rounded once to float32. A product of two float32 values is exact in
    float64, so a lone update comes back bit for bit, negative zeros and subnormals included.

    Elements do not mix: averaging chunk by chunk gives the same bits as averaging whole models.

    Parameters
    ----------
    updates
        float32 arrays, or what NumPy views as such (CPU tensors). Those of weight 0 are skipped.
    weights
        One each, finite and not negative.
    out
        C-contiguous float32 array that receives the average; may be one of the updates.

    Returns
    -------
    ndarray
        The average, float32, of the updates' shape: ``out`` where it was given.

    Raises
    ------
    ValueError
        If there are no updates, their number is not that of the weights, a weight is negative or not finite,
        all weights are 0, or an array has another shape or type than expected.
    """
    arrays = [np.asarray(update) for update in updates]
    if not arrays or len(arrays) != len(weights):
        raise ValueError(
            f"{len(arrays)} updates and {len(weights)} weights, expected as many of each, at least one"
        )
    shape = arrays[0].shape
    out = np.empty(shape, np.float32) if out is None else out
    for name, array in [*((f"update {i}", array) for i, array in enumerate(arrays)), ("out", out)]:
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}, expected float32 of shape {shape}"
            )
    if not out.flags.c_contiguous:
        raise ValueError("out is not C-contiguous")
    rounded = _rounded(weights)
    total = math.fsum(rounded)
    if total == 0:
        raise ValueError("all weights are 0")

    terms = [(array.reshape(-1), weight) for array, weight in zip(arrays, rounded, strict=True) if weight > 0]
    target = out.reshape(-1)
    sums, products = np.empty((2, min(TILE, target.size)), np.float64)
    for start in range(0, target.size, TILE):
        tile = slice(start, start + TILE)
        length = len(target[tile])
        (first, weight), *others = terms
        np.multiply(first[tile], weight, out=sums[:length], dtype=np.float64)
        for update, weight in others:
            np.multiply(update[tile], weight, out=products[:length], dtype=np.float64)
            sums[:length] += products[:length]
        np.divide(sums[:length], total, out=target[tile], dtype=np.float64, casting="same_kind")
    return out


def _rounded(weights: Sequence[float]) -> list[float]:
    """Round the weights to float32 and refuse those that are no weights."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(weights, dtype=np.float64).astype(np.float32)
    if not np.isfinite(rounded).all() or (rounded < 0).any():
        raise ValueError(f"weights {list(weights)}, expected finite values that are not negative")
    return [float(weight) for weight in rounded]
