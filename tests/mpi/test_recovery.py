import fcntl
import json
import multiprocessing
import os
import signal
import time

import pytest
import tomli_w

from fedreid_mpi.comm import PhaseError, RanksLost, SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import newest_whole
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.run.recovery import ElasticRunner, FailureLog, RankLoss
from fedreid_mpi.storage.run_directory import DYING, hold, read_status
from support.launching import ERROR, ranks_of, started, surviving
from support.same_runs import assert_same_run
from support.small import Silent, write_experiment

pytestmark = pytest.mark.timeout(600)

RANK_TIMEOUT = 15


@pytest.fixture
def experiment(archives, tmp_path):
    rounds = {"rounds": 3}
    return write_experiment(
        tmp_path / "small.toml", archives[:3], run=rounds, reliability={"rank_timeout": RANK_TIMEOUT}
    )


def alone(experiment, run_dir, *overrides, losses=None):
    loaded = load_experiment(experiment, overrides)
    run_federation(SingleCommunicator(), loaded, run_dir, Silent(), losses=losses)
    return run_dir


def wait_for_round(run_dir, round, process):
    until = time.monotonic() + 400
    while not (run_dir / "status.json").exists() or read_status(run_dir).round < round:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def strike(process, signals):
    """Send signals to ranks of a launch, and return the exit code and the lines of errors."""
    ranks = ranks_of(process)
    for rank, number in signals.items():
        os.kill(ranks[rank], number)
    stdout, stderr = process.communicate(timeout=400)
    return process.returncode, [line for line in (stdout + stderr).splitlines() if line.startswith(ERROR)]


def test_a_rank_that_hangs_is_dropped_as_if_its_client_were_away(experiment, tmp_path):
    run_dir = tmp_path / "run"
    masked = ("--set", "privacy.secure_aggregation=true")  # which changes no bit, before and after the loss
    command = ("train", experiment, "--run-dir", run_dir, "--on-rank-loss", "drop", *masked)
    with started(4, *command, cwd=tmp_path, launcher=surviving()) as process:
        wait_for_round(run_dir, 1, process)
        assert strike(process, {2: signal.SIGSTOP}) == (0, [])
    results = read_run(run_dir)
    events = [event for event in results.events if event.kind == "rank-lost"]
    assert len(events) == 1
    assert events[0].text.startswith("rank 2 of 4 on ")
    assert events[0].text.endswith(" (harbour); drop: its clients drop out")
    first = events[0].round
    assert 2 <= first <= 3
    assert results.participated[:, 0].tolist() == [0 < round < first for round in range(4)]
    reference = alone(experiment, tmp_path / "away", f"federation.availability.harbour=[[{first}, 3]]")
    assert_same_run(run_dir, reference)


def test_the_last_rank_goes_on_with_a_study(experiment, tmp_path):
    """A client rank is lost first, then the server, with what it alone remembers.

    In the first run clients are alone: their models and momentum come from the file of the lost rank. In the
    second, controls and the server's momentum do.
    """
    study = {"name": "small", "base": str(experiment), "seeds": [3]}
    methods = {
        "local": {"federation": {"mode": "local"}},
        "remembering": {"aggregation": {"rule": "scaffold"}, "server": {"optimizer": "momentum"}},
        "uniform": {"aggregation": {"weights": "uniform"}},
    }
    suite = tmp_path / "suite.toml"
    suite.write_text(tomli_w.dumps({"study": study, "methods": methods}), encoding="utf-8")
    command = ("study", suite, tmp_path / "study", "--on-rank-loss", "replace")
    with started(3, *command, cwd=tmp_path, launcher=surviving()) as process:
        wait_for_round(tmp_path / "study" / "local-seed3", 1, process)
        os.kill(ranks_of(process)[2], signal.SIGKILL)
        wait_for_round(tmp_path / "study" / "remembering-seed3", 1, process)
        assert strike(process, {0: signal.SIGKILL}) == (0, [])
    for name, settings in {
        "local": ("federation.mode=local",),
        "remembering": ("aggregation.rule=scaffold", "server.optimizer=momentum"),
        "uniform": ("aggregation.weights=uniform",),
    }.items():
        undisturbed = alone(experiment, tmp_path / name, *settings)
        assert_same_run(tmp_path / "study" / f"{name}-seed3", undisturbed)
    sizes = [len(read_run(folder).header.ranks) for folder in sorted((tmp_path / "study").glob("*-seed3"))]
    assert sizes == [2, 1, 1]


