"""The figures of a report. Values in, matplotlib figures out; drawn within ``rc_context(STYLE)``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedreid_mpi.report.style import BEHIND, COLOURS, MARKERS, legend_below, small_multiples
from fedreid_mpi.report.values import Comparison, Floats, Spread
from fedreid_mpi.wording import number_text

_WRITTEN, _WRITTEN_COLUMNS = 200, 14
"""Cells and columns up to which a heat map has its values written in."""

_CELL, _NARROW_CELL = (0.42, 0.25), (0.2, 0.21)
"""Width and height of a heat map's cells, inches: with a value written in, and without."""

_LEAST_HEIGHT = 1.3
"""Of a heat map, inches: its scale of colours has a label beside it."""


@dataclass(frozen=True, slots=True)
class Band:
    """Curves of one label over the same horizontal axis: x of shape (X,), y of shape (seeds, X)."""

    label: str
    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class Panel:
    """Bands to be drawn on the same axes; counts have an axis of whole numbers from 0."""

    x_label: str
    y_label: str
    bands: tuple[Band, ...]
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix to be drawn as a heat map, with the names of its rows and columns; what its columns are."""

    title: str
    values: Floats
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    x_label: str = ""


def draw_comparison(comparison: Comparison) -> Figure:
    """Draw a comparison: left the scores by dataset, right what each has more than the first."""
    reference, *others = comparison.series
    rows, count = len(comparison.rows), len(comparison.series)
    figure = Figure(figsize=(8.6, 1.3 + rows * (0.12 + 0.11 * count)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    for number, series in enumerate(comparison.series):
        _dots(left, series.spreads(), number, count, series.label)
    for number, series in enumerate(others, start=1):
        _dots(right, series.minus(reference), number, count, None)
    right.axvline(0, color="black", linewidth=0.8)
    for axes in (left, right):
        for edge in range(1, rows):
            wide = edge == comparison.datasets
            axes.axhline(edge - 0.5, color="#888888" if wide else "#eeeeee", linewidth=0.8, zorder=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    left.set_yticks(range(rows), comparison.rows)
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlim(left=0)
    left.set_xlabel(f"{comparison.metric} (%), {comparison.when}")
    right.set_xlabel(f"difference from {reference.label}\n(percentage points)")
    legend_below(figure, [left])
    return figure


def draw_curves(panels: Sequence[Panel]) -> Figure:
    """Draw bands side by side: the mean over the seeds, and from the lowest to the highest seed."""
    figure = Figure(figsize=(1.0 + 3.8 * len(panels), 3.6))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    labels: dict[str, int] = {}
    for axes, panel in zip(grid, panels, strict=True):
        for band in panel.bands:
            _band(axes, band, labels.setdefault(band.label, len(labels)))
        axes.set_ylabel(panel.y_label)
        if panel.counts:
            axes.set_ylim(0, 1 + max(float(band.y.max()) for band in panel.bands))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(panel.x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, grid)
    return figure


def draw_each(bands: Sequence[Band], x_label: str, y_label: str) -> Figure:
    """Draw one panel per band, the others' means in grey behind it, on common scales."""
    figure, panels = small_multiples([band.label for band in bands], x_label, y_label, 5, (2.1, 1.7))
    for axes, band in zip(panels, bands, strict=True):
        for other in bands:
            axes.plot(other.x, _mean(other.y), color=BEHIND, linewidth=0.9, zorder=1)
        _band(axes, band, 0)
    return figure


def draw_shares(
    grids: Sequence[Grid], label: str, highest: float | None = None, faint: bool = False
) -> Figure:
    """Draw heat maps side by side on one scale of colours; NaN stays white.

    Parameters
    ----------
    grids
        What to draw.
    label
        Of the scale of colours.
    highest
        End of the scale; by default the largest value.
    faint
        Give small values more of the scale: the square root is what colours tell.
    """
    top = max(np.nanmax(grid.values, initial=0) for grid in grids) if highest is None else highest
    norm = PowerNorm(0.5, 0, top or 1) if faint else Normalize(0, top or 1)
    written = all(grid.values.size <= _WRITTEN and len(grid.columns) <= _WRITTEN_COLUMNS for grid in grids)
    figure, panels = _grid_panels(grids, written)
    decimals = 2 if top < 2 else 1 if top < 100 else 0
    for axes, grid in zip(panels, grids, strict=True):
        image = axes.imshow(grid.values, cmap="viridis", norm=norm, aspect="auto", interpolation="nearest")
        if written:
            _write_cells(axes, grid.values, norm, decimals)
    figure.colorbar(image, ax=panels, label=label, pad=0.02)
    return figure


