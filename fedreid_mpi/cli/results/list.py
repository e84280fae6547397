"""``fedreid-mpi results list``: what runs there are."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_table
from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.results.run_selection import chosen_runs, takes_runs
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
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
    """Print a table; its cells fold where the terminal is narrow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=counted(len(summaries), "run"), box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("run", overflow="fold")
    table.add_column("seed", justify="right", no_wrap=True)
    for heading in ("mode", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("round", "rank-1", "mAP"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("written (UTC)")
    for summary in summaries:
        started = f", start {summary.attempt}" if summary.attempt > 1 else ""
        table.add_row(
            Text.assemble((summary.name, "bold"), f"\n{summary.source}"),
            str(summary.seed),
            summary.mode,
            summary.state + started,
            f"{summary.round}/{summary.rounds}",
            *("–" if isnan(score) else f"{100 * score:.1f}" for score in (summary.rank_1, summary.mean_ap)),
            summary.written.replace("T", " ")[:16],
        )
    print_table(table)
