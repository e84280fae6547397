"""Tables and pictures of a report as values, and a table as HTML, CSV and LaTeX."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isnan

from matplotlib.figure import Figure

from fedreid_mpi.report.highest import Mark, meaning, transposed
from fedreid_mpi.report.highest import marks as marks_of
from fedreid_mpi.report.values import PERCENT, Comparison, Series, Spread
from fedreid_mpi.wording import number_text

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

_LATEX_MARKS = {None: ("", ""), Mark.HIGHEST: (r"\textbf{", "}"), Mark.CLOSE: (r"\underline{", "}")}
_HTML_MARKS = {None: "", Mark.HIGHEST: "b", Mark.CLOSE: "u"}

_MANY = 10
"""Columns above which the page sets a table in smaller type."""


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
    spans
        Headings above the headings, each with the number of columns that it spans, from the second column
        on; empty: there are none.
    marks
        What is said of cells, by row and column; see `fedreid_mpi.report.highest`.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ruled: int | None = None
    folded: bool = False
    spans: tuple[tuple[str, int], ...] = ()
    marks: Mapping[tuple[int, int], Mark] = field(default_factory=dict)

    @property
    def headings(self) -> tuple[str, ...]:
        """Each column's heading, below the one that spans it."""
        above = [""] + [name for name, width in self.spans for _ in range(width)]
        above += [""] * (len(self.columns) - len(above))
        return tuple(
            f"{one}: {other}" if one else other for one, other in zip(above, self.columns, strict=True)
        )

    @property
    def note(self) -> str:
        """What bold and underlined cells mean; empty where there are none."""
        return meaning(self.marks.values(), any(is_clear(cell) for row in self.rows for cell in row))

    def is_text(self, column: int) -> bool:
        """Return whether a column holds words, which begin at the left."""
        return any(isinstance(row[column], str) and row[column] != "–" for row in self.rows)


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
        marks=transposed(marks_of(comparison.series)),
    )


def methods_table(
    name: str, caption: str, comparison: Comparison, reference: Series | None = None, folded: bool = False
) -> Table:
    """Tabulate a comparison as the paper does: one row per method, one column per dataset.

    Parameters
    ----------
    name, caption, folded
        As in `Table`; what the figures are is added to the caption.
    comparison
        What is compared.
    reference
        What is subtracted from all series, paired by seed; it has no row. None: nothing is subtracted.
    """
    spreads = {
        series.label: series.spreads() if reference is None else series.minus(reference)
        for series in comparison.series
        if series is not reference
    }
    unit = "percent" if reference is None else "percentage points"
    marks = marks_of(comparison.series) if reference is None else {}
    return Table(
        name=name,
        caption=f"{caption}: {comparison.metric} in {unit}, {comparison.when}",
        columns=("method", *comparison.rows),
        rows=tuple((label, *cells) for label, cells in spreads.items()),
        folded=folded,
        marks=marks,
    )


def metrics_table(name: str, comparisons: Sequence[Comparison]) -> Table:
    """Tabulate methods by several metrics: one row per method, and for each dataset a column per metric.

    Parameters
    ----------
    name
        As in `Table`.
    comparisons
        One per metric, of the same methods and datasets.
    """
    first, count = comparisons[0], len(comparisons)
    metrics = [comparison.metric for comparison in comparisons]
    spreads = [[series.spreads() for series in comparison.series] for comparison in comparisons]
    rows: list[tuple[Cell, ...]] = [
        (series.label, *(of[number][place] for place in range(len(first.rows)) for of in spreads))
        for number, series in enumerate(first.series)
    ]
    marked = {
        (row, 1 + (column - 1) * count + number): mark
        for number, comparison in enumerate(comparisons)
        for (row, column), mark in marks_of(comparison.series).items()
    }
    return Table(
        name=name,
        caption=f"{', '.join(metrics)} in percent, {first.when}",
        columns=("method", *(metrics * len(first.rows) if count > 1 else first.rows)),
        rows=tuple(rows),
        spans=tuple((row, count) for row in first.rows) if count > 1 else (),
        marks=marked,
    )


