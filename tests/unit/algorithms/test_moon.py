"""MOON: by hand, without a trace on the working model, and against a plain derivation of three rounds."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from fedreid_mpi.algorithms.moon import PREVIOUS, contrastive_loss
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.samplers import epoch_batches
from fedreid_mpi.federated.client import train
from fedreid_mpi.model import backbones, batch_statistics, features_of
from fedreid_mpi.records import RoundPlan
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.learners import learner
from support.small import Silent, write_experiment, write_site

MU, TAU = 2.0, 0.5
PLAN = RoundPlan(2, (0,), 0.05, evaluate=False)


def test_the_loss_by_hand():
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0]], requires_grad=True)
    of_global = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # cosines 1 and 1/√2
    of_previous = torch.tensor([[0.0, 5.0], [0.0, -1.0]])  # cosines 0 and -1
    loss = contrastive_loss(features, of_global, of_previous, 0.5)
    cosines = [(1, 0), (1 / math.sqrt(2), -1)]
    shares = [math.exp(g / 0.5) / (math.exp(g / 0.5) + math.exp(p / 0.5)) for g, p in cosines]
    assert loss.item() == pytest.approx(-sum(map(math.log, shares)) / 2)
    loss.backward()
    # The gradient is (1 - share)/τ (∇cos_p - ∇cos_g), with ∇cos(z, w) = (ŵ - cos ẑ)/‖z‖, half of it each.
    first = (1 - shares[0]) / 0.5 * np.array([0, 1 / 2]) / 2
    second = (1 - shares[1]) / 0.5 * np.array([-1 / math.sqrt(2), 0]) / 3 / 2
    np.testing.assert_allclose(features.grad.numpy(), [first, second], rtol=1e-5, atol=1e-7)


def test_equal_models_have_no_gradient():
    features = torch.randn(4, 3, requires_grad=True)
    other = torch.randn(4, 3)
    loss = contrastive_loss(features, other, other, TAU)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert not features.grad.any()


@pytest.fixture
def client(tmp_path):
    site = write_site(tmp_path / "site.h5", images=20, people=4)
    path = write_experiment(
        tmp_path / "x.toml", [site], model={"dropout": 0.5}, objective={"contrastive": MU, "temperature": TAU}
    )
    experiment = load_experiment(path)
    return lambda: learner(site, experiment)


def test_features_of_another_model_leave_no_trace(client):
    model = client().model
    random = torch.Generator().manual_seed(1)
    images = torch.randn(6, 3, 32, 16, generator=random)
    other = model.shared + 0.1 * torch.rand(model.shared.shape, generator=random)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    expected = copy.deepcopy(model.network)
    state = torch.get_rng_state()
    with torch.no_grad(), batch_statistics(model.network):
        own = model.network.features(images)
        found = features_of(model, other)(images)
        again = model.network.features(images)
    assert torch.equal(own, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    model.shared.copy_(other)  # the flat buffer is still the network's
    expected.load_state_dict(model.network.state_dict())
    with torch.no_grad(), batch_statistics(expected):
        torch.testing.assert_close(found, expected.features(images), rtol=0, atol=0)


def test_where_both_models_are_the_same_the_client_trains_as_in_fedpav(client):
    """Statistics, dropout and all: the passes of the two other models leave no trace."""
    plain, contrasted = client(), client()
    start = plain.model.shared.clone()
    train(plain.data, plain.model, PLAN, plain.experiment)  # its first turn: the term is left out
    trained = train(
        contrasted.data, contrasted.model, PLAN, contrasted.experiment, memory={PREVIOUS: start.clone()}
    )
    assert torch.equal(plain.model.buffer, contrasted.model.buffer)
    assert torch.equal(trained.memory[PREVIOUS], contrasted.model.shared)
    assert trained.memory[PREVIOUS].data_ptr() != contrasted.model.shared.data_ptr()
    away = start + 0.05 * torch.randn(start.shape, generator=torch.Generator().manual_seed(3))
    other = client()
    train(other.data, other.model, PLAN, other.experiment, memory={PREVIOUS: away})
    assert not torch.equal(plain.model.buffer, other.model.buffer)


class Smooth(nn.Module):
    """A backbone without kinks: with ReLU the last bit of a sum can decide whether a unit is on."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.norm(self.first(x))))).mean((2, 3))


