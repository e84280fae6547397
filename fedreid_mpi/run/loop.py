"""One run: set up, round after round, ended cleanly. The only loop over rounds."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.comm.errors import PhaseError, RanksLost
from fedreid_mpi.config import Experiment, with_relative_paths
from fedreid_mpi.errors import FedReIDError, TooFewClientsError
from fedreid_mpi.evaluation import describe_unseen
from fedreid_mpi.federated.plan import plan_round, trainers
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.records import Event, RankInfo, RoundRecord, RunHeader
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.run.commit import CheckpointWriter
from fedreid_mpi.run.consistency import require_same_files, version_of
from fedreid_mpi.run.privacy import privacy_notes, require_company, require_protection
from fedreid_mpi.run.program import NO_CHECKOUT, Checkout, source_digest
from fedreid_mpi.run.recovery import FailureLog
from fedreid_mpi.run.resume import acquire
from fedreid_mpi.run.setup import (
    describe_clients,
    open_archives,
    place_clients,
    rank_info,
    require_open,
    set_up,
)
from fedreid_mpi.run.state import Directive, ResumePoint, RunResult
from fedreid_mpi.run.stopping import StopController, StopRequest, heartbeat_or_abandon, strongest
from fedreid_mpi.storage.run_directory import State, read_status, require_held, write_status

LIBRARIES = ("fedreid_mpi", "torch", "torchvision", "timm", "numpy", "h5py", "mpi4py")

LENGTHS = 10
"""Number of last rounds from which the time of the next is estimated; by default every tenth evaluates."""


class Observer(Protocol):
    """Whoever watches a run, on the server."""

    def started(self, header: RunHeader, notes: Sequence[str]) -> None:
        """Learn who is where and what is special about this start, before the first round."""

    def finished(self, record: RoundRecord) -> None:
        """Learn what a round gave, once it is on disk."""


def run_federation(
    comm: Communicator,
    experiment: Experiment,
    run_dir: Path,
    observer: Observer,
    checkout: Checkout = NO_CHECKOUT,
    resume: bool = False,
    stop: StopController | None = None,
    losses: FailureLog | None = None,
) -> RunResult:
    """Run an experiment to its end, or until it is asked to stop; called on every rank.

    Parameters
    ----------
    comm
        The ranks.
    experiment
        The same on every rank.
    run_dir
        Receives ``results_*.h5``, ``checkpoints/``, ``models/`` and ``status.json``.
    observer
        Called on the server alone.
    checkout
        What git says of the package's source, for the archive.
    resume
        Whether to resume the run in ``run_dir``, if there is one; otherwise that is an error.
    stop
        What may end the run early.
    losses
        What was lost of the ranks since these processes took up the run (`recovery.ElasticRunner`).

    Raises
    ------
    PhaseError
        On every rank, if any failed in a phase.
    RanksLost
        On every rank that is left, if some are lost; called again, it continues from the last checkpoint.
    """
    stop, losses = stop or StopController(), losses or FailureLog()
    comm.rank_timeout = experiment.reliability.rank_timeout
    opened = comm.phase("datasets", partial(open_archives, experiment, comm.is_server))
    specs = comm.decide("datasets", lambda: describe_clients(experiment, require_open(opened)))
    comm.phase("privacy", partial(require_protection, experiment, specs, comm.size))
    datasets = comm.decide("datasets", lambda: tuple(a.content_digest for a in require_open(opened)))
    with ExitStack() as held:
        start = comm.decide(
            "run directory",
            partial(
                acquire, run_dir, experiment, specs, datasets, resume, held, losses.acquired, comm.heartbeat
            ),
        )
        losses.acquired = True
        if start.after >= experiment.run.rounds:
            return RunResult(True, start.after, "all rounds are done already")
        try:
            require_same_files(comm, run_dir, experiment.data.files, opened)
            heartbeat = partial(heartbeat_or_abandon, comm.heartbeat, stop)
            rank = set_up(comm, experiment, require_open(opened), specs, run_dir, start, heartbeat)
            result = _run_rounds(rank, run_dir, start, datasets, observer, checkout, stop, losses)
            state: State = "done" if result.done else "interrupted"
            comm.decide("status", partial(_put_status, run_dir, state, result.reason))
        except RanksLost:
            raise
        except BaseException as error:
            if comm.is_server:
                with suppress(OSError, FedReIDError):  # the error itself matters more
                    _put_status(run_dir, "failed", str(error))
            raise
    return result


def _put_status(run_dir: Path, state: State, reason: str) -> None:
    require_held(run_dir)
    write_status(run_dir, replace(read_status(run_dir), state=state, reason=reason))


def _run_rounds(
    state: RankState,
    run_dir: Path,
    start: ResumePoint,
    datasets: tuple[str, ...],
    observer: Observer,
    checkout: Checkout,
    stop: StopController,
    losses: FailureLog,
) -> RunResult:
    """Run the rounds that follow the start."""
    comm, experiment = state.comm, state.experiment
    placement = partial(place_clients, experiment, state.specs)
    dropped = losses.dropped(placement)
    names = [spec.name for spec in state.specs]
    lost = [losses.describe(loss, placement(loss.size), names) for loss in losses.untold(start.after)]
    ranks = comm.gather(rank_info(state))
    writer = None
    if ranks is not None:
        header = _header(state, run_dir, ranks, checkout, start.attempt)
        writer = ResultsWriter(run_dir, header)
        notes = (*lost, *start.warnings, *start.notes, *state.notes, *privacy_notes(state))
        observer.started(header, notes)
    checkpoints = CheckpointWriter(state, run_dir, start, writer, datasets)
    lengths: deque[float] = deque(maxlen=LENGTHS)
    last = experiment.run.rounds
    for round in range(start.after + 1, last + 1):
        began = time.monotonic()
        requests = comm.gather(stop.request)
        directive = comm.decide(
            "plan", partial(_next_turn, state, run_dir, stop, requests or (), lengths, round, dropped)
        )
        if directive.plan is None:
            if checkpoints.after < round - 1:
                checkpoints.commit(round - 1, None, checkpoint=True)
            return RunResult(False, checkpoints.after, directive.reason)
        stop.begin_round(directive.seconds)
        checkpoint = round % experiment.checkpoint.every_rounds == 0 or round == last
        try:
            record = run_round(state, directive.plan, checkpoints.begin(round, checkpoint))
        except PhaseError as error:
            if not error.failure.abandoned:
                raise
            requests = comm.gather(stop.request)
            reason = comm.decide("stop", partial(strongest, requests or ()))
            return RunResult(False, checkpoints.after, reason or "asked to stop at once")
        if record is not None and round == start.after + 1:
            before = [Event(round, "rank-lost", text) for text in lost]
            before += [Event(round, "resumed", note) for note in start.notes]
            record = replace(record, events=(*before, *record.events))
        checkpoints.commit(round, record, checkpoint)
        if record is not None:
            observer.finished(record)
        lengths.append(time.monotonic() - began)
    return RunResult(True, checkpoints.after)


def _next_turn(
    state: RankState,
    run_dir: Path,
    stop: StopController,
    requests: Sequence[StopRequest],
    lengths: Sequence[float],
    round: int,
    dropped: frozenset[int],
) -> Directive:
    """Decide whether there is another round, and which."""
    require_held(run_dir)
    if reason := stop.reason_to_stop(run_dir, requests, lengths):
        return Directive(None, reason)
    experiment, specs = state.experiment, state.specs
    left, least = set(trainers(experiment, specs)) - dropped, experiment.reliability.min_clients
    if dropped and len(left) < least:
        raise TooFewClientsError(
            f"{len(left) or 'none'} of the clients are left after ranks were lost, expected at least {least} "
            "(reliability.min_clients); --resume brings them back"
        )
    plan = plan_round(experiment, specs, round, dropped)
    require_company(experiment, specs, plan)
    return Directive(plan, "", stop.seconds_left())


def _header(
    state: RankState, run_dir: Path, ranks: Sequence[RankInfo], checkout: Checkout, attempt: int
) -> RunHeader:
    experiment = state.experiment
    return RunHeader(
        name=experiment.run.name,
        seed=experiment.run.seed,
        configuration=with_relative_paths(experiment, run_dir).to_toml(),
        clients=state.specs,
        ranks=tuple(ranks),
        versions={library: version_of(library) for library in LIBRARIES},
        git_commit=checkout.commit,
        git_dirty=checkout.dirty,
        source_digest=source_digest(),
        parameters=state.model.shared.numel(),
        attempt=attempt,
        unseen=describe_unseen(state.unseen),
    )
