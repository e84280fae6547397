"""A study: the runs of a suite, one after the other on the same ranks; finished ones are not run again."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.comm.errors import PhaseError
from fedreid_mpi.config import StudyRun
from fedreid_mpi.run.loop import Observer, run_federation
from fedreid_mpi.run.program import NO_CHECKOUT, Checkout
from fedreid_mpi.run.recovery import ElasticRunner, FailureLog
from fedreid_mpi.run.resume import conclude
from fedreid_mpi.run.state import RunResult
from fedreid_mpi.run.stopping import StopController


class StudyObserver(Protocol):
    """Whoever watches a study, on every rank; only the server's says anything."""

    def starts(self, run: StudyRun) -> Observer:
        """Learn that a run starts; return its observer."""

    def skipped(self, run: StudyRun) -> None:
        """Learn that a run was finished before."""

    def stopped(self, run: StudyRun, outcome: RunResult) -> None:
        """Learn that a run was asked to stop, and the study with it."""

    def failed(self, run: StudyRun, error: PhaseError) -> None:
        """Learn that a run failed; the study continues with the next."""


def run_study(
    runner: ElasticRunner,
    runs: Sequence[StudyRun],
    folder: Path,
    observer: StudyObserver,
    checkout: Checkout = NO_CHECKOUT,
    stop: StopController | None = None,
) -> int:
    """Do the runs of a study that are not finished; called on every rank.

    A run that was stopped or killed is resumed.

    Parameters
    ----------
    runner
        The ranks; if some are lost, the remaining ones continue the run and do the next ones.
    runs
        The same on every rank.
    folder
        Each run has a folder of its name in it.
    observer
        Called for each run.
    checkout
        For the archives.
    stop
        What may end the study early.

    Returns
    -------
    int
        Exit code: 0, or that of the first run that failed.
    """

    def start(run: StudyRun, comm: Communicator, losses: FailureLog) -> RunResult:
        run_dir = folder / run.name
        finished = partial(conclude, run_dir, run.experiment, losses.acquired, comm.heartbeat)
        if comm.decide("study", finished):
            observer.skipped(run)
            return RunResult(True, run.experiment.run.rounds)
        watching = observer.starts(run)
        return run_federation(comm, run.experiment, run_dir, watching, checkout, True, stop, losses)

    code = 0
    for run in runs:
        try:
            outcome = runner.run(partial(start, run))
            if not outcome.done:
                observer.stopped(run, outcome)
                break
        except PhaseError as error:  # agreed on by all ranks, which are ready for the next run
            observer.failed(run, error)
            code = code or error.exit_code
    return code
