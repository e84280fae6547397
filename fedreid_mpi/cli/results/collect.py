"""``fedreid-mpi results collect``: many runs in one file."""

import logging
from pathlib import Path

import click

from fedreid_mpi.cli.console import progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted

_LOG = logging.getLogger(__name__)


@click.command("collect")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The study file."
)
@click.option("--link", is_flag=True, help="Link to archives of one file instead of copying them.")
@logged()
@SHARED
def command(runs: tuple[Path, ...], output: Path, link: bool) -> None:
    """Collect RUNS into one study file, with an index and the digest of each.

    RUNS are run directories, folders that hold some at any depth, merged archives, and study files. Each run
    is collected once: copies are recognised by the run's identity, which it keeps from its first start, and
    the one with the most rounds is taken. Broken and foreign files are named and left out; the command then
    ends with exit code 3. An existing study file is replaced; it may be one of RUNS, and so grow.

    With --link the file is small, and works only as long as the archives stay where they are.
    """
    from fedreid_mpi.results.collection import collect
    from fedreid_mpi.results.sources import find_runs
    from fedreid_mpi.results.survey import choose

    refuse = Refusals()
    sources = list(find_runs(runs, refuse))
    with timed(f"{counted(len(sources), 'run')} examined"), progress_bar("examine", len(sources)) as advance:
        summaries = choose(
            sources,
            refuse,
            lambda copy, kept: _LOG.info("repeated: %s is the same run as %s, left out", copy, kept),
            lambda: advance(1),
        )
    with timed("collected"), progress_bar("collect", len(summaries)) as advance:
        count = collect(summaries, output, link, refuse, lambda: advance(1))
    _LOG.info("%s: %s", output, counted(count, "run"))
    refuse.settle()
