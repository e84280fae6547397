"""``fedreid-mpi results report``: the report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.results.places import beside
from fedreid_mpi.cli.results.wide_tables import print_blocks
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.report.findings import Answer


@click.command("report")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the page and its files; files of the same names are replaced (default: report in the "
    "first of PATHS, FILE-report beside a file).",
)
@SHARED
def command(paths: tuple[Path, ...], output: Path | None) -> None:
    """Report on runs: one HTML page, with PNG, CSV and LaTeX files beside it.

    PATHS are run directories, folders that hold some at any depth, and study files. Runs that differ in the
    seed alone are one method, given as mean ± sample deviation over its seeds; methods that differ in one
    respect are compared seed by seed. The page opens with the paper's tables and figures, as far as the runs
    allow: one dataset by camera and by identity; centralised, standalone and FedPav; what the local and the
    global models of each method gain over standalone; batch size and local epochs; convergence. Its questions
    follow in detail. It also says where time and bytes went.

    The paper's tables are printed as well, those of rank-1 after the last round; * marks a difference
    of which the 95 % t interval over the seeds leaves out 0.
    """
    from fedreid_mpi.report.page import make_report, write_report
    from fedreid_mpi.report.study import load_study

    study = load_study(paths)
    report = make_report(study)
    files = write_report(report, output or beside(paths[0], "report"))
    for answer in report.paper:
        _print(answer)
    for warning in study.warnings:
        click.echo(f"Note:   {warning}")
    used = sum(len(method.runs) for method in study.methods)
    click.echo(f"Runs:   {len(study.runs)}; {used} used, by method: {', '.join(map(str, study.methods))}")
    click.echo(f"Report: {files[-1]} ({counted(len(files), 'file')})")


def _print(answer: Answer) -> None:
    """Print what an answer shows openly, and what it lacks."""
    from fedreid_mpi.report.tables import Table, to_words

    click.echo(answer.title)
    for table in answer.exhibits:
        if isinstance(table, Table) and not table.folded and table.rows:
            names, *cells = zip(*to_words(table), strict=True)
            print_blocks(table.caption, names, list(zip(table.columns[1:], cells, strict=True)))
    if answer.missing:
        click.echo(answer.missing)
    click.echo()
