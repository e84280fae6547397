"""``fedreid-mpi results report``: the report of a study."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.results.figures import figure_formats
from fedreid_mpi.cli.results.places import beside
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.cli.wide_tables import print_blocks
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedreid_mpi.report.findings import Answer
    from fedreid_mpi.report.page import Report
    from fedreid_mpi.report.tables import Table

_LOG = logging.getLogger(__name__)


@click.command("report")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the page and its files; files of the same names are replaced (default: report in the "
    "first of PATHS, FILE-report next to a file).",
)
@figure_formats("Format of the figures' files, besides those in the page itself; may be repeated.")
@logged()
@SHARED
def command(paths: tuple[Path, ...], output: Path | None, formats: tuple[str, ...]) -> None:
    """Report on runs: one HTML page, with its figures, and its tables as CSV and LaTeX, beside it.

    PATHS are run directories, folders that hold some at any depth, and study files. Runs that differ in the
    seed alone are one method, given as mean ± sample deviation over its seeds; methods that differ in one
    respect are compared seed by seed. The page opens with the settings of the runs and one table of all
    methods. The paper's tables and figures follow, as far as the runs allow: one dataset by camera and by
    identity; centralised, standalone and FedPav; what the local and the global models of each method gain
    over standalone; batch size and local epochs; convergence. Its questions follow in detail, then what the
    runs do not answer. It also says where time and bytes went.

    The tables are printed as well, those of rank-1 after the last round; * marks a difference of which the
    95 % t interval over the seeds leaves out 0.
    """
    from fedreid_mpi.report.loading import load_study
    from fedreid_mpi.report.page import make_report, write_report

    with timed("runs read"):
        study = load_study(paths)
    with timed("report made"):
        report = make_report(study)
    with timed("files written"):
        files = write_report(report, output or beside(paths[0], "report"), formats)
    if _LOG.isEnabledFor(logging.INFO):
        _print_report(report)
    for warning in study.warnings:
        _LOG.warning("Note:   %s", warning)
    used = sum(len(method.runs) for method in study.methods)
    by_method = ", ".join(map(str, study.methods))
    _LOG.info("Runs:   %d; %d used, by method: %s", len(study.runs), used, by_method)
    _LOG.info("Report: %s (%s)", files[-1], counted(len(files), "file"))


def _print_report(report: Report) -> None:
    """Print the settings and the tables of the page."""
    for name, words in report.settings:
        click.echo(f"{name}: {words}")
    click.echo()
    _print_tables(report.main)
    for answer in report.answered:
        if answer in report.paper:
            _print(answer)
    for answer in report.open:
        click.echo(f"{answer.title}: {answer.missing}")


def _print(answer: Answer) -> None:
    """Print an answer's tables, and what is missing for it."""
    from fedreid_mpi.report.tables import Table

    click.echo(answer.title)
    _print_tables([exhibit for exhibit in answer.exhibits if isinstance(exhibit, Table)])
    if answer.missing:
        click.echo(answer.missing)
    click.echo()


def _print_tables(tables: Sequence[Table]) -> None:
    """Print tables, except those that the page shows only on demand."""
    from fedreid_mpi.report.tables import to_words

    for table in tables:
        if table.rows and not table.folded:
            names, *cells = zip(*to_words(table), strict=True)
            texts = [table.is_text(n) for n in range(1, len(table.columns))]
            print_blocks(table.caption, names, list(zip(table.headings[1:], cells, strict=True)), texts)
