"""Rows of images: each a query, and what was found for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_STYLE: dict[Any, Any] = {"font.size": 7, "font.family": "DejaVu Sans", "figure.dpi": 160}

_WIDE, _GAP = 0.8, 0.16  # inches of an image, and between two
_LINE = 0.12  # of a line of text


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a row.

    Attributes
    ----------
    pixels
        Shape (height, width, 3), uint8; all tiles of a figure are of one size.
    words
        Lines below the image.
    colour, style
        Of its frame.
    mark
        In the corner, on the frame's colour; may be empty.
    """

    pixels: NDArray[np.uint8]
    words: str
    colour: str = "black"
    style: Any = "-"
    mark: str = ""


def draw_tiles(rows: Sequence[Sequence[Tile]], top: int, title: str) -> Figure:
    """Draw one row per query: its image, a gap, then what was found, under the ranks from 1.

    Parameters
    ----------
    rows
        At least one, the query first in each.
    top
        Columns beside the query's.
    title
        Above all.
    """
    first = rows[0][0].pixels
    tall = _WIDE * first.shape[0] / first.shape[1]
    lines = max(tile.words.count("\n") + 1 for row in rows for tile in row)
    pitch = tall + 0.28 + lines * _LINE
    inches = max((top + 1.35) * (_WIDE + _GAP), 3.6)  # room for the title above short rows
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(inches, len(rows) * pitch + 0.75))
        height, width = figure.get_figheight(), figure.get_figwidth()
        step = (_WIDE + _GAP) / width

        def place(row: int, column: int) -> Axes:
            left = 0.1 / width + (column + 0.3 * (column > 0)) * step
            bottom = (height - 0.7 - row * pitch - tall) / height
            axes = figure.add_axes((left, bottom, _WIDE / width, tall / height))
            axes.set_xticks([])
            axes.set_yticks([])
            return axes

        figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=9, va="center", parse_math=False)
        for column in range(top + 1):
            text = "query" if column == 0 else f"{column}"
            left = (0.1 + _WIDE / 2) / width + (column + 0.3 * (column > 0)) * step
            figure.text(left, 1 - 0.55 / height, text, ha="center", va="center", color="#555555")
        for number, row in enumerate(rows):
            for column, tile in enumerate(row):
                _show(place(number, column), tile)
    return figure


def _show(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.pixels, aspect="auto", interpolation="none")
    axes.set_xlabel(tile.words, fontsize=6, labelpad=3, parse_math=False)
    for spine in axes.spines.values():
        spine.set(edgecolor=tile.colour, linewidth=2.2, linestyle=tile.style)
    if tile.mark:
        axes.text(
            0.06, 0.97, tile.mark, transform=axes.transAxes, va="top", color="white", fontweight="bold",
            bbox={"boxstyle": "square,pad=0.2", "color": tile.colour},
        )  # fmt: skip