def draw_groups(grids: Sequence[Grid]) -> Figure:
    """Draw who shares a model: cells of a column with the same colour are one group."""
    highest = int(max(np.nanmax(grid.values, initial=0) for grid in grids))
    colours = [COLOURS[number % len(COLOURS)] for number in range(highest + 1)]
    norm = BoundaryNorm(np.arange(-0.5, highest + 1), max(highest + 1, 1)) if highest else Normalize(0, 1)
    figure, panels = _grid_panels(grids, False)
    for axes, grid in zip(panels, grids, strict=True):
        axes.imshow(
            grid.values, cmap=ListedColormap(colours), norm=norm, aspect="auto", interpolation="nearest"
        )
        if grid.values.size <= _WRITTEN:
            for row, column in np.argwhere(~np.isnan(grid.values)):
                number = int(grid.values[row, column])
                axes.text(column, row, str(number), color="white", ha="center", va="center", fontsize=7)
    return figure


def draw_stacks(stacks: Mapping[str, Mapping[str, float]], x_label: str) -> Figure:
    """Draw one stacked bar per row: row to part to length."""
    parts = list(dict.fromkeys(part for stack in stacks.values() for part in stack))
    figure = Figure(figsize=(7.6, 1.2 + 0.27 * len(stacks)))
    axes = figure.subplots()
    start = np.zeros(len(stacks))
    for number, part in enumerate(parts):
        length = np.array([stack.get(part, 0.0) for stack in stacks.values()])
        axes.barh(range(len(stacks)), length, left=start, color=COLOURS[number % len(COLOURS)], label=part)
        start += length
    for row, total in enumerate(start):
        axes.text(total, row, f" {number_text(total)}", va="center", fontsize="small")
    axes.set_yticks(range(len(stacks)), list(stacks))
    axes.set_ylim(len(stacks) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)
    legend_below(figure, [axes])
    return figure


def _dots(axes: Axes, spreads: Sequence[Spread], number: int, count: int, label: str | None) -> None:
    """Draw a dot a row with its deviation, below that of the series before."""
    axes.errorbar(
        [spread.mean for spread in spreads],
        np.arange(len(spreads)) + (number - (count - 1) / 2) * 0.8 / count,
        xerr=np.nan_to_num([spread.deviation for spread in spreads]),
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=4,
        linestyle="none",
        elinewidth=1,
        label=label,
    )


def _band(axes: Axes, band: Band, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    if len(band.y) > 1:
        axes.fill_between(
            band.x, band.y.min(axis=0), band.y.max(axis=0), color=colour, alpha=0.2, linewidth=0
        )
    axes.plot(
        band.x,
        _mean(band.y),
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        markevery=max(1, len(band.x) // 12),
        linestyle=("-", "--", ":")[number % 3],
        label=band.label,
        zorder=3,
    )


def _mean(curves: Floats) -> Floats:
    return np.asarray(curves.mean(axis=0))


def _grid_panels(grids: Sequence[Grid], written: bool) -> tuple[Figure, list[Axes]]:
    """Make a panel a heat map; the rows are named once where all panels have the same."""
    rows = max(len(grid.rows) for grid in grids)
    columns = max(len(grid.columns) for grid in grids)
    same = all(grid.rows == grids[0].rows for grid in grids)
    cell, high = _CELL if written else _NARROW_CELL
    width = min(max(1.8, cell * columns), 5.9)
    longest = max(len(name) for grid in grids for name in grid.rows)
    names = 0.085 * longest * (1 if same else len(grids))
    words = max(len(name) for grid in grids for name in grid.columns)
    below = 0.085 * words if words > 3 else 0.2
    size = (1.4 + names + width * len(grids), 0.9 + below + max(_LEAST_HEIGHT, high * rows))
    figure = Figure(figsize=size)
    panels = figure.subplots(1, len(grids), squeeze=False)[0].tolist()
    for number, (axes, grid) in enumerate(zip(panels, grids, strict=True)):
        axes.set_title(grid.title)
        axes.set_xlabel(grid.x_label)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
        axes.set_yticks(range(len(grid.rows)), grid.rows if number == 0 or not same else [])
        step = ceil(len(grid.columns) / (width / 0.2))
        turned = 90 if max(map(len, grid.columns), default=0) > 3 else 0
        axes.set_xticks(range(0, len(grid.columns), step), grid.columns[::step], rotation=turned)
    return figure, panels


def _write_cells(axes: Axes, values: Floats, norm: Normalize, decimals: int) -> None:
    """Write each value into its cell, light on dark, all with as many decimals."""
    for row, column in np.argwhere(~np.isnan(values)):
        value = values[row, column]
        text = f"{round(float(value), decimals) + 0.0:.{decimals}f}"  # + 0.0: no -0.00
        colour = "white" if norm(value) < 0.6 else "black"
        axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
