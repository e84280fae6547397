"""How all figures look: sizes, colours that everyone can tell apart, legends and panels."""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "savefig.dpi": 160,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # names are shown as they are, dollar signs and all
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
}

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b0a000")
"""After Okabe and Ito (2008), the yellow darkened to be seen on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Repeat the colours; one less, so that a colour comes back with another marker."""

BEHIND = "#d0d0d0"
"""Colour of curves in the background, for comparison."""

_LETTER = 0.075
"""Inches of a letter, on average and at most."""


def legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    """Put one legend for all panels below them, as many columns as fit, to be read row by row.

    Parameters
    ----------
    figure
        Drawn with constrained layout, which makes room.
    panels
        A label that several of them have is listed once.
    """
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    fitting = int(figure.get_figwidth() / (_LETTER * max(map(len, entries)) + 0.5))
    rows = ceil(len(entries) / max(1, min(fitting, len(entries))))
    columns = ceil(len(entries) / rows)
    order = [label for column in range(columns) for label in list(entries)[column::columns]]
    handles = [entries[label] for label in order]
    figure.legend(handles, order, loc="outside lower center", ncols=columns)  # which are filled one by one


def small_multiples(
    titles: Sequence[str], x_label: str, y_label: str, most: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a titled panel each, on common scales, as near to a full rectangle as can be.

    Parameters
    ----------
    titles
        At least one.
    x_label, y_label
        Of the panels at the bottom, over whole numbers, and of those at the left.
    most
        Columns that there may be.
    size
        Width and height of a panel, inches.
    """
    least = min(len(titles), max(1, most - 2))
    columns = min(range(min(most, len(titles)), least - 1, -1), key=lambda n: -len(titles) % n)
    rows = ceil(len(titles) / columns)
    figure = Figure(figsize=(0.6 + size[0] * columns, 1.0 + size[1] * rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.ravel().tolist()):
        if number >= len(titles):
            axes.set_visible(False)
            continue
        axes.set_title(titles[number])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if number % columns == 0:
            axes.set_ylabel(y_label)
        if number + columns >= len(titles):
            axes.tick_params(labelbottom=True)
        if number // columns == rows - 1:
            axes.set_xlabel(x_label)
    return figure, grid.ravel().tolist()[: len(titles)]
