"""How all figures look: sizes, and colours that everyone can tell apart."""

from typing import Any

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
"""Say again what the colours say; one less, so that a colour comes back with another marker."""

BEHIND = "#d0d0d0"
"""Colour of what stands behind for comparison."""
