"""Tables and pictures of a report as values, and a table as HTML, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from math import isnan

from matplotlib.figure import Figure

from fedreid_mpi.report.values import PERCENT, Comparison, Series, Spread

Cell = str | int | float | Spread

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    **{letter: f"\\{letter}" for letter in "&%$#_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "√": r"$\surd$",
    "≥": r"$\geq$",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report.

    Attributes
    ----------
    name
        Stem of its files.
    caption
        What it shows.
    columns
        Headings.
    rows
        As many cells each as there are columns. The first column names the row.
    ruled
        Number of the first row of a last part that is set off by a rule, such as means; None: none is.
    folded
        Whether the page shows it on demand alone.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ruled: int | None = None
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of a report: stem of its file, what it shows, and the drawing."""

    name: str
    caption: str
    figure: Figure


def comparison_table(name: str, caption: str, comparison: Comparison) -> Table:
    """Tabulate a comparison: one column per series, then what each has more than the reference."""
    reference, *others = comparison.series
    columns = [series.spreads() for series in comparison.series]
    columns += [series.minus(reference) for series in others]
    return Table(
        name=name,
        caption=f"{caption}: {comparison.metric} in percent, {comparison.when}",
        columns=(
            "dataset",
            *(series.label for series in comparison.series),
            *(f"{series.label} − {reference.label}" for series in others),
        ),
        rows=tuple(zip(comparison.rows, *columns, strict=True)),
        ruled=comparison.datasets,
    )


def methods_table(
    name: str, caption: str, comparison: Comparison, reference: Series | None = None, folded: bool = False
) -> Table:
    """Tabulate a comparison as the paper does: one row per method, one column per dataset.

    Parameters
    ----------
    name, caption, folded
        As in `Table`; the caption is gone on with what the figures are.
    comparison
        What is compared.
    reference
        What is taken away from all series, paired by seed, and has no row; None: nothing is.
    """
    spreads = {
        series.label: series.spreads() if reference is None else series.minus(reference)
        for series in comparison.series
        if series is not reference
    }
    unit = "percent" if reference is None else "percentage points"
    return Table(
        name=name,
        caption=f"{caption}: {comparison.metric} in {unit}, {comparison.when}",
        columns=("method", *comparison.rows),
        rows=tuple((label, *cells) for label, cells in spreads.items()),
        folded=folded,
    )


def to_csv(table: Table) -> str:
    """Return a table as CSV.

    A figure over seeds has three columns, mean, sample deviation and seeds, and a difference two more: half
    the width of its interval, and whether it is clear.
    """
    kinds = [_spread_of(table, n) for n in range(len(table.columns))]
    heading: list[str] = []
    for name, kind in zip(table.columns, kinds, strict=True):
        heading += [name, *(f"{name}: {part}" for part in kind)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    for row in table.rows:
        cells: list[object] = []
        for cell, kind in zip(row, kinds, strict=True):
            parts: list[object] = [""] * len(kind)
            if isinstance(cell, Spread):
                clear = "" if isnan(cell.margin) else "yes" if cell.clear else "no"
                parts = [_number(cell.deviation), cell.seeds, _number(cell.margin), clear][: len(kind)]
                cells.append(_number(cell.mean))
            else:
                cells.append(_number(cell) if isinstance(cell, float) else cell)
            cells += parts
        writer.writerow(cells)
    return text.getvalue()


def to_latex(table: Table) -> str:
    r"""Return a table for ``\input`` in LaTeX, with rules of the package booktabs; bold as in HTML."""
    alignment = "l" + "".join("l" if _is_text(table, n) else "r" for n in range(1, len(table.columns)))
    lines = [rf"% {line}" for line in ("needs \\usepackage{booktabs}", _latex(table.caption))]
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _latex_row(table.columns), r"\midrule"]
    for number, row in enumerate(table.rows):
        lines += [r"\midrule"] * (number == table.ruled)
        lines.append(_latex_row([_text(cell) for cell in row], [_is_clear(cell) for cell in row]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_html(table: Table) -> str:
    """Return a table as HTML, differences that are clear in bold; see `Spread.clear`."""
    kinds = [' class="text"' if _is_text(table, n) else "" for n in range(len(table.columns))]
    heading = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, table.columns, strict=True)
    )
    body = []
    for number, row in enumerate(table.rows):
        cells = [f'<th scope="row">{escape(_text(row[0]))}</th>']
        for kind, cell in zip(kinds[1:], row[1:], strict=True):
            text = escape(_text(cell))
            cells.append(f"<td{kind}>{f'<b>{text}</b>' if _is_clear(cell) else text}</td>")
        rule = ' class="ruled"' if number == table.ruled else ""
        body.append(f"<tr{rule}>{''.join(cells)}</tr>")
    caption = escape(table.caption)
    shown = (
        f'<div class="table"><table><caption>{caption}</caption>'
        f"<thead><tr>{heading}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
    return f"<details><summary>{caption}</summary>{shown}</details>" if table.folded else shown


def to_words(table: Table) -> list[tuple[str, ...]]:
    """Return the rows of a table in words, as a terminal shows them: differences that are clear with a *."""
    return [
        tuple(f"{_text(cell)} *" if _is_clear(cell) else _text(cell) for cell in row) for row in table.rows
    ]


def _spread_of(table: Table, column: int) -> tuple[str, ...]:
    """Name what stands in CSV beside the mean, in a column of figures over seeds."""
    spreads = [row[column] for row in table.rows if isinstance(row[column], Spread)]
    if not spreads:
        return ()
    difference = any(isinstance(spread, Spread) and spread.signed for spread in spreads)
    return ("deviation", "seeds", *((f"{PERCENT} interval ±", "clear") if difference else ()))


def _is_clear(cell: Cell) -> bool:
    return isinstance(cell, Spread) and cell.signed and cell.clear


def _is_text(table: Table, column: int) -> bool:
    return any(isinstance(row[column], str) and row[column] != "–" for row in table.rows)


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return "–" if isnan(cell) else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.3g}"
    return str(cell)


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.6g}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str], bold: Sequence[bool] = ()) -> str:
    """Return a row; the cells that ``bold`` marks are set in bold."""
    words = [_latex(cell) for cell in cells]
    words = [rf"\textbf{{{word}}}" if mark else word for word, mark in zip_longest(words, bold)]
    return " & ".join(words) + r" \\"
