"""``fedreid-mpi results list``: what runs there are."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import output_console, print_table
from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.results.run_selection import chosen_runs, takes_runs
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from fedreid_mpi.results.summary import RunSummary


@click.command("list")
@takes_runs
def command(paths: tuple[Path, ...], where: tuple[str, ...]) -> None:
    """List the runs under PATHS: run directories, folders that hold some, archives and study files.

    Rank-1 and mAP are in percent, of the last evaluated round: means over the datasets of the global model's
    scores, or of standalone models (mode "local"). A copy of a run is listed once.
    """
    refuse = Refusals()
    _print(chosen_runs(paths, where, refuse))
    refuse.settle()


def _print(summaries: list[RunSummary]) -> None:
    """Print a table; if it does not fit, paths and times follow below it, one line each."""
    from rich.measure import Measurement

    console = output_console()
    table = _table(summaries, whole=True)
    width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if width <= console.width:
        print_table(table)
        return
    print_table(_table(summaries, whole=False))
    for number, summary in enumerate(summaries, start=1):
        click.echo(f"{number:>3}  {summary.source}, written {_time(summary)} UTC")


def _table(summaries: list[RunSummary], whole: bool) -> Table:
    """Tabulate runs: with their paths and times, or with numbers in their place."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = counted(len(summaries), "run")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("run", overflow="fold")
    table.add_column("seed", justify="right", no_wrap=True)
    for heading in ("mode", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("round", "rank-1", "mAP"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("written (UTC)" if whole else "no.", justify="left" if whole else "right", no_wrap=True)
    for number, summary in enumerate(summaries, start=1):
        started = f", start {summary.attempt}" if summary.attempt > 1 else ""
        path = [f"\n{summary.source}"] if whole else []
        table.add_row(
            Text.assemble((summary.name, "bold"), *path),
            str(summary.seed),
            summary.mode,
            summary.state + started,
            f"{summary.round}/{summary.rounds}",
            *("–" if isnan(score) else f"{100 * score:.1f}" for score in (summary.rank_1, summary.mean_ap)),
            _time(summary) if whole else str(number),
        )
    return table


def _time(summary: RunSummary) -> str:
    return summary.written.replace("T", " ")[:16]
