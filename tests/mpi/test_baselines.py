"""Baselines keep their optimiser over the rounds, as a training in one piece on one machine would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from fedreid_mpi.algorithms.seeds import derive, generator
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.comm.errors import PhaseError
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import augment
from fedreid_mpi.data.samplers import epoch_batches
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.model import build_network, initial_classifier
from fedreid_mpi.records.pixels import IMAGENET
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import folder_of, newest_whole
from fedreid_mpi.run.loop import run_federation
from support.federations import begun
from support.same_runs import assert_same_run
from support.small import Silent, StopAfter, write_experiment

ROUNDS, SEED, LR = 3, 3, 0.05
SECTIONS = {
    "run": {"rounds": ROUNDS},
    "federation": {"local_epochs": 2},
    "model": {"dropout": 0.5},
    "optimizer": {"schedule": "step", "step_every": 1, "step_factor": 0.5},
    "evaluation": {"every": ROUNDS},
}


def play(path, run_dir, *overrides, observer=None, resume=False):
    experiment = load_experiment(path, overrides)
    run_federation(SingleCommunicator(), experiment, run_dir, observer or Silent(), resume=resume)
    return run_dir


@pytest.fixture
def written(archives, tmp_path):
    """Write an experiment over two of the small sites in a mode."""

    def write(mode, **sections):
        federation = SECTIONS["federation"] | {"mode": mode}
        return write_experiment(
            tmp_path / f"{mode}.toml", archives[:2], **SECTIONS | {"federation": federation} | sections
        )

    return write


def trained_by_torch(settings, id, images, labels, restarted=False):
    """A plain training with torch's own SGD over the batches that a client sees; the network's state."""
    people = int(labels.max()) + 1
    network = build_network(settings.model, people, SEED, "shared", size=(32, 16))
    network.load_state_dict(initial_classifier(network, people, SEED, id), strict=False)
    network = network.place(torch.device("cpu"), torch.channels_last).train()
    backbone = list(network.backbone.parameters())
    head = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]

    def fresh():
        groups = [{"params": backbone}, {"params": head}]
        return torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)

    optimizer = fresh()
    for round in range(1, ROUNDS + 1):
        optimizer = fresh() if restarted else optimizer
        for group, factor in zip(optimizer.param_groups, (0.1, 1.0), strict=True):
            group["lr"] = LR * 0.5 ** (round - 1) * factor
        random = generator(SEED, "train", round, id)
        torch.manual_seed(derive(SEED, "train", round, id, "dropout"))
        for _ in range(settings.federation.local_epochs):
            for rows in epoch_batches(len(images), 8, False, random):
                batch = augment(torch.from_numpy(images[rows]), IMAGENET, settings.augmentation, random)
                optimizer.zero_grad()
                F.cross_entropy(network(batch), torch.from_numpy(labels[rows])).backward()
                optimizer.step()
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def sites(archives):
    """Images and labels of each site."""
    for path in archives:
        archive = DatasetArchive.open(path)
        chosen = archive.split("train")
        yield archive.images[chosen], np.unique(archive.pids[chosen], return_inverse=True)[1]


def assert_trained(path, expected):
    found = load_file(path)
    assert len(found) > 10
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_alone_three_rounds_are_one_training(written, archives, tmp_path):
    path = written("local")
    run_dir, settings = play(path, tmp_path / "run"), load_experiment(path)
    files = sorted((run_dir / "models" / "local").iterdir())
    for id, (file, (images, labels)) in enumerate(zip(files, sites(archives[:2]), strict=True)):
        assert_trained(file, trained_by_torch(settings, id, images, labels))
        with pytest.raises(AssertionError):  # what it would be if the momentum restarted
            assert_trained(file, trained_by_torch(settings, id, images, labels, restarted=True))


def test_centralised_three_rounds_are_one_training(written, archives, tmp_path):
    path = written("centralised")
    run_dir, settings = play(path, tmp_path / "run"), load_experiment(path)
    (first, ours), (second, theirs) = sites(archives[:2])
    images, labels = np.concatenate([first, second]), np.concatenate([ours, ours.max() + 1 + theirs])
    pool = next(client.id for client in read_run(run_dir).header.clients if client.dataset == -1)
    assert_trained(
        run_dir / "models" / "global.safetensors", trained_by_torch(settings, pool, images, labels)
    )


def remembered(run_dir):
    """What clients remember in the newest checkpoint, by client and name."""
    manifest, _ = newest_whole(run_dir)
    files = [load_file(folder_of(run_dir, manifest.round) / name) for name in sorted(set(manifest.private))]
    return {name: vector for file in files for name, vector in file.items() if "/memory/" in name}


@pytest.mark.parametrize("mode", ["local", "centralised"])
def test_a_baseline_that_was_stopped_goes_on_to_the_bit(mode, written, tmp_path):
    path = written(mode)
    whole = play(path, tmp_path / "whole")
    for round in (1, 2):
        stopped = tmp_path / f"stopped{round}"
        play(path, stopped, observer=StopAfter(stopped, round))
        play(path, stopped, resume=True)
        assert_same_run(stopped, whole)
        found, expected = remembered(stopped), remembered(whole)
        assert found.keys() == expected.keys()
        assert list(expected) == (
            ["0/memory/momentum", "1/memory/momentum"] if mode == "local" else ["2/memory/momentum"]
        )
        assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_clients_of_a_federation_begin_without_momentum(written, tmp_path):
    assert remembered(play(written("federated"), tmp_path / "run")) == {}


def test_there_is_nothing_to_remember_without_momentum(written, tmp_path):
    optimizer = {"momentum": 0.0, "nesterov": False}
    assert remembered(play(written("local", optimizer=optimizer), tmp_path / "run")) == {}


@pytest.mark.parametrize("mode", ["local", "centralised"])
def test_a_round_that_diverged_leaves_momentum_as_it_was(mode, written, tmp_path):
    settings = load_experiment(written(mode))

    def after(*rates):
        state = begun(settings, tmp_path)
        for round, rate in rates:
            plan = replace(plan_round(settings, state.specs, round), learning_rate=rate)
            if rate < 1:
                run_round(state, plan)
            else:
                with pytest.raises(PhaseError, match="are finite, expected"):
                    run_round(state, plan)
        return state.progress.private, state.progress.memory

    private, memory = after((1, LR), (2, 1e30), (3, LR))
    expected_private, expected_memory = after((1, LR), (3, LR))
    assert memory.keys() == expected_memory.keys()
    for id, vectors in expected_memory.items():
        assert torch.equal(memory[id]["momentum"], vectors["momentum"])
        assert torch.equal(private[id], expected_private[id])
