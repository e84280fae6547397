"""Painting soft-edged shapes into many images at once.

A shape is a signed distance: negative inside, in figure coordinates, whose unit is a body height. Coverage is
taken from the distance in pixels, so that edges are smooth at any image size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Always float32 in fact; NumPy's stubs call the result of ``array * 0.5`` float64."""
Rows = NDArray[np.int64]


def column(values: NDArray[np.generic]) -> Floats:
    """Turn one number per image into an array that broadcasts over its pixels: (n,) to (n, 1, 1) float32."""
    return values.astype(np.float32)[:, None, None]


def box(x: Floats, y: Floats | float, half_width: Floats | float, half_height: Floats | float) -> Floats:
    """Distance to a box about the origin, exact along its sides."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def disc(x: Floats, y: Floats, radius: float) -> Floats:
    """Distance to a disc about the origin."""
    return np.sqrt(x * x + y * y) - radius


def capsule(
    x: Floats,
    y: Floats,
    start: tuple[Floats, Floats | float],
    end: tuple[Floats, Floats | float],
    radii: tuple[Floats, Floats | float],
) -> tuple[Floats, Floats]:
    """Distance to a limb that tapers from ``start`` to ``end``, and the position along it in [0, 1]."""
    (x0, y0), (x1, y1), (r0, r1) = start, end, radii
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    across, down = x - x0 - along * dx, y - y0 - along * dy
    return np.sqrt(across * across + down * down) - (r0 + along * (r1 - r0)), along


@dataclass(frozen=True, slots=True)
class Patch:
    """A band of some of a canvas's images, to be painted on.

    Attributes
    ----------
    x, y
        Figure coordinates, shapes (k, band, width) and (k, band, 1).
    """

    canvas: "Canvas"
    band: slice
    rows: Rows | None
    x: Floats
    y: Floats

    def paint(self, distance: Floats, colour: Floats, mask: NDArray[np.bool_] | None = None) -> None:
        """Cover the inside of a shape.

        Parameters
        ----------
        distance
            Signed distance, broadcastable to (k, band, width).
        colour
            RGB, shape (3, k), or (3, k, band, width) where it varies over the shape.
        mask
            Pixels that may be painted; all, unless given.
        """
        rows = slice(None) if self.rows is None else self.rows
        coverage = np.clip(0.5 - distance / self.canvas.pixel[rows], 0, 1)
        if mask is not None:
            coverage = coverage * mask
        for plane, tone in zip(self.canvas.pixels[:, :, self.band], colour, strict=True):
            covered = plane[rows]
            covered += coverage * ((tone[:, None, None] if tone.ndim == 1 else tone) - covered)
            if self.rows is not None:  # an integer index made a copy
                plane[rows] = covered


@dataclass(frozen=True, slots=True)
class Canvas:
    """n images and the place of the figure in each.

    Attributes
    ----------
    pixels
        Shape (3, n, height, width), float32, RGB planes; about [0, 1] but not clipped. Planes come first
        since NumPy is quick over long inner axes only.
    x
        Shape (n, height, width): figure coordinate across, 0 on the figure's axis.
    y
        Shape (n, height, 1): figure coordinate down, 0 at the crown and 1 at the soles.
    pixel
        Shape (n, 1, 1): size of a pixel in figure coordinates.
    """

    pixels: Floats
    x: Floats
    y: Floats
    pixel: Floats

    def patch(self, top: float, bottom: float, rows: Rows | None = None) -> Patch:
        """Select the images ``rows`` (all unless given) between two heights, with room for a soft edge."""
        y = self.y if rows is None else self.y[rows]
        room = self.pixel.max()
        lowest, highest = y.max(axis=0, initial=-np.inf), y.min(axis=0, initial=np.inf)
        reached = np.flatnonzero((highest < bottom + room) & (lowest > top - room))
        band = slice(int(reached[0]), int(reached[-1]) + 1) if len(reached) else slice(0, 0)
        x = self.x[:, band] if rows is None else self.x[rows, band]
        return Patch(self, band, rows, x, y[:, band])