def test_without_the_option_a_lost_rank_ends_all_and_the_last_commit_stands(experiment, tmp_path):
    run_dir = tmp_path / "run"
    with started(2, "train", experiment, "--run-dir", run_dir, cwd=tmp_path) as process:
        wait_for_round(run_dir, 1, process)
        code, errors = strike(process, {1: signal.SIGKILL})
    assert code != 0
    assert errors == []
    manifest, damage = newest_whole(run_dir)
    assert manifest.round >= 1
    assert damage == ()
    assert read_status(run_dir).state == "running"
    run_federation(SingleCommunicator(), load_experiment(experiment), run_dir, Silent(), resume=True)
    assert_same_run(run_dir, alone(experiment, tmp_path / "undisturbed"))


def test_clients_of_all_losses_are_dropped(experiment, tmp_path):
    """Of 4 ranks, rank 1 hosts station; of the 3 that are left, rank 2 hosts campus and harbour."""
    losses = FailureLog(drop=True)
    losses.add(RankLoss(4, (1,), ("n1",)))
    once = alone(experiment, tmp_path / "once", losses=losses)
    assert read_run(once).participated[1:].tolist() == [[True, True, False]] * 3
    reference = alone(experiment, tmp_path / "away", "federation.availability.station=[[1, 3]]")
    assert_same_run(once, reference)
    losses.add(RankLoss(3, (2,), ("n1",)))
    with pytest.raises(PhaseError, match="none of the clients are left after ranks were lost") as caught:
        alone(experiment, tmp_path / "twice", losses=losses)
    assert caught.value.exit_code == 4


def test_a_loss_is_told_of_until_a_checkpoint_holds_it():
    losses, first, second = FailureLog(), RankLoss(4, (1,), ("n1",)), RankLoss(3, (0, 2), ("n1", "n2"))
    assert losses.untold(-1) == ()
    losses.add(first)
    assert losses.untold(3) == (first,)
    losses.add(second)
    assert losses.untold(3) == (first, second)  # round 4 was not committed
    assert losses.untold(4) == ()
    assert losses.untold(2) == (first, second)  # checkpoint 3 was damaged
    names = ["harbour", "campus", "station"]
    assert losses.describe(second, [(), (2,), (0, 1)], names) == (
        "rank 0 of 3 on n1 (the server); rank 2 of 3 on n2 (harbour, campus); "
        "replace: others host their clients"
    )


class Shrinking(SingleCommunicator):
    """A lone process that counts its losses and how often it was asked to agree."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def agree(self, well):
        return well and self.answers.pop(0)

    def shrink(self):
        return Shrinking(self.answers), (1,)


def test_work_is_done_again_unless_all_ranks_came_to_its_end():
    runner = ElasticRunner(Shrinking([False, True, True]), "replace")
    runner.comm.hosts = ("n1", "n2")
    seen = []

    def work(comm, losses):
        comm.hosts = ("n1", "n2")
        seen.append(comm)
        if len(seen) == 1:
            raise RanksLost
        return len(seen)

    assert runner.run(work) == 3  # lost within the work; lost by another rank at its end; done
    assert seen[-1] is runner.comm

    def fail(comm, losses):
        raise ConfigurationError("not agreed on")

    with pytest.raises(ConfigurationError):
        runner.run(fail)


def _hold(run_dir, ready, seconds):
    with hold(run_dir):
        ready.set()
        time.sleep(seconds)


def test_a_start_waits_a_little_for_the_lock_of_a_run_that_is_dying(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, 0.5))
    holder.start()
    assert ready.wait(60)
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    holder.join()


def test_the_lock_of_a_lost_server_is_waited_for_longer_than_another(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, DYING + 2))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(ConfigurationError, match="in use by"), hold(tmp_path):
        pass
    with hold(tmp_path, inherited=True), (tmp_path / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.join()
