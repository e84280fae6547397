"""Runs of real processes that are asked to stop: they end in order, with 0, and go on with the same bits."""

import contextlib
import json
import os
import signal
import threading
import time

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.comm import PhaseError, SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.run.stopping import AT_ONCE, StopController, StopRequest
from fedreid_mpi.storage.run_directory import Status, read_status, write_status
from support.launching import ranks_of, started
from support.same_runs import assert_same_run
from support.small import Silent, write_experiment

pytestmark = pytest.mark.timeout(600)

ROUNDS = 40
PATIENCE = 300


@pytest.fixture(scope="module")
def experiment_path(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping")
    sections = {"run": {"rounds": ROUNDS}, "evaluation": {"every": ROUNDS}}
    return write_experiment(folder / "small.toml", archives[:2], **sections)


def train(experiment_path, run_dir):
    return ["train", str(experiment_path), "--run-dir", str(run_dir), "--resume"]


def after_a_round(run_dir, request=lambda: None, is_alive=lambda: True):
    """Wait until this attempt has played a round, then ask it to stop."""
    limit = time.monotonic() + PATIENCE
    before = read_status(run_dir).round if run_dir.exists() else -1
    while not (run_dir / "status.json").exists() or read_status(run_dir).round <= before:
        assert is_alive()
        assert time.monotonic() < limit
        time.sleep(0.02)
    request()


@contextlib.contextmanager
def training(ranks, experiment_path, run_dir):
    """Start a run on some ranks and wait until it has played a round."""
    with started(ranks, *train(experiment_path, run_dir), cwd=run_dir.parent) as process:
        after_a_round(run_dir, is_alive=lambda: process.poll() is None)
        yield process


def ends_in_order(process, run_dir, reason):
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stdout + stderr
    assert "fedreid-mpi: error" not in stderr
    check_status(run_dir, reason, stdout)


def check_status(run_dir, reason, printed):
    status = read_status(run_dir)
    assert status.state == "interrupted", status
    assert reason in status.reason
    assert f"stopped ({status.reason}): round {status.round} is committed" in printed
    assert status.round < ROUNDS


def test_one_run_is_stopped_in_every_way_and_ends_with_the_same_bits(
    experiment_path, tmp_path, capfd, heeded
):
    run_dir = tmp_path / "run"
    with training(3, experiment_path, run_dir) as process:
        process.send_signal(signal.SIGUSR2)  # to mpirun, which passes it on
        ends_in_order(process, run_dir, "signal SIGUSR2 (rank ")
    with training(2, experiment_path, run_dir) as process:
        os.kill(ranks_of(process)[1], signal.SIGTERM)
        ends_in_order(process, run_dir, "signal SIGTERM (rank 1)")
    # Within this process: its imports are done.
    for request, reason in (
        (lambda: os.kill(os.getpid(), signal.SIGINT), "signal SIGINT"),
        (lambda: os.kill(os.getpid(), signal.SIGHUP), "signal SIGHUP"),
        (lambda: run(["stop", str(run_dir)]), "the file STOP"),
    ):
        watch = threading.Thread(target=after_a_round, args=(run_dir, request))
        watch.start()
        assert run(train(experiment_path, run_dir)) == 0
        watch.join()
        check_status(run_dir, reason, capfd.readouterr().out)
    assert run([*train(experiment_path, run_dir), "--time-limit", "1s"]) == 0
    check_status(run_dir, "time limit", capfd.readouterr().out)
    assert run(train(experiment_path, run_dir)) == 0
    assert read_status(run_dir).state == "done"
    run_federation(SingleCommunicator(), load_experiment(experiment_path), tmp_path / "reference", Silent())
    assert_same_run(run_dir, tmp_path / "reference")


class StopAt(StopController):
    """Wants to abandon the round at its n-th look."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def abandon_requested(self):
        self.count -= 1
        return self.count < 0

    @property
    def request(self):
        return StopRequest(AT_ONCE, "test") if self.count < 0 else StopRequest()


def test_an_abandoned_round_leaves_no_trace(archives, tmp_path):
    """At whatever batch: of training, of teaching, of distillation, of evaluation."""
    from support.small import write_public

    write_public(tmp_path / "public.h5")
    sections = {
        "data": {"public": "public.h5"},
        "distillation": {"enabled": True},
        "clustering": {"enabled": True, "feature": "mean"},
        "run": {"rounds": 1},
    }
    experiment = load_experiment(write_experiment(tmp_path / "x.toml", archives[:2], **sections))
    comm, run_dir = SingleCommunicator, tmp_path / "run"
    counting, left = StopAt(10**6), []

    class Watcher(Silent):
        def finished(self, record):
            left.append(counting.count)

    assert run_federation(comm(), experiment, tmp_path / "reference", Watcher(), stop=counting).done
    looks = left[0] - left[1]  # in round 1, the last one
    assert looks > 25
    for count in range(1, looks, 5):
        outcome = run_federation(comm(), experiment, run_dir, Silent(), resume=True, stop=StopAt(count))
        assert not outcome.done
        assert outcome.reason == "test"
    assert run_federation(comm(), experiment, run_dir, Silent(), resume=True).done
    assert_same_run(run_dir, tmp_path / "reference")


class Wordless(StopAt):
    """As the wish of a rank that died when all had heard of it: nobody is left to say why."""

    request = StopRequest()


def test_a_run_never_stops_without_a_reason(archives, tmp_path):
    experiment = load_experiment(write_experiment(tmp_path / "x.toml", archives[:1], run={"rounds": 1}))
    outcome = run_federation(SingleCommunicator(), experiment, tmp_path / "run", Silent(), stop=Wordless(3))
    assert not outcome.done
    assert read_status(tmp_path / "run").reason == outcome.reason == "asked to stop at once"


def test_a_third_interrupt_ends_a_run_at_once(experiment_path, tmp_path):
    class Impatient(Silent):
        def finished(self, record):
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)

    said, stop, before = [], StopController(), signal.getsignal(signal.SIGINT)
    with stop.listening(said.append), pytest.raises((KeyboardInterrupt, PhaseError)):
        run_federation(
            SingleCommunicator(), load_experiment(experiment_path), tmp_path / "run", Impatient(), stop=stop
        )
    assert [line.partition(";")[0] for line in said] == [
        "interrupt: finishing the round",
        "interrupt: abandoning the round",
    ]
    assert signal.getsignal(signal.SIGINT) is before


def test_stop_refuses_what_does_not_run(tmp_path, capsys):
    assert run(["stop", str(tmp_path)]) == 3
    assert f"{tmp_path}: holds no run: status.json: No such file" in capsys.readouterr().err
    write_status(tmp_path, Status("done", 3, 3, 1))
    assert run(["stop", str(tmp_path)]) == 2
    assert "its run is done, expected a running one" in capsys.readouterr().err
    (tmp_path / "status.json").write_text(json.dumps({"state": "x"}))
    assert run(["stop", str(tmp_path)]) == 3
    assert "status.json: is damaged" in capsys.readouterr().err
    assert not (tmp_path / "STOP").exists()
