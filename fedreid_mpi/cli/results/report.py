"""``fedreid-mpi results report``: the report of a study."""

from pathlib import Path

import click

from fedreid_mpi.cli.sharing import SHARED


@click.command("report")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder for the page and its files; files of the same names are replaced.",
)
@SHARED
def command(paths: tuple[Path, ...], output: Path) -> None:
    """Report on runs: one HTML page, with PNG, CSV and LaTeX files beside it.

    PATHS are run directories, folders that hold some at any depth, and study files. Runs that differ in the
    seed alone are one method, given as mean ± sample deviation over its seeds; methods that differ in one
    respect are compared seed by seed. The page answers the questions of the benchmark as far as the runs
    allow: by dataset, camera or identity; federated, local or centralised; local epochs and batch size;
    convergence and distillation; clustering; weights by cosine distance; all three together. It also says
    where time and bytes went.
    """
    from fedreid_mpi.report.page import write_report
    from fedreid_mpi.report.study import load_study

    study = load_study(paths)
    files = write_report(study, output)
    for warning in study.warnings:
        click.echo(f"Note:   {warning}")
    used = sum(len(method.runs) for method in study.methods)
    click.echo(f"Runs:   {len(study.runs)}; {used} used, by method: {', '.join(map(str, study.methods))}")
    click.echo(f"Report: {files[-1]} ({len(files)} files)")
