"""A power cut at any moment of a commit leaves the old state or the new one, whole, to whoever reads it.

The file operations of three commits are recorded. Each prefix of them is then replayed as a disk might show
it after a power cut: what was written and not flushed is lost, and of the names made, moved or removed since
their folder was flushed all, none, or any of them may have taken effect.
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.model import load_model
from fedreid_mpi.results import read_run
from fedreid_mpi.run import checkpoint
from fedreid_mpi.run.checkpoint import folder_of, newest_whole
from fedreid_mpi.run.loop import run_federation
from support.small import Silent, write_experiment

SUBSETS = 3
"""Random choices of what took effect, for each moment, beside all and nothing."""


class Recorder:
    """Takes down what happens to names in a folder, and what contents are flushed."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.operations = []  # (folder, name, content or None: removed) | (folder, None, None): flushed
        self.finished = {}  # round to the number of operations up to its end
        self._flushed = {}
        real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "mkdir", "link")}
        rmtree = shutil.rmtree

        def fsync(handle):
            real["fsync"](handle)
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if path.is_dir():
                self._note(path, None, None)
            else:
                self._flushed[path] = path.read_bytes()

        def replace(source, target):
            real["replace"](source, target)
            self._note(Path(target).parent, Path(target).name, self._flushed.pop(Path(source), b"lost"))

        def unlink(path, **options):
            real["unlink"](path, **options)
            if "dir_fd" not in options:
                self._note(Path(path).parent, Path(path).name, None)

        def mkdir(path, *args, **options):
            real["mkdir"](path, *args, **options)
            self._note(Path(path).parent, Path(path).name, "folder")

        def remove(folder):
            for path in sorted(folder.iterdir()):
                self._note(folder, path.name, None)
            self._note(folder.parent, folder.name, None)
            rmtree(folder)

        for name, function in {"fsync": fsync, "replace": replace, "unlink": unlink, "mkdir": mkdir}.items():
            monkeypatch.setattr(os, name, function)
        monkeypatch.setattr(checkpoint.shutil, "rmtree", remove)

    def _note(self, folder, name, content):
        if folder == self.root or self.root in folder.parents:
            self.operations.append((folder.relative_to(self.root), name, content))

    def started(self, header, notes):
        pass

    def finished_round(self, round):
        self.finished[round] = len(self.operations)


def after_a_cut(operations, took_effect):
    """Return what the disk holds: relative path to content; folders that nothing leads to are gone."""
    durable, pending = {}, []
    for operation in operations:
        folder, name, _ = operation
        if name is None:
            for other in [other for other in pending if other[0] == folder]:
                _apply(durable, other)
            pending = [other for other in pending if other[0] != folder]
        else:
            pending.append(operation)
    for operation in pending:
        if took_effect():
            _apply(durable, operation)
    return {
        path: content
        for path, content in durable.items()
        if all(parent in durable or parent == Path() for parent in path.parents)
    }


def _apply(durable, operation):
    folder, name, content = operation
    if content is None:
        durable.pop(folder / name, None)
    else:
        durable[folder / name] = content


def materialise(state, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in sorted(state.items()):
        if content == "folder":
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


@pytest.mark.timeout(600)
def test_every_moment_of_a_commit(archives, tmp_path, monkeypatch):
    sections = {"run": {"rounds": 2}, "checkpoint": {"keep": 1}}
    path = write_experiment(tmp_path / "x.toml", archives[:2], **sections)
    (tmp_path / "run").mkdir()
    recorder = Recorder(tmp_path / "run", monkeypatch)

    class Watcher(Silent):
        def finished(self, record):
            recorder.finished_round(record.plan.round)

    run_federation(SingleCommunicator(), load_experiment(path), tmp_path / "run", Watcher())
    monkeypatch.undo()
    whole = after_a_cut(recorder.operations, lambda: True)
    on_disk = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*")}
    assert on_disk - set(whole) == {Path("lock")}  # the shim has seen everything

    chance, seen, moments = random.Random(0), set(), 0
    for cut in range(len(recorder.operations) + 1):
        committed = max((r for r, end in recorder.finished.items() if end <= cut), default=-1)
        choices = [lambda: True, lambda: False] + SUBSETS * [lambda: chance.random() < 0.5]
        for took_effect in choices:
            state = after_a_cut(recorder.operations[:cut], took_effect)
            key = (committed, tuple(sorted((str(path), hash(content)) for path, content in state.items())))
            if key in seen:
                continue
            seen.add(key)
            moments += 1
            materialise(state, tmp_path / "cut")
            check(tmp_path / "cut", committed)
    assert moments > 50


def check(run_dir, committed):
    """Find the state of the last finished round, or of the one that was being committed."""
    manifest, damage = newest_whole(run_dir)
    found = -1 if manifest is None else manifest.round
    assert damage == ()
    assert found in (committed, committed + 1)
    if list(run_dir.glob("results_*.h5")):
        rounds = read_run(run_dir).rounds.tolist()
        assert rounds == list(range(len(rounds)))
        assert len(rounds) - 1 in (found, found + 1)
    else:
        assert found == -1
    if manifest is not None:
        load_model(folder_of(run_dir, found) / "global.safetensors")
    for model in sorted(run_dir.glob("models/**/*.safetensors")):
        load_model(model)
