"""What a client remembers between rounds comes back after a stop, and as it was where a turn failed."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import DataError
from fedreid_mpi.federated import memory
from fedreid_mpi.model import load_vectors, save_tensors
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import folder_of, newest_whole
from fedreid_mpi.run.loop import run_federation
from support.same_runs import assert_same_run
from support.small import Silent, StopAfter, write_experiment


def turns(finished):
    """How many turns the client has had, and how many steps in all."""
    before = finished.turn.memory.get("turns", torch.zeros(2))
    return before + torch.tensor([1.0, finished.steps])


@pytest.fixture
def remembering(monkeypatch):
    monkeypatch.setattr(memory, "MEMORIES", {**memory.MEMORIES, "turns": turns})


def play(path, run_dir, *overrides, observer=None, resume=False):
    experiment = load_experiment(path, overrides)
    return run_federation(SingleCommunicator(), experiment, run_dir, observer or Silent(), resume=resume)


def remembered(run_dir):
    """Client to what it remembers in the newest checkpoint."""
    manifest, _ = newest_whole(run_dir)
    folder = folder_of(run_dir, manifest.round)
    stored = {}
    for name in sorted(set(manifest.private)):
        stored |= {key: value for key, value in load_file(folder / name).items() if "/memory/turns" in key}
    return {int(key.partition("/")[0]): value.tolist() for key, value in stored.items()}


@pytest.mark.parametrize("mode", ["federated", "local"])
def test_a_client_remembers_through_a_resume(mode, remembering, archives, tmp_path):
    path = write_experiment(
        tmp_path / "x.toml",
        archives[:2],
        run={"rounds": 3},
        federation={"mode": mode, **({"clients_per_round": 1} if mode == "federated" else {})},
    )
    play(path, tmp_path / "whole")
    play(path, tmp_path / "stopped", observer=StopAfter(tmp_path / "stopped", 1))
    play(path, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    results = read_run(tmp_path / "whole")
    trained = results.participated[1:]
    steps = np.where(trained, results.steps[1:], 0).sum(0)
    expected = {k: [float(trained[:, k].sum()), float(steps[k])] for k in np.flatnonzero(trained.any(0))}
    assert remembered(tmp_path / "stopped") == remembered(tmp_path / "whole") == expected


def test_a_client_that_diverges_remembers_what_it_did_before(remembering, archives, tmp_path):
    path = write_experiment(
        tmp_path / "y.toml",
        archives[:2],
        run={"rounds": 3},
        optimizer={"lr": 300.0, "schedule": "step", "step_every": 1, "step_factor": 1e-6},
    )
    play(path, tmp_path / "wild")
    finite = read_run(tmp_path / "wild").finite[1:]
    assert not finite[0].all()
    counted = {client: turns for client, (turns, _) in remembered(tmp_path / "wild").items()}
    assert counted == dict(enumerate(finite.sum(0)))


def test_a_memory_that_is_not_finite_is_a_diverged_turn(archives, tmp_path, monkeypatch):
    monkeypatch.setattr(
        memory, "MEMORIES", {"bad": lambda finished: torch.tensor([torch.inf] * (finished.steps < 3))}
    )
    path = write_experiment(tmp_path / "x.toml", archives[:2], run={"rounds": 1})
    play(path, tmp_path / "run")
    assert read_run(tmp_path / "run").finite[1].tolist() == [True, False]


def test_only_vectors_are_read(tmp_path):
    path = tmp_path / "some.safetensors"
    save_tensors(path, {"a/x": torch.ones(2), "a/y": torch.zeros(0), "b/x": torch.ones(2, 2)}, {})
    found = load_vectors(path, "a/")
    assert {name: vector.tolist() for name, vector in found.items()} == {"x": [1.0, 1.0], "y": []}
    with pytest.raises(DataError, match=r"tensor b/x has shape \[2, 2\], expected \[4\]"):
        load_vectors(path, "b/")
