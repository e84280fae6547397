"""Run directories that others may read, that vanish, that are used twice, and on poor file systems."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.comm import PhaseError, SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.doctor.storage import look_at_storage
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.storage.access import private, share_with_group
from fedreid_mpi.storage.run_directory import Status, hold, make_run_dir, read_status, write_status
from support import trees
from support.launching import ERROR
from support.small import Silent, write_experiment, write_site

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def experiment(archives, tmp_path):
    return write_experiment(tmp_path / "small.toml", archives[:1], run={"rounds": 1})


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def modes_below(folder):
    return {(path.is_dir(), mode(path)) for path in folder.rglob("*") if path.name != "lock"}


# Who may read what is written.


def test_archives_are_private_or_shared_with_the_group(tmp_path, usual_umask, capsys):
    trees.write_tree(tmp_path / "in", "market1501").rename(tmp_path / "in" / "Market-1501-v15.09.15")
    command = ["prepare", "--all", str(tmp_path / "in"), str(tmp_path / "out" / "deep"), "--allow-subset"]
    assert run(command) == 0
    assert "readable by nobody but you" in capsys.readouterr().out
    archive = tmp_path / "out" / "deep" / "market1501.h5"
    assert [mode(path) for path in (archive, archive.parent, archive.parents[1])] == [0o600, 0o700, 0o700]
    assert run([*command, "--share-with-group"]) == 0
    assert "readable by you and your group" in capsys.readouterr().out
    assert mode(archive) == 0o640
    assert os.umask(0o022) == 0o022  # what was asked of one command does not reach the next


def test_what_is_written_without_the_command_line_is_private(tmp_path, usual_umask):
    assert mode(write_site(tmp_path / "site.h5", 9)) == 0o600


def test_run_directories_are_private_or_shared_with_the_group(experiment, tmp_path, usual_umask, capsys):
    run_dir = tmp_path / "runs" / "1"
    run_dir.mkdir(mode=0o755, parents=True)
    command = ["train", str(experiment), "--run-dir", str(run_dir)]
    assert run(command) == 0
    assert f"{run_dir} is readable by nobody but you" in capsys.readouterr().out
    assert mode(run_dir) == 0o700
    assert modes_below(run_dir) == {(True, 0o700), (False, 0o600)}
    assert run([*command, "--resume", "--share-with-group", "--set", "run.rounds=2"]) == 0
    assert mode(run_dir) == 0o750
    newest = run_dir / "checkpoints" / "round_000002"
    assert modes_below(newest) | {(True, mode(newest))} == {(True, 0o750), (False, 0o640)}
    assert run([*command, "--resume", "--set", "run.rounds=2"]) == 0
    assert mode(run_dir) == 0o700


# What a folder may hold.


def test_runs_are_listed_though_one_has_a_pipe(experiment, tmp_path, capsys):
    assert run(["train", str(experiment), "--run-dir", str(tmp_path / "run")]) == 0
    (tmp_path / "run" / "status.json").unlink()
    os.mkfifo(tmp_path / "run" / "status.json")
    capsys.readouterr()
    assert run(["results", "list", str(tmp_path / "run")]) == 0
    assert "small" in capsys.readouterr().out


# Two jobs on one directory.


def test_of_two_simultaneous_starts_one_is_refused_in_a_line(experiment, tmp_path):
    command = [sys.executable, "-m", "fedreid_mpi", "train", experiment, "--run-dir", tmp_path / "a" / "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2], said
    (line,) = [line for text in said for line in text.splitlines() if line.startswith(ERROR)]
    assert ": in use by " in line or ": already holds a run" in line
    assert read_status(tmp_path / "a" / "run").state == "done"


def test_whoever_starts_in_a_new_directory_meanwhile_changes_nothing(experiment, tmp_path):
    """The lock comes before the question whether there is a run."""
    run_dir = tmp_path / "run"
    make_run_dir(run_dir)
    with hold(run_dir), pytest.raises(PhaseError, match=rf"in use by process {os.getpid()} on "):
        run_federation(SingleCommunicator(), load_experiment(experiment), run_dir, Silent())


class Meddling(Silent):
    """Does something to the run directory after round 0."""

    def __init__(self, meddle):
        self.meddle = meddle

    def finished(self, record):
        if record.plan.round == 0:
            self.meddle()


@pytest.mark.parametrize("text", [None, '{"host": "elsewhere", "pid": 7, "since": "now"}'])
def test_a_run_whose_lock_was_taken_away_ends_and_leaves_the_status_to_others(text, experiment, tmp_path):
    run_dir = tmp_path / "run"

    def meddle():
        (run_dir / "lock").unlink()
        if text is not None:
            (run_dir / "lock").write_text(text)
        write_status(run_dir, Status("running", 0, 1, 9, "somebody else's"))

    found = "was removed or emptied" if text is None else "names process 7 on elsewhere, since now"
    with pytest.raises(PhaseError, match=rf"lock: {found}, expected the lock of this run: ") as caught:
        run_federation(SingleCommunicator(), load_experiment(experiment), run_dir, Meddling(meddle))
    assert caught.value.exit_code == 2
    assert read_status(run_dir).reason == "somebody else's"


def test_a_lock_file_that_is_removed_while_it_is_waited_for_means_nothing(tmp_path):
    """Whoever waits takes the lock of the file that is there in the end."""
    waits = []

    def waiting():
        waits.append(1)
        (tmp_path / "lock").unlink(missing_ok=True)

    with (tmp_path / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with hold(tmp_path, inherited=True, waiting=waiting):
            assert waits
            with pytest.raises(ConfigurationError, match="in use by"), hold(tmp_path):
                pass


# What reaches the disk, and file systems that lack something.


def folders_flushed(monkeypatch):
    flushed, fsync = [], os.fsync

    def noting(handle):
        fsync(handle)
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", noting)
    return flushed


def test_a_new_run_directory_and_what_was_made_above_it_are_on_the_disk(tmp_path, monkeypatch):
    flushed = folders_flushed(monkeypatch)
    make_run_dir(tmp_path / "a" / "b" / "run")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(flushed)


def test_a_run_directory_that_was_just_made_by_others_is_flushed_as_well(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    flushed = folders_flushed(monkeypatch)
    make_run_dir(tmp_path / "run")
    assert tmp_path in flushed


def refusing(error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    return refuse


def unflushed(monkeypatch):
    """As CIFS and some FUSE file systems: folders cannot be flushed."""
    fsync = os.fsync

    def picky(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            refusing(errno.EINVAL)()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", picky)


def lockless(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))


def pretending(monkeypatch):
    """As Lustre without flock: locks are given to everybody."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


