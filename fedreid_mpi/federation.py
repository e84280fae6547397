"""The federation: it joins, plays round after round, and ends in order. The only loop."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from fedreid_mpi.agreement import require_same_files
from fedreid_mpi.comm.base import Communicator, PhaseError, RanksLost
from fedreid_mpi.commit import Committer
from fedreid_mpi.config import Experiment
from fedreid_mpi.course import Outcome, Start, Turn
from fedreid_mpi.errors import TooFewClientsError
from fedreid_mpi.joining import content_digests, describe_clients, introduce, join, place_clients
from fedreid_mpi.member import Member
from fedreid_mpi.recovery import Losses
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.resuming import claim
from fedreid_mpi.round import plan_round, play_round, trainers
from fedreid_mpi.rundir import State, read_status, write_status
from fedreid_mpi.stopping import Stop, Wish, pulse, strongest
from fedreid_mpi.types import Event, RankInfo, RoundRecord, RunHeader

LIBRARIES = ("fedreid_mpi", "torch", "numpy", "h5py", "mpi4py")

LENGTHS = 10
"""Last rounds by which it is told how long the next may take; by default every tenth evaluates."""


class Observer(Protocol):
    """Whoever watches a run, on the server."""

    def started(self, header: RunHeader, notes: Sequence[str]) -> None:
        """Be told who is where and what is special about this start, before the first round."""

    def finished(self, record: RoundRecord) -> None:
        """Be told what came of a round, once it is on disk."""


def run_federation(
    comm: Communicator,
    experiment: Experiment,
    run_dir: Path,
    observer: Observer,
    git_commit: str = "",
    resume: bool = False,
    stop: Stop | None = None,
    losses: Losses | None = None,
) -> Outcome:
    """Run an experiment to its end, or until it is asked to stop; called alike on every rank.

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
    git_commit
        Commit of the package's source, for the archive.
    resume
        Whether to go on with the run that ``run_dir`` holds, if it holds one; else that is an error.
    stop
        What may end the run early.
    losses
        What was lost of the ranks since these processes took up the run (`recovery.Crew`).

    Raises
    ------
    PhaseError
        On every rank alike, if any failed in a phase.
    RanksLost
        On every rank that is left, if some are gone; called again, it goes on from the last checkpoint.
    """
    stop, losses = stop or Stop(), losses or Losses()
    comm.rank_timeout = experiment.reliability.rank_timeout
    comm.wants_to_abandon = lambda: stop.wants_to_abandon
    specs = comm.decide("datasets", partial(describe_clients, experiment))
    datasets = comm.decide("datasets", partial(content_digests, experiment))
    with ExitStack() as held:
        start = comm.decide(
            "run directory",
            partial(claim, run_dir, experiment, specs, datasets, resume, held, losses.claimed),
        )
        losses.claimed = True
        if start.after >= experiment.run.rounds:
            return Outcome(True, start.after, f"all {experiment.run.rounds} rounds were played before")
        try:
            require_same_files(comm, run_dir, experiment.data.files)
            member = join(comm, experiment, specs, run_dir, start, partial(pulse, comm.pulse))
            outcome = _play(member, run_dir, start, datasets, observer, git_commit, stop, losses)
            state: State = "done" if outcome.done else "interrupted"
            comm.decide("status", partial(_put_status, run_dir, state, outcome.reason))
        except RanksLost:
            raise
        except BaseException as error:
            if comm.is_server:
                with suppress(OSError):  # the error itself matters more
                    _put_status(run_dir, "failed", str(error))
            raise
    return outcome


def _put_status(run_dir: Path, state: State, reason: str) -> None:
    write_status(run_dir, replace(read_status(run_dir), state=state, reason=reason))


def _play(
    member: Member,
    run_dir: Path,
    start: Start,
    datasets: tuple[str, ...],
    observer: Observer,
    git_commit: str,
    stop: Stop,
    losses: Losses,
) -> Outcome:
    """Play the rounds that follow the start."""
    comm, experiment = member.comm, member.experiment
    placement = partial(place_clients, experiment, member.specs)
    dropped = losses.dropped(placement)
    names = [spec.name for spec in member.specs]
    lost = [losses.describe(loss, placement(loss.size), names) for loss in losses.untold(start.after)]
    ranks = comm.gather(introduce(member))
    writer = None
    if ranks is not None:
        header = _header(member, ranks, git_commit, start.attempt)
        writer = ResultsWriter(run_dir, header)
        observer.started(header, (*lost, *start.notes))
    committer = Committer(member, run_dir, start, writer, datasets)
    lengths: deque[float] = deque(maxlen=LENGTHS)
    last = experiment.run.rounds
    for round in range(start.after + 1, last + 1):
        began = time.monotonic()
        wishes = comm.gather(stop.wish)
        turn = comm.decide(
            "plan", partial(_next_turn, member, run_dir, stop, wishes or (), lengths, round, dropped)
        )
        if turn.plan is None:
            if committer.after < round - 1:
                committer.commit(round - 1, None, checkpoint=True)
            return Outcome(False, committer.after, turn.reason)
        stop.begin_round(turn.seconds)
        try:
            record = play_round(member, turn.plan)
        except PhaseError as error:
            if not error.failure.abandoned:
                raise
            wishes = comm.gather(stop.wish)
            return Outcome(False, committer.after, comm.decide("stop", partial(strongest, wishes or ())))
        if record is not None and round == start.after + 1:
            before = [Event(round, "rank-lost", text) for text in lost]
            before += [Event(round, "resumed", note) for note in start.notes]
            record = replace(record, events=(*before, *record.events))
        committer.commit(round, record, round % experiment.checkpoint.every_rounds == 0 or round == last)
        if record is not None:
            observer.finished(record)
        lengths.append(time.monotonic() - began)
    return Outcome(True, committer.after)


def _next_turn(
    member: Member,
    run_dir: Path,
    stop: Stop,
    wishes: Sequence[Wish],
    lengths: Sequence[float],
    round: int,
    dropped: frozenset[int],
) -> Turn:
    """Decide whether another round is played, and which."""
    if reason := stop.reason_to_stop(run_dir, wishes, lengths):
        return Turn(None, reason)
    experiment, specs = member.experiment, member.specs
    left, least = set(trainers(experiment, specs)) - dropped, experiment.reliability.min_clients
    if dropped and len(left) < least:
        raise TooFewClientsError(
            f"{len(left) or 'none'} of the clients are left after ranks were lost, expected at least {least} "
            "(reliability.min_clients); --resume brings them back"
        )
    return Turn(plan_round(experiment, specs, round, dropped), "", stop.seconds_left())


def _header(member: Member, ranks: Sequence[RankInfo], git_commit: str, attempt: int) -> RunHeader:
    experiment = member.experiment
    return RunHeader(
        name=experiment.run.name,
        seed=experiment.run.seed,
        configuration=experiment.to_toml(),
        clients=member.specs,
        ranks=tuple(ranks),
        versions={library: version(library) for library in LIBRARIES},
        git_commit=git_commit,
        parameters=member.shared.shared.numel(),
        attempt=attempt,
    )
