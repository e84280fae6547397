"""``fedreid-mpi results merge``: all of one run in one file."""

from pathlib import Path

import click

from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted


@click.command("merge")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file (default: the name of the run's folder with .h5, next to it).",
)
@SHARED
def command(run: Path, output: Path | None) -> None:
    """Write all of RUN into one file: its segments joined, of repeated rounds the later ones.

    The file is a results archive like its segments, and every command takes it for the run. A file of that
    name is replaced. RUN is a run directory, or a run of a study file (STUDY.h5/RUN).
    """
    from fedreid_mpi.results.collection import merge
    from fedreid_mpi.results.segments import list_segments
    from fedreid_mpi.results.sources import Source

    source = Source(run, list_segments(run))
    path = output or run.resolve().with_name(f"{run.resolve().name}.h5")
    merge(source, path)
    click.echo(f"{path}: {counted(len(source.segments), 'file')} of {run}")
