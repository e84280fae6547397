"""Cosine distances that do not depend on the machine's arithmetic, in bounded memory.

A distance is minus the cosine similarity of two features. It is summed in float64 and rounded to a whole
number of steps of 2**-30, about a million times the error of the sum, so that the order in which a BLAS
library adds does not show. Equal features are at exactly equal distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from fedreid_mpi.wording import counted

STEPS = 1 << 30
"""Steps in a distance of 1: distances are whole numbers of steps."""

_PIECE_ELEMENTS = 1 << 18  # 2 MiB: stays in the cache

Features = NDArray[np.floating[Any]] | torch.Tensor
"""Features as callers have them: shape (N, D), any floating-point type, on any device."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of N images on the device, used as if scaled to length 1.

    They stay as the caller has them; float64 copies are made of the few that are needed at a time.

    Attributes
    ----------
    values
        Shape (N, D), any type of number.
    lengths
        Shape (N, 1), float64; 1 for zero vectors.
    """

    values: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, name: str, features: Features, device: torch.device) -> Self:
        """Check the features of one side of the comparison and bring them to the device."""
        if isinstance(features, torch.Tensor):
            values = features.detach().to(device)
        else:
            values = torch.from_numpy(np.require(features, requirements=["C", "W"])).to(device)
        if values.ndim != 2 or values.numel() == 0:
            raise ValueError(
                f"{name} features have shape {tuple(values.shape)}, expected (images, dimensions)"
            )
        # Made first: small blocks of memory between the pieces' would keep those from being used again.
        lengths = values.new_empty(len(values), 1, dtype=torch.float64)
        for piece in _pieces(values):
            torch.linalg.vector_norm(values[piece].double(), dim=1, keepdim=True, out=lengths[piece])
        broken = torch.nonzero(~torch.isfinite(lengths[:, 0]))
        if len(broken):
            raise ValueError(
                f"{name} features are not finite in {counted(len(broken), 'row')}, first {int(broken[0])}"
            )
        return cls(values, lengths.masked_fill_(lengths == 0, 1.0))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.values)

    def unit(self, images: slice | torch.Tensor) -> torch.Tensor:
        """Return some rows scaled to length 1, float64."""
        return self.values[images].double() / self.lengths[images]


def compare(units: torch.Tensor, *sides: Rows, out: torch.Tensor) -> torch.Tensor:
    """Compare some images with all images of one or more sides.

    Parameters
    ----------
    units
        Features of length 1, shape (n, D), float64.
    sides
        With N images in all.
    out
        Where the distances go, shape (at least n, N), float64.

    Returns
    -------
    Tensor
        The first n rows of ``out``: minus the cosine similarities in whole steps.
    """
    units = units * -STEPS  # exact, a power of two; the sign puts the most similar first
    block = out[: len(units)]
    first = 0
    for side in sides:
        for piece in _pieces(side.values):
            torch.mm(units, side.unit(piece).T, out=block[:, first + piece.start : first + piece.stop])
        first += len(side)
    return block.round_()


def _pieces(values: torch.Tensor) -> Iterator[slice]:
    """Cut rows into as many as become float64 at a time."""
    size = max(1, _PIECE_ELEMENTS // values.shape[1])
    for start in range(0, len(values), size):
        yield slice(start, min(start + size, len(values)))
