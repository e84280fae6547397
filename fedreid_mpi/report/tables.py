"""Tables and pictures of a report as values, and a table as HTML, CSV and LaTeX."""

import csv
import io
from dataclasses import dataclass
from html import escape
from math import isnan

from matplotlib.figure import Figure

from fedreid_mpi.report.values import Comparison, Spread

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
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ruled: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of a report: stem of its file, what it shows, and the drawing."""

    name: str
    caption: str
    figure: Figure


def comparison_table(name: str, caption: str, comparison: Comparison) -> Table:
    """Tabulate a comparison: a column a series, then what each has more than the reference."""
    reference, *others = comparison.series
    columns = [series.spreads() for series in comparison.series]
    columns += [series.less(reference) for series in others]
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


def to_csv(table: Table) -> str:
    """Return a table as CSV; a figure over seeds has three columns: mean, sample deviation, seeds."""
    spread = [any(isinstance(row[n], Spread) for row in table.rows) for n in range(len(table.columns))]
    heading: list[str] = []
    for name, wide in zip(table.columns, spread, strict=True):
        heading += [name, f"{name}: deviation", f"{name}: seeds"] if wide else [name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    for row in table.rows:
        cells: list[object] = []
        for cell, wide in zip(row, spread, strict=True):
            if isinstance(cell, Spread):
                cells += [_number(cell.mean), _number(cell.deviation), cell.seeds]
            else:
                cells += [_number(cell) if isinstance(cell, float) else cell] + [""] * (2 * wide)
        writer.writerow(cells)
    return text.getvalue()


def to_latex(table: Table) -> str:
    r"""Return a table for ``\input`` in LaTeX, with rules of the package booktabs."""
    alignment = "l" + "".join("l" if _is_text(table, n) else "r" for n in range(1, len(table.columns)))
    lines = [rf"% {line}" for line in ("needs \\usepackage{booktabs}", _latex(table.caption))]
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _latex_row(table.columns), r"\midrule"]
    for number, row in enumerate(table.rows):
        lines += [r"\midrule"] * (number == table.ruled)
        lines.append(_latex_row([_text(cell) for cell in row]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_html(table: Table) -> str:
    """Return a table as HTML, differences that stand out from their deviation in bold."""
    heading = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = []
    for number, row in enumerate(table.rows):
        cells = [f'<th scope="row">{escape(_text(row[0]))}</th>']
        for column, cell in enumerate(row[1:], start=1):
            kind = ' class="text"' if _is_text(table, column) else ""
            text = escape(_text(cell))
            clear = isinstance(cell, Spread) and cell.signed and cell.stands_out
            cells.append(f"<td{kind}>{f'<b>{text}</b>' if clear else text}</td>")
        rule = ' class="ruled"' if number == table.ruled else ""
        body.append(f"<tr{rule}>{''.join(cells)}</tr>")
    return (
        f'<div class="table"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{heading}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


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


def _latex_row(cells: tuple[str, ...] | list[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"
