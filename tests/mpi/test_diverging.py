"""Clients that really diverge, at an absurd learning rate: left out, told of, and no reason to stop."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedreid_mpi import cli
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results import read_run, stable_figures
from support.launching import ERROR, fedreid
from support.small import SITES, write_experiment, write_public, write_site

# Three of five clients diverge in the first round at 10, and all in the second at 10,000.
SECTIONS = {
    "optimizer": {"lr": 10.0},
    "distillation": {"enabled": True},
    "clustering": {"enabled": True},
    "aggregation": {"weights": "cosine-distance"},
}


def train(folder, archives, **sections):
    """Train by the command line; give its exit code and the run directory."""
    sections = {"optimizer": {"lr": 100.0}, **sections}
    path = write_experiment(folder / "x.toml", archives, **sections)
    try:
        code = cli.run(["train", str(path), "--run-dir", str(folder / "run")])
    except SystemExit as end:
        code = end.code
    return code, folder / "run"


def everything(folder):
    public = write_public(folder / "public.h5")
    return SECTIONS | {"data": {"public": str(public)}}


def with_data(archives, sections):
    return sections | {"data": {"archives": [str(a) for a in archives], **sections.get("data", {})}}


def assert_finite(path):
    assert all(np.isfinite(tensor).all() for tensor in load_file(path).values())


def test_a_client_that_diverges_is_left_out_and_the_run_goes_on(archives, tmp_path):
    code, run_dir = train(tmp_path, archives, **with_data(archives, everything(tmp_path)))
    assert code == 0
    results = read_run(run_dir)
    finite = results.finite[1:]
    assert results.rounds.tolist() == [0, 1, 2]
    assert finite.any(1).all()
    assert not finite.all(1).any()
    for round, client in zip(*np.nonzero(~finite), strict=True):
        text = f"client {client} is left out: its model is not finite"
        assert [event.kind for event in results.events if (event.round, event.text) == (round + 1, text)] == [
            "non-finite"
        ]
        assert np.isnan(results.weight[round + 1, client])
        assert np.isnan(results.cosine_distance[round + 1, client])
        assert results.score(round + 1, client, ModelKind.LOCAL) is None
    grouped = np.isfinite(results.distances).any(2)
    np.testing.assert_array_equal(grouped, finite)
    for path in (run_dir / "models").rglob("*.safetensors"):
        assert_finite(path)


def test_a_client_that_diverged_starts_again_from_the_shared_model(tmp_path):
    """Its private classifier is what it was before, so that one bad round does not end it for good."""
    sites = [write_site(tmp_path / "small.h5", 9, people=3), write_site(tmp_path / "large.h5", 61, people=4)]
    sections = {"optimizer": {"lr": 100.0, "schedule": "step", "step_every": 1, "step_factor": 1e-6}}
    code, run_dir = train(tmp_path, sites, run={"rounds": 3}, **sections)
    assert code == 0
    finite = read_run(run_dir).finite[1:]
    assert finite.tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize("bn", ["average", "local"])
def test_statistics_of_a_client_that_diverged_are_not_kept(bn, archives, tmp_path):
    code, run_dir = train(
        tmp_path, archives, aggregation={"bn": bn}, evaluation={"reestimate_bn": True}, run={"rounds": 1}
    )
    assert code == 0
    results = read_run(run_dir)
    assert not results.finite[1].all()
    assert_finite(run_dir / "models" / "global.safetensors")


def test_alone_a_client_that_diverges_keeps_its_last_model(archives, tmp_path):
    code, run_dir = train(tmp_path, archives, federation={"mode": "local"}, run={"rounds": 1})
    assert code == 0
    results = read_run(run_dir)
    diverged = np.flatnonzero(~results.finite[1])
    assert 0 < len(diverged) < len(SITES)
    assert [event.round for event in results.events] == [1] * len(diverged)
    for number, name in enumerate(SITES):
        assert_finite(run_dir / "models" / "local" / f"{number}_{name}.safetensors")


@pytest.mark.parametrize("mode", ["local", "centralised"])
def test_alone_and_pooled_all_that_diverge_end_the_run(mode, archives, tmp_path, capsys):
    code, run_dir = train(
        tmp_path, archives, optimizer={"lr": 1e30}, federation={"mode": mode}, run={"rounds": 1}
    )
    assert code == 4
    assert "are finite, expected at least one" in capsys.readouterr().err
    assert read_run(run_dir).rounds.tolist() == [0]


def test_a_student_that_diverges_is_not_taken(archives, tmp_path):
    """The clients learn gently; the server's step is what explodes."""
    public = write_public(tmp_path / "public.h5")
    sections = {
        "optimizer": {"lr": 0.01},
        "distillation": {"enabled": True, "lr_factor": 1e30},
        "data": {"public": str(public)},
    }
    code, run_dir = train(tmp_path, archives, **with_data(archives, sections))
    assert code == 0
    results = read_run(run_dir)
    assert results.finite[1:].all()
    assert np.isnan(results.distillation_loss[1:]).all()
    assert [event.text for event in results.events] == [
        "group 0 keeps its aggregated model: the distilled one is not finite"
    ] * 2
    for client in (0, 1, 2, 4):
        before, after = (results.score(2, client, kind) for kind in (ModelKind.AGGREGATED, ModelKind.GLOBAL))
        assert before.cmc.tolist() == after.cmc.tolist()
    assert_finite(run_dir / "models" / "global.safetensors")


@pytest.mark.timeout(600)
def test_when_all_diverge_the_run_ends_in_one_line_with_the_last_good_model(archives, tmp_path, capsys):
    sections = with_data(archives, everything(tmp_path) | {"optimizer": {"lr": 1e4}})
    code, alone = train(tmp_path, archives, **sections)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(ERROR)]
    assert code == 4
    assert said == [
        f"{ERROR} after training, the models of none of 5 clients are finite, expected at least one "
        "(reliability.min_clients; a lower optimizer.lr may help)"
    ]
    ended = fedreid(3, "train", tmp_path / "x.toml", "--run-dir", "mpi", cwd=tmp_path, timeout=500)
    assert ended.code == 4
    assert ended.errors == said
    for run_dir in (alone, tmp_path / "mpi"):
        results = read_run(run_dir)
        assert results.rounds.tolist() == [0, 1]
        assert results.finite[1].any()
        left_out = [event for event in results.events if event.text.startswith("client ")]
        assert len(left_out) == np.count_nonzero(~results.finite[1])
    last = [(run_dir / "models" / "group_0.safetensors") for run_dir in (alone, tmp_path / "mpi")]
    assert_finite(last[0])
    assert last[0].read_bytes() == last[1].read_bytes()
    figures = stable_figures(tmp_path / "mpi")
    for name, values in stable_figures(alone).items():
        np.testing.assert_array_equal(figures[name], values, name)