def derive_plainly(archives, experiment, participants):
    """Three rounds with copies of whole networks, `torch.optim.SGD` and a plain weighted mean."""
    learners = [learner(path, experiment, id) for id, path in enumerate(archives)]
    states = [copy.deepcopy(each.model.network.state_dict()) for each in learners]
    shared = {name: value for name, value in states[0].items() if not name.startswith("classifier")}
    previous = {}
    for round, clients in enumerate(participants, start=1):
        found = {}
        for id in clients:
            data, network = learners[id].data, copy.deepcopy(learners[id].model.network)
            network.load_state_dict({**states[id], **shared})
            of_round = copy.deepcopy(network).train()
            head = [*network.embedding.parameters(), *network.embedding_bn.parameters()]
            head += network.classifier.parameters()
            groups = [{"params": network.backbone.parameters(), "lr": 0.005}, {"params": head, "lr": 0.05}]
            sgd = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
            network.train()
            for rows in epoch_batches(len(data.images), 8, False, generator(3, "train", round, id)):
                images = data.images.batch(rows).permute(0, 3, 1, 2).float() / 255
                mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
                images = (images - mean[:, None, None]) / deviation[:, None, None]
                z = network.features(images)
                loss = F.cross_entropy(network.classifier(z), data.labels[torch.from_numpy(rows)])
                if id in previous:
                    near, far = (
                        (z * w).sum(1) / z.norm(dim=1) / w.norm(dim=1) / TAU
                        for w in (other.features(images).detach() for other in (of_round, previous[id]))
                    )
                    loss = loss - MU * torch.log(near.exp() / (near.exp() + far.exp())).mean()
                sgd.zero_grad()
                loss.backward()
                sgd.step()
            states[id] = network.state_dict()
            previous[id] = copy.deepcopy(network)
            found[id] = len(data.images)
        total = sum(found.values())
        shared = {
            name: sum(states[id][name].double() * images / total for id, images in found.items()).float()
            for name in shared
        }
    return {name: value for name, value in shared.items() if not name.endswith("num_batches_tracked")}


def test_three_rounds_are_those_of_a_plain_derivation(archives, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "small", lambda last_stride: backbones.Backbone(Smooth(), 16))
    sections = {
        "run": {"rounds": 3},
        "augmentation": {"pad": 0, "flip": 0.0},
        "federation": {"availability": {"campus": [[2, 2]]}},
        "compute": {"channels_last": False},
        "evaluation": {"every": 3},
    }
    models = {}
    for weight in (0.0, MU):
        objective = {"contrastive": weight, "temperature": TAU} if weight else {}
        path = write_experiment(tmp_path / "x.toml", archives[:3], **sections, objective=objective)
        run_dir = tmp_path / f"run{weight}"
        run_federation(SingleCommunicator(), load_experiment(path), run_dir, Silent())
        models[weight] = load_file(run_dir / "models" / "global.safetensors")
    trained = read_run(run_dir).participated[1:]
    participants = [tuple(np.flatnonzero(row).tolist()) for row in trained]
    assert participants == [(0, 1, 2), (0, 2), (0, 1, 2)]
    expected = derive_plainly(archives[:3], load_experiment(path), participants)
    assert models[MU].keys() == expected.keys()
    moved = 0.0
    for name, value in expected.items():
        torch.testing.assert_close(models[MU][name], value, rtol=1e-4, atol=2e-6, msg=name)
        moved = max(moved, float((models[MU][name] - models[0.0][name]).abs().max()))
    assert moved > 1e-3  # what a wrong term would not hide in