LACKS = {
    unflushed: "its file system cannot flush folders: ",
    lockless: "its file system has no working locks: ",
    pretending: "its file system has no working locks: ",
}


@pytest.mark.parametrize("poor", LACKS)
def test_what_a_file_system_lacks_is_said_once_and_by_the_doctor(
    poor, experiment, tmp_path, monkeypatch, capsys
):
    poor(monkeypatch)
    assert run(["train", str(experiment), "--run-dir", str(tmp_path / "run")]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert said.count(LACKS[poor]) == 1
    assert read_status(tmp_path / "run").state == "done"
    facts = look_at_storage(SingleCommunicator(), tmp_path, "n1")
    assert (facts.flushes, facts.locks) == (poor is not unflushed, poor is unflushed)


@pytest.mark.parametrize("poor", [lockless, pretending])
def test_without_working_locks_the_lock_file_is_believed(poor, tmp_path, monkeypatch):
    poor(monkeypatch)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        while not Path(f"/proc/{other.pid}/stat").exists():
            time.sleep(0.01)
        holder = f'{{"host": "{os.uname().nodename}", "pid": {other.pid}, "since": "now"}}'
        (tmp_path / "lock").write_text(holder)
        with (
            pytest.raises(
                ConfigurationError, match=rf"in use by process {other.pid} on .*; if that job is gone, remove"
            ),
            hold(tmp_path),
        ):
            pass
        other.communicate(b"\n", timeout=60)
    with hold(tmp_path) as lacks:
        assert len(lacks) == 1


def test_the_group_is_let_in_for_as_long_as_a_block_runs(tmp_path, usual_umask):
    with private():
        (tmp_path / "a").touch()
        share_with_group()
        (tmp_path / "b").touch()
    (tmp_path / "c").touch()
    assert [mode(tmp_path / name) for name in "abc"] == [0o600, 0o640, 0o644]
