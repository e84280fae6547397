"""What a study says it costs is what a hand counts, and what its runs put through the network."""

from collections import Counter

import pytest
import torch

from fedreid_mpi.cli import run
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_suite
from fedreid_mpi.model import ReIDNetwork
from fedreid_mpi.run.cost import Cost, method_costs
from fedreid_mpi.run.loop import run_federation
from support.small import Silent, write_experiment, write_folds, write_public, write_suite

# Three clients of 26, 9 and 17 images, of which an epoch in batches of 8 uses 26, 8 and 16; the first two are
# tested on 5 queries and 9 gallery images each. 36 public images; two rounds, and round 0, are all scored.
# Of the unseen dataset every image is in a query or gallery of some split.
EPOCH, TESTED, PUBLIC, UNSEEN = 26 + 8 + 16, 14 + 14, 36, 90
METHODS = {
    "plain": {},
    "alone": {"federation": {"mode": "local"}},
    "pooled": {"federation": {"mode": "centralised"}},
    "seldom": {
        "federation": {"local_epochs": 2, "drop_last": True},
        "evaluation": {"every": 2, "local_models": False},
    },
    "weighed": {
        "data": {"public": "public.h5"},
        "federation": {"batch_size": 32},
        "aggregation": {"weights": "cosine-distance", "probe": "public"},
        "evaluation": {"every": 2, "local_models": False},
    },
    "unseen": {"data": {"unseen": ["folds.h5"]}, "evaluation": {"local_models": False}},
    "people": {
        "federation": {"sampler": "identities", "local_iterations": 3},
        "evaluation": {"every": 2, "local_models": False},
    },
    "contrasted": {
        "objective": {"contrastive": 1.0},
        "evaluation": {"every": 2, "local_models": False},
    },
    "everything": {
        "data": {"public": "public.h5"},
        "distillation": {"enabled": True},
        "clustering": {"enabled": True},
        "aggregation": {"weights": "cosine-distance"},
        "evaluation": {"reestimate_bn": True},
    },
}
COSTS = {
    "plain": Cost(2 * EPOCH, 3 * TESTED + 2 * TESTED, 0),
    "alone": Cost(2 * EPOCH, 2 * TESTED, 0),
    "pooled": Cost(2 * (26 + 9 + 17), 3 * TESTED, 0),
    "seldom": Cost(2 * 2 * (24 + 8 + 16), 2 * TESTED, 0),
    "weighed": Cost(2 * (26 + 9 + 17), 2 * TESTED, 2 * 3 * 2 * 32),
    "unseen": Cost(2 * EPOCH, 3 * (TESTED + UNSEEN), 0),
    "people": Cost(2 * 3 * 3 * 8, 2 * TESTED, 0),
    "contrasted": Cost(2 * EPOCH, 2 * TESTED, 2 * EPOCH),
    "everything": Cost(
        2 * (EPOCH + PUBLIC),
        (1 + 2 + 2) * TESTED + 2 * TESTED + 3 * TESTED,
        2 * 3 * (2 * 8 + 32 + PUBLIC) + 3 * (26 + 9),
    ),
}


@pytest.fixture
def suite(archives, tmp_path):
    few = [archive for archive in archives if archive.stem in ("harbour", "campus", "mall")]
    write_experiment(tmp_path / "base.toml", few)
    write_public(tmp_path / "public.h5")
    write_folds(tmp_path / "folds.h5")
    return write_suite(tmp_path / "suite.toml", METHODS, seeds=(4, 1))


def test_a_suite_costs_what_a_hand_counts(suite):
    found = method_costs(load_suite(suite).runs)
    assert found == {method: cost + cost for method, cost in COSTS.items()}  # two seeds


@pytest.mark.parametrize("method", METHODS)
def test_a_run_puts_through_the_network_what_was_said(method, suite, tmp_path, monkeypatch):
    """Images with gradients are trained on; scored ones pass twice, with their mirror images."""
    passed = Counter()
    embed = ReIDNetwork.embed

    def counted(self, images):
        passed[torch.is_grad_enabled()] += len(images)
        return embed(self, images)

    monkeypatch.setattr(ReIDNetwork, "embed", counted)
    experiment = next(run.experiment for run in load_suite(suite).runs if run.method == method)
    run_federation(SingleCommunicator(), experiment, tmp_path / "run", Silent())
    said = COSTS[method]
    assert (passed[True], passed[False]) == (said.trained, 2 * said.scored + said.measured)


def test_the_cost_is_told_with_the_list_and_before_the_first_run(suite, tmp_path, capsys, monkeypatch):
    methods = {"plain": {"label": "FedPav"}, "broken": {"data": {"archives": ["gone.h5"]}}}
    write_suite(suite, methods, seeds=(4, 1))
    assert run(["study", str(suite), "--list"]) == 0
    told = capsys.readouterr()
    assert told.out.split() == ["plain-seed4", "broken-seed4", "plain-seed1", "broken-seed1"]
    rows = [line.split() for line in told.err.splitlines()]
    assert ["plain", "(FedPav)", "2", "200", "280", "0"] in rows
    assert ["all", "others", "2", "200", "280", "0"] in rows
    assert next(row for row in rows if row[:1] == ["broken:"])[-4:] == ["2", "?", "?", "?"]

    with pytest.raises(SystemExit):
        run(["study", str(suite), str(tmp_path / "study"), "--member", "2"])
    told = capsys.readouterr()
    assert ["plain", "(FedPav)", "1", "100", "140", "0"] in [line.split() for line in told.err.splitlines()]

    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")  # a task of a job array looks its own name up
    assert run(["study", str(suite), "--list"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    write_suite(suite, {"broken": methods["broken"]})
    assert run(["study", str(suite), "--list"]) == 0
    assert capsys.readouterr().err == f"cost unknown: {tmp_path}/gone.h5: no such file\n"
