"""``fedreid-mpi train``: the main job, under mpirun or alone."""

import logging
import os
import shlex
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_error
from fedreid_mpi.cli.log import level_of, run_log, verbosity
from fedreid_mpi.cli.progress import RunPrinter
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.cli.streams import outlive_output, write_at_once
from fedreid_mpi.storage.access import audience
from fedreid_mpi.storage.atomic import atomic_write
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from fedreid_mpi.comm import Communicator
    from fedreid_mpi.report.tensorboard import LiveEvents
    from fedreid_mpi.run.program import Checkout
    from fedreid_mpi.run.recovery import FailureLog, Policy
    from fedreid_mpi.run.stopping import StopController

_LOG = logging.getLogger(__name__)

TRACE_FILE = "error.txt"

TIME_LIMIT = click.option(
    "--time-limit",
    metavar="TIME",
    help="Stop cleanly before this time is up: seconds, 2h30m, HH:MM:SS or D-HH:MM:SS. Default: what SLURM "
    "leaves the job, where it says so (SLURM_JOB_END_TIME).",
)

ON_RANK_LOSS = click.option(
    "--on-rank-loss",
    "policy",
    type=click.Choice(("abort", "replace", "drop")),
    default="abort",
    show_default=True,
    help="If ranks die: end all; or continue from the last checkpoint, with their clients on other ranks "
    "(the same results to the last bit), or without their clients. replace and drop need mpirun --with-ft "
    "ulfm of Open MPI 5.",
)

LIVE = click.option(
    "--log",
    "live",
    type=click.Choice(("tensorboard",)),
    help="Write the curves during the run, for `tensorboard --logdir RUN_DIR/tensorboard`; needs "
    "the extra `tensorboard`.",
)


