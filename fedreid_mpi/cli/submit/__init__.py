"""``fedreid-mpi submit``: jobs for SLURM, and their status."""

import click

from fedreid_mpi.cli.lazy import lazy_group

COMMANDS = {
    "train": "Submit a run, with what comes before and after it.",
    "study": "Submit a study as a job array.",
    "status": "Show the status of a submitted run, and when it may end.",
}


@click.command(cls=lazy_group(__name__, COMMANDS))
def command() -> None:
    """Submit jobs to SLURM, and show their status.

    The jobs are the scripts beside jobs/env.sh, the one file to adapt to a cluster (see jobs/README.md).
    What they ask for is compared with what the cluster has before they are submitted.
    """
