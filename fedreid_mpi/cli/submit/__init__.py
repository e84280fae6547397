"""``fedreid-mpi submit``: jobs for SLURM, and how they stand."""

import click

from fedreid_mpi.cli.lazy import lazy_group

COMMANDS = {
    "train": "Submit a run, with what comes before and after it.",
    "study": "Submit a study as a job array.",
    "status": "Say how a submitted run stands, and when it may end.",
}


@click.command(cls=lazy_group(__name__, COMMANDS))
def command() -> None:
    """Submit jobs to SLURM, and ask how they stand.

    The jobs are the scripts beside jobs/env.sh, the one file to adapt to a cluster (see jobs/README.md).
    What they ask for is compared with what the cluster has before they are submitted.
    """