@click.command("train")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run: results archive, checkpoints, models. New, unless --resume is given.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the experiment, e.g. --set run.rounds=20; paths are relative to the current "
    "folder. May be repeated.",
)
@ON_RANK_LOSS
@click.option("--resume", is_flag=True, help="Resume the run in --run-dir; start it if there is none.")
@TIME_LIMIT
@click.option("--weights", type=click.Path(path_type=Path), help="Same as --set model.weights=FILE.")
@LIVE
@verbosity
@SHARED
def command(
    experiment: Path,
    run_dir: Path,
    overrides: tuple[str, ...],
    policy: "Policy",
    resume: bool,
    time_limit: str | None,
    weights: Path | None,
    live: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Train a federation as EXPERIMENT.toml says.

    Under mpirun, rank 0 is the server and every other rank hosts one client, bound to one GPU; with fewer
    ranks than clients, ranks host several, and with more, the rest are idle. Without mpirun, one process
    does everything. On CPUs the results are the same to the last bit.

    \b
      mpirun -n 10 fedreid-mpi train jobs/experiments/paper.toml --run-dir runs/1
      mpirun --with-ft ulfm -n 10 fedreid-mpi train paper.toml --run-dir runs/1 --on-rank-loss replace
      fedreid-mpi train jobs/experiments/demo.toml --run-dir runs/2 --set run.rounds=3

    A run is stopped cleanly by `fedreid-mpi stop RUN_DIR`, a file RUN_DIR/STOP, USR2 to mpirun, USR2, TERM,
    HUP or INT to any rank, or its time limit: the round is finished, or abandoned where there is no time, all
    ranks exit with 0, and RUN_DIR/status.json says "interrupted". --resume then continues it, on any number
    of ranks, with the same results to the last bit as if nothing had happened; also after a kill.

    Exit codes: 0 done or stopped cleanly, 2 configuration or environment, 3 data, 4 too few clients,
    1 anything else.
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi.comm import connect
    from fedreid_mpi.run.program import read_checkout
    from fedreid_mpi.run.recovery import ElasticRunner

    level = level_of(verbose, quiet)
    outlive_output()
    stop = stop_for(time_limit)
    with stop.listening(tell_of_interrupt):
        checkout = read_checkout()  # before MPI starts: a process that runs MPI should not fork
        runner = ElasticRunner(connect(policy != "abort", lambda: stop.abandon_requested), policy)
        if weights is not None:
            overrides = (*overrides, f"model.weights={weights.resolve()}")
        try:
            with run_log(level, lambda: runner.comm.rank) as console:
                start = partial(_train, experiment, run_dir, overrides, checkout, resume, stop, console, live)
                runner.run(start)
        except BaseException as error:  # noqa: BLE001
            sys.exit(end_badly(runner.comm, run_dir, error))


def _train(
    path: Path,
    run_dir: Path,
    overrides: tuple[str, ...],
    checkout: "Checkout",
    resume: bool,
    stop: "StopController",
    console: "Console",
    live: str | None,
    comm: "Communicator",
    losses: "FailureLog",
) -> None:
    from fedreid_mpi.cli.experiments import read_experiment, require_files
    from fedreid_mpi.run.consistency import require_same_program

    require_same_program(comm)
    experiment = comm.decide("experiment", partial(read_experiment, path, overrides))
    comm.decide("files", partial(require_files, [(experiment, run_dir)]))
    if comm.is_server:
        ranks = counted(comm.size, "rank")
        _LOG.info("%s: starting %s; %s is readable by %s", experiment.run.name, ranks, run_dir, audience())
    federation = comm.phase("start", partial(import_module, "fedreid_mpi.run.loop"))
    comm.phase("log", partial(require_live, live))
    standalone = experiment.federation.mode == "local"
    events = live_events(live, run_dir)
    with RunPrinter(experiment.run.rounds, console, standalone, events) as printer:
        outcome = federation.run_federation(
            comm, experiment, run_dir, printer, checkout, resume, stop, losses
        )
    if comm.is_server:
        where = shlex.quote(str(run_dir))
        if outcome.done:
            reason = f" ({outcome.reason})" * bool(outcome.reason)
            _LOG.info("done%s: fedreid-mpi results show %s", reason, where)
        else:
            after = f"round {outcome.after} is committed" if outcome.after >= 0 else "no round is committed"
            _LOG.info("stopped (%s): %s; continue with --run-dir %s --resume", outcome.reason, after, where)


def require_live(live: str | None) -> None:
    """Refuse to log where the library is missing, before the run begins."""
    if live is not None:
        from fedreid_mpi.report.tensorboard import require_library

        require_library()


def live_events(live: str | None, run_dir: Path) -> "LiveEvents | None":
    """Return what writes the curves during a run, if that was asked for."""
    if live is None:
        return None
    from fedreid_mpi.report.tensorboard import LiveEvents

    return LiveEvents(run_dir, _LOG.warning)


def stop_for(time_limit: str | None) -> "StopController":
    """Return what may end a command early: its time limit, or SLURM's; and signals, once it listens."""
    from fedreid_mpi.run.stopping import StopController, parse_duration, seconds_left_of_job

    return StopController(
        parse_duration(time_limit) if time_limit is not None else seconds_left_of_job(os.environ)
    )


def tell_of_interrupt(what: str) -> None:
    """Print what a Ctrl-C does; unbuffered, as a signal handler may interrupt any other output."""
    write_at_once(f"\n{what}\n")


def end_badly(comm: "Communicator", run_dir: Path, error: BaseException) -> int:
    """Print the one line of a failed run and return its exit code; all ranks are gone soon after."""
    from fedreid_mpi.comm import PhaseError

    if isinstance(error, PhaseError):
        if comm.is_server:
            print_error(error.failure.message + _keep_trace(run_dir, error.failure.trace))
        return error.exit_code
    # Not agreed upon: the other ranks know nothing of it and would wait forever.
    failure = comm.describe("between phases", error)
    print_error(failure.message + _keep_trace(run_dir, failure.trace))
    comm.abort(failure.exit_code)
    return failure.exit_code


def _keep_trace(run_dir: Path, trace: str) -> str:
    """Keep the traceback of an unexpected error in the run directory; return where it is, for the message."""
    if not (trace and run_dir.is_dir()):
        return ""
    try:
        with atomic_write(run_dir / TRACE_FILE) as temporary:
            temporary.write_text(trace, encoding="utf-8", errors="replace")
    except OSError:
        return ""  # the error itself matters more
    return f" (traceback in {run_dir / TRACE_FILE})"
