"""``fedreid-mpi results``: read the results of runs."""

import click

from fedreid_mpi.cli.lazy import lazy_group

COMMANDS = {
    "show": "Print the table of scores of a run, and plot them.",
    "report": "Report on many runs: one HTML page, with PNG, CSV and LaTeX.",
    "watch": "Follow a running job in the terminal.",
    "list": "List runs with their progress and scores.",
    "compare": "Compare methods over datasets and seeds.",
    "export": "Write results as CSV, Parquet, LaTeX or for TensorBoard.",
    "merge": "Join the files of one run into one.",
    "collect": "Collect many runs into one study file.",
    "rank-list": "Draw queries and the images that a model ranks first.",
}


@click.command(cls=lazy_group(__name__, COMMANDS))
def command() -> None:
    """Read the results of a run, or of many.

    A run directory holds results_<attempt>_<segment>.h5 files. They are HDF5 and describe themselves; they
    can be read, also during the run, with these commands or with any HDF5 library.
    """