def to_csv(table: Table) -> str:
    """Return a table as CSV.

    A figure over seeds has three columns, mean, sample deviation and seeds, and a difference two more: half
    the width of its interval, and whether it is clear.
    """
    kinds = [_spread_of(table, n) for n in range(len(table.columns))]
    heading: list[str] = []
    for name, kind in zip(table.headings, kinds, strict=True):
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
    r"""Return a table for ``\input`` in LaTeX, with rules of the package booktabs; marked as in HTML."""
    alignment = "l" + "".join("l" if table.is_text(n) else "r" for n in range(1, len(table.columns)))
    remarks = ("needs \\usepackage{booktabs}", _latex(table.caption), _latex(table.note))
    lines = [f"% {remark}" for remark in remarks if remark]
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    if table.spans:
        lines += _latex_spans(table.spans)
    lines += [_latex_row(map(_latex, table.columns)), r"\midrule"]
    for number, row in enumerate(table.rows):
        lines += [r"\midrule"] * (number == table.ruled)
        cells = []
        for column, cell in enumerate(row):
            before, after = _LATEX_MARKS[_mark(table, number, column)]
            cells.append(f"{before}{_latex(_text(cell))}{after}")
        lines.append(_latex_row(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_html(table: Table) -> str:
    """Return a table as HTML with what it shows above it and what its marks mean below.

    It scrolls where the page is narrower, by keys as well; its first column stays.
    """
    kinds = [' class="text"' if table.is_text(n) else "" for n in range(len(table.columns))]
    heading = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, table.columns, strict=True)
    )
    above = "".join(f'<th scope="colgroup" colspan="{n}">{escape(name)}</th>' for name, n in table.spans)
    above = f"<tr><td></td>{above}</tr>" if above else ""
    body = []
    for number, row in enumerate(table.rows):
        cells = [f'<th scope="row">{escape(_text(row[0]))}</th>']
        for column, cell in enumerate(row[1:], start=1):
            tag = _HTML_MARKS[_mark(table, number, column)]
            text = escape(_text(cell))
            cells.append(f"<td{kinds[column]}>{f'<{tag}>{text}</{tag}>' if tag else text}</td>")
        rule = ' class="ruled"' if number == table.ruled else ""
        body.append(f"<tr{rule}>{''.join(cells)}</tr>")
    caption, note = escape(table.caption), escape(table.note)
    many = " many" if len(table.columns) > _MANY else ""
    shown = (
        f'<div class="table{many}" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<thead>{above}<tr>{heading}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
    if note:
        shown += f'<p class="soft note">{note}</p>'
    if table.folded:
        return f"<details><summary>{caption}</summary>{shown}</details>"
    return f"<figure><figcaption>{caption}</figcaption>{shown}</figure>"


def to_words(table: Table) -> list[tuple[str, ...]]:
    """Return the rows of a table in words, as a terminal shows them: differences that are clear with a *."""
    return [
        tuple(f"{_text(cell)} *" if is_clear(cell) else _text(cell) for cell in row) for row in table.rows
    ]


def _spread_of(table: Table, column: int) -> tuple[str, ...]:
    """Name the columns beside the mean in CSV, for a column of figures over seeds."""
    spreads = [row[column] for row in table.rows if isinstance(row[column], Spread)]
    if not spreads:
        return ()
    difference = any(isinstance(spread, Spread) and spread.signed for spread in spreads)
    return ("deviation", "seeds", *((f"{PERCENT} interval ±", "clear") if difference else ()))


def is_clear(cell: Cell) -> bool:
    """Return whether a cell is a difference that is clear; see `Spread.clear`."""
    return isinstance(cell, Spread) and cell.signed and cell.clear


def _mark(table: Table, row: int, column: int) -> Mark | None:
    """Return the mark of a cell; a difference that is clear is in bold."""
    return Mark.HIGHEST if is_clear(table.rows[row][column]) else table.marks.get((row, column))


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return "–" if isnan(cell) else number_text(cell)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.6g}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    """Return the row of headings that span several columns, and the rules below them."""
    cells, rules, column = [""], [], 2
    for name, width in spans:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(name)}}}" if name else f"{'& ' * (width - 1)}")
        if name:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [_latex_row(cells), " ".join(rules)]
