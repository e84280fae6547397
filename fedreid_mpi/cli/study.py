"""``fedreid-mpi study``: a suite of runs, on one machine or as a job array."""

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from fedreid_mpi.cli.console import print_error
from fedreid_mpi.cli.costs import print_costs
from fedreid_mpi.cli.log import level_of, run_log, verbosity
from fedreid_mpi.cli.progress import RunPrinter
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.cli.streams import outlive_output
from fedreid_mpi.cli.train import (
    LIVE,
    ON_RANK_LOSS,
    TIME_LIMIT,
    end_badly,
    live_events,
    require_live,
    stop_for,
    tell_of_interrupt,
)
from fedreid_mpi.storage.access import audience
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from fedreid_mpi.comm import Communicator, PhaseError
    from fedreid_mpi.config import StudyRun
    from fedreid_mpi.run.program import Checkout
    from fedreid_mpi.run.recovery import ElasticRunner, FailureLog, Policy
    from fedreid_mpi.run.state import RunResult
    from fedreid_mpi.run.stopping import StopController

_LOG = logging.getLogger(__name__)


@click.command("study")
@click.argument("suite", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--list",
    "list_",
    is_flag=True,
    help="Print the names of the runs, one per line, and on the error stream what they cost; then end.",
)
@click.option(
    "--member",
    type=click.IntRange(min=0),
    envvar="SLURM_ARRAY_TASK_ID",
    metavar="K",
    help="Run only the K-th run of the list, from 0 (default: SLURM_ARRAY_TASK_ID, or all).",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of every experiment, e.g. --set run.rounds=20; paths are relative to the current "
    "folder. May be repeated.",
)
@ON_RANK_LOSS
@TIME_LIMIT
@LIVE
@verbosity
@SHARED
def command(
    suite: Path,
    folder: Path | None,
    list_: bool,
    member: int | None,
    overrides: tuple[str, ...],
    policy: "Policy",
    time_limit: str | None,
    live: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Run all methods and seeds of SUITE.toml, each run in a folder of its own in FOLDER.

    A suite names a base experiment, the methods that differ from it, and the seeds. All experiments and
    their archives are checked before the first one starts, and what they cost is printed: how many images
    they will train on and score. When the study is started again, finished runs are skipped, and one that
    was stopped or killed is resumed; a run that fails does not stop the others. Signals and the time limit
    stop the study as they stop `train`.

    \b
      mpirun -n 3 fedreid-mpi study jobs/experiments/findings-demo.toml studies/demo
      fedreid-mpi results report studies/demo

    Exit code: 0, or that of the first run that failed.
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi.cli.experiments import read_suite

    if list_:
        runs = read_suite(suite, overrides).runs
        click.echo("\n".join(run.name for run in runs))
        if member is None and not quiet:  # a task of a job array asks for the names alone
            from fedreid_mpi.run.cost import method_costs

            print_costs(runs, method_costs(runs))
        return
    if folder is None:
        raise click.UsageError("Missing argument 'FOLDER'.")
    from fedreid_mpi.comm import connect
    from fedreid_mpi.run.program import read_checkout
    from fedreid_mpi.run.recovery import ElasticRunner

    level = level_of(verbose, quiet)
    outlive_output()
    stop = stop_for(time_limit)
    with stop.listening(tell_of_interrupt):
        checkout = read_checkout()
        runner = ElasticRunner(connect(policy != "abort", lambda: stop.abandon_requested), policy)
        try:
            with run_log(level, lambda: runner.comm.rank) as console:
                runs = runner.run(partial(_prepare, suite, folder, overrides, member, live))
                printer = StudyPrinter(len(runs), folder, runner, console, live)
                code = _run(runner, runs, printer, checkout, stop)
        except BaseException as error:  # noqa: BLE001
            code = end_badly(runner.comm, folder, error)
    sys.exit(code)


def _prepare(
    path: Path,
    folder: Path,
    overrides: Sequence[str],
    member: int | None,
    live: str | None,
    comm: "Communicator",
    losses: "FailureLog",
) -> "tuple[StudyRun, ...]":
    """Check and import on all ranks what the runs need; return the runs."""
    from fedreid_mpi.cli.experiments import read_suite, require_files
    from fedreid_mpi.errors import ConfigurationError
    from fedreid_mpi.run.consistency import require_same_program

    require_same_program(comm)

    def choose() -> "tuple[StudyRun, ...]":
        runs = read_suite(path, overrides).runs
        if member is None:
            return runs
        if member >= len(runs):
            raise ConfigurationError(
                f"--member {member}: {path} has {counted(len(runs), 'run')}, expected 0 to {len(runs) - 1}"
            )
        return runs[member : member + 1]

    runs = comm.decide("suite", choose)
    if comm.is_server:
        what = f"{counted(len(runs), 'run')} on {counted(comm.size, 'rank')}"
        _LOG.info("%s: %s, readable by %s", path, what, audience())
    left = [run for run in runs if not _is_done(run, folder)] if comm.is_server else []
    comm.decide("files", lambda: require_files((run.experiment, folder / run.name) for run in left))
    comm.phase("log", partial(require_live, live))
    comm.phase("start", partial(import_module, "fedreid_mpi.run.study"))

    comm.decide("cost", lambda: _count(runs, left, comm.heartbeat))
    return runs


def _count(runs: "Sequence[StudyRun]", left: "Sequence[StudyRun]", heartbeat: "Callable[[], object]") -> None:
    """Print what the runs cost, unless the log is quiet; refuse a study with a run that cannot be done."""
    from fedreid_mpi.run.cost import Cost, method_costs

    costs = method_costs(runs, heartbeat)
    if _LOG.isEnabledFor(logging.INFO):
        print_costs(runs, costs)
    for run in left:
        if not isinstance(error := costs[run.method], Cost):
            raise type(error)(f"{run.method}: {error}")


def _is_done(run: "StudyRun", folder: Path) -> bool:
    """Return whether a run has nothing left to do, by the word of the job that ended it."""
    from fedreid_mpi.errors import DataError
    from fedreid_mpi.storage.run_directory import read_status

    try:
        status = read_status(folder / run.name)
    except DataError:
        return False
    return status.state == "done" and status.rounds >= run.experiment.run.rounds


def _run(
    runner: "ElasticRunner",
    runs: "Sequence[StudyRun]",
    printer: "StudyPrinter",
    checkout: "Checkout",
    stop: "StopController",
) -> int:
    from fedreid_mpi.run.study import run_study

    with printer:
        code = run_study(runner, runs, printer.folder, printer, checkout, stop)
    if runner.comm.is_server and not printer.is_stopped:
        _LOG.info("done: fedreid-mpi results report %s", shlex.quote(str(printer.folder)))
    return code


class StudyPrinter:
    """Prints a study's progress, with a `RunPrinter` for each run.

    Parameters
    ----------
    runs
        Number of runs.
    folder
        The study's.
    runner
        The ranks, of which the server speaks.
    console
        On which the log appears.
    live
        What to log each run with, during the run.
    """

    def __init__(
        self, runs: int, folder: Path, runner: "ElasticRunner", console: "Console", live: str | None
    ) -> None:
        self._runs, self.folder, self._runner = runs, folder, runner
        self._console, self._live = console, live
        self._begun: list[str] = []
        self.is_stopped = False
        self._printer: RunPrinter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def starts(self, run: "StudyRun") -> RunPrinter:
        """Print which run starts."""
        run_dir, settings = self.folder / run.name, run.experiment
        self._next(run, str(run_dir))
        events = live_events(self._live, run_dir)
        standalone = settings.federation.mode == "local"
        self._printer = RunPrinter(settings.run.rounds, self._console, standalone, events)
        return self._printer

    def skipped(self, run: "StudyRun") -> None:
        """Print that a run is there."""
        self._next(run, "finished before")

    def stopped(self, run: "StudyRun", outcome: "RunResult") -> None:
        """Print why the study ends here."""
        self._close()
        self.is_stopped = True
        if self._runner.comm.is_server:
            _LOG.info("stopped in %s (%s); the same command resumes it", run.name, outcome.reason)

    def failed(self, run: "StudyRun", error: "PhaseError") -> None:
        """Print why a run failed."""
        self._close()
        if self._runner.comm.is_server:
            print_error(f"{run.name}: {error}")

    def _next(self, run: "StudyRun", what: str) -> None:
        self._close()
        if run.name not in self._begun:  # else it starts again, as ranks were lost
            self._begun.append(run.name)
        if self._runner.comm.is_server:
            _LOG.info("[%d/%d] %s: %s", len(self._begun), self._runs, run.name, what)

    def _close(self) -> None:
        if self._printer is not None:
            self._printer.__exit__(None, None, None)
            self._printer = None
