"""``fedreid-mpi train``: the main job, under mpirun or alone."""

import shlex
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_error
from fedreid_mpi.cli.progress import RunPrinter

if TYPE_CHECKING:
    from fedreid_mpi.comm import Communicator

TRACE_FILE = "error.txt"


@click.command("train")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="New folder for the results archive and the models.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the experiment, e.g. --set run.rounds=20. May be repeated.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Same as --set model.weights=FILE.")
def command(experiment: Path, run_dir: Path, overrides: tuple[str, ...], weights: Path | None) -> None:
    """Train a federation as EXPERIMENT.toml says.

    Under mpirun, rank 0 is the server and every other rank hosts one client, bound to one GPU; with fewer
    ranks than clients, ranks host several, and with more, the rest are idle. Without mpirun, one process
    plays all roles. The results are the same to the last bit on CPUs.

    \b
      mpirun -n 10 fedreid-mpi train jobs/experiments/paper.toml --run-dir runs/1
      fedreid-mpi train jobs/experiments/demo.toml --run-dir runs/2 --set run.rounds=3

    Exit codes: 0 done, 2 configuration or environment, 3 data, 4 too few clients, 1 anything else.
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi.comm import connect

    commit = git_commit()  # before MPI starts: a process that runs MPI should not fork
    comm = connect()
    try:
        _train(comm, experiment, run_dir, overrides, weights, commit)
    except BaseException as error:  # noqa: BLE001
        sys.exit(end_badly(comm, run_dir, error))


def _train(
    comm: "Communicator",
    path: Path,
    run_dir: Path,
    overrides: tuple[str, ...],
    weights: Path | None,
    commit: str,
) -> None:
    from fedreid_mpi.config import load_experiment

    if weights is not None:
        overrides = (*overrides, f"model.weights={weights.resolve()}")
    experiment = comm.decide("experiment", partial(load_experiment, path, overrides))
    if comm.is_server:
        click.echo(f"{experiment.run.name}: starting {comm.size} rank{'s' * (comm.size > 1)}", err=True)
    federation = comm.phase("start", partial(import_module, "fedreid_mpi.federation"))
    with RunPrinter(experiment.run.rounds) as printer:
        federation.run_federation(comm, experiment, run_dir, printer, commit)
    if comm.is_server:
        click.echo(f"done: fedreid-mpi results show {shlex.quote(str(run_dir))}")


def end_badly(comm: "Communicator", run_dir: Path, error: BaseException) -> int:
    """Print the one line of a failed run and return its exit code; all ranks are gone soon after."""
    from fedreid_mpi.comm import PhaseError

    if isinstance(error, PhaseError):
        if comm.is_server:
            print_error(error.failure.message + _keep_trace(run_dir, error.failure.trace))
        return error.exit_code
    # Not agreed upon: the other ranks know nothing of it and would wait for ever.
    failure = comm.describe("between phases", error)
    print_error(failure.message + _keep_trace(run_dir, failure.trace))
    comm.abort(failure.exit_code)
    return failure.exit_code


def _keep_trace(run_dir: Path, trace: str) -> str:
    """Keep the traceback of an unexpected error beside the run; return where it is, for the message."""
    if not (trace and run_dir.is_dir()):
        return ""
    try:
        (run_dir / TRACE_FILE).write_text(trace, encoding="utf-8")
    except OSError:
        return ""  # the error itself matters more
    return f" (traceback in {run_dir / TRACE_FILE})"


def git_commit() -> str:
    """Return the commit of the package's source, or nothing where it is not a checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
