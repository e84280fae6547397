"""``fedreid-mpi stop``: stop a run cleanly, from another shell."""

from pathlib import Path

import click

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.run.stopping import STOP_FILE
from fedreid_mpi.storage.run_directory import read_status


@click.command("stop")
@click.argument("run_dir", type=click.Path(path_type=Path))
def command(run_dir: Path) -> None:
    """Stop the run in RUN_DIR cleanly, after its current round.

    The round is finished and committed, all ranks exit with 0, and status.json says "interrupted".
    `fedreid-mpi train --resume` continues the run.

    \b
      fedreid-mpi stop runs/1
    """  # noqa: D301 (click needs the backspace)
    status = read_status(run_dir)
    if status.state != "running":
        raise ConfigurationError(f"{run_dir}: its run is {status.state}, expected a running one")
    try:
        (run_dir / STOP_FILE).touch()
    except OSError as error:
        raise ConfigurationError(f"{run_dir / STOP_FILE}: cannot be written: {error.strerror}") from error
    click.echo(
        f"{run_dir}: will stop after its current round (the last finished one is {status.round} of "
        f"{status.rounds}); train --resume continues it"
    )
