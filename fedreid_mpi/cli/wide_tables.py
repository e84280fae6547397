"""Tables of many columns, one below the other where the terminal is too narrow for one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import output_console, print_table

if TYPE_CHECKING:
    from rich.text import Text

    Cells = Sequence[str | Text]


def print_blocks(
    title: str,
    rows: Sequence[str],
    columns: Sequence[tuple[str, Cells]],
    texts: Sequence[bool] = (),
) -> None:
    """Print a table, cut between columns into as many as it takes.

    Parameters
    ----------
    title
        Above each.
    rows
        Heading of each row, repeated in each table.
    columns
        Heading and cells, as many as rows.
    texts
        Whether a column holds words, which begin at the left; empty: none does.
    """
    from rich import box
    from rich.table import Table

    console = output_console()
    if console.is_terminal:
        title = textwrap.fill(title, console.width)
    free = console.width - max(map(len, rows), default=0) - 4
    blocks: list[list[tuple[str, Cells, bool]]] = []
    used = free
    for (heading, cells), text in zip(columns, texts or [False] * len(columns), strict=True):
        needed = max(len(heading), *map(len, cells)) + 2
        if used + needed > free:
            blocks.append([])
            used = 0
        blocks[-1].append((heading, cells, text))
        used += needed
    for block in blocks:
        click.echo(title)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
        table.add_column("", no_wrap=True)
        for heading, _, text in block:
            table.add_column(heading, justify="left" if text else "right", no_wrap=True)
        for number, name in enumerate(rows):
            table.add_row(name, *(cells[number] for _, cells, _ in block))
        print_table(table)
