"""The paths of a GPU on a machine without one: no operation mixes devices, and no batch reads back.

What depends on values is in `test_cuda_values.py`, what needs a real GPU in `test_gpu.py`.
"""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedreid_mpi.algorithms.distillation import distillation_loss
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import Compute, Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import ImageStore
from fedreid_mpi.device import autocast
from fedreid_mpi.evaluation import extract_features, features, query_then_gallery
from fedreid_mpi.federated import objectives, scoring
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.federated.sgd import Sgd, descend
from fedreid_mpi.model import build_network
from fedreid_mpi.records import CMC_RANKS, Role, RoundPlan, Scores, no_heartbeat
from fedreid_mpi.run.setup import describe_clients, open_archives, require_open, set_up
from fedreid_mpi.run.state import ResumePoint
from support.fake_cuda import CPU, CUDA, MIXED, DeviceMixError, fake_cuda
from support.learners import learner, the_only
from support.small import EXPERIMENT, write_folds, write_public, write_site

BATCHES = 4
"""Of the first site's 26 images, eight at a time; the last two make one of their own."""

PLAN = RoundPlan(round=1, participants=(0,), learning_rate=0.05, evaluate=False)

EVERYTHING = {"pad": 2, "jitter": (0.2, 0.2, 0.2, 0.1), "erasing": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    write_site(folder / "one.h5", images=26, people=3)
    write_site(folder / "two.h5", images=9, people=2)
    write_public(folder / "public.h5")
    write_folds(folder / "folds.h5")
    return folder


@pytest.fixture
def arithmetic():
    """Undo what the set-up of a run sets for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def experiment(folder, **sections):
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()}
    content["data"] = {"archives": [folder / "one.h5", folder / "two.h5"], "public": folder / "public.h5"}
    content["compute"] = {"device": "cuda"}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    content["data"]["unseen"] = [folder / name for name in content["data"].get("unseen", ())]
    return Experiment.model_validate(content)


def on_cuda(folder, **sections):
    return learner(folder / "one.h5", experiment(folder, **sections), device=CUDA)


# Whole rounds.


def play(settings, folder, rounds):
    """Play rounds in one process on a GPU; return its state, and who read back how often in the first."""
    with fake_cuda() as watch:
        opened = require_open(open_archives(settings, is_server=True))
        specs = describe_clients(settings, opened)
        begin = ResumePoint(1, -1, ((0, 1),), (0, 1))
        state = set_up(SingleCommunicator(), settings, opened, specs, folder, begin, no_heartbeat)
        reads = []
        for round in range(1, rounds + 1):
            watch.reads.clear()
            record = run_round(state, plan_round(settings, specs, round))
            assert [report.finite for report in record.reports] == [True, True]
            reads.append(Counter(watch.reads))
    return state, reads[0]


METHODS = {
    "FedPav": {},
    "the paper's three": {
        "clustering": {"enabled": True},
        "distillation": {"enabled": True},
        "aggregation": {"weights": "cosine-distance", "probe": "public"},
    },
    "mean features": {
        "clustering": {"enabled": True, "feature": "mean"},
        "distillation": {"enabled": True, "batchnorm": "train", "scope": "global"},
    },
    "FedProx": {
        "objective": {"proximal": 0.1},
        "aggregation": {"bn": "reference"},
        "model": {"dropout": 0.5, "neck": "bnneck"},
        "augmentation": EVERYTHING,
        "compute": {"precision": "bf16"},
    },
    "triplets and contrasts": {
        "federation": {"sampler": "identities", "images_per_identity": 2},
        "model": {"embedding_dim": 0, "neck": "bnneck"},
        "objective": {"triplet": 1.0, "contrastive": 1.0},
        "evaluation": {"mirror": False},
    },
    "all scores": {
        "aggregation": {"bn": "local"},
        "evaluation": {"local_models": True, "reestimate_bn": True},
        "data": {"unseen": ("folds.h5",)},
    },
    "FedNova": {"aggregation": {"rule": "fednova"}, "server": {"optimizer": "adam"}},
    "SCAFFOLD": {"aggregation": {"rule": "scaffold", "bn": "local"}, "server": {"optimizer": "momentum"}},
    "alone": {"federation": {"mode": "local"}},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_round_keeps_to_its_devices_and_reads_as_often_whatever_its_batches(
    method, folder, arithmetic, monkeypatch
):
    def rank(extracted, split, scoring, advance):
        """Ranking needs values; it is tested with them below."""
        for role in ("query", "gallery"):
            assert extracted.of(extracted.archive.split(role, split)).device == CUDA
        return SimpleNamespace(scores=lambda: Scores(np.ones(CMC_RANKS), 1.0, 1.0, 5, 0))

    monkeypatch.setattr(scoring, "score_split", rank)
    sections = {name: dict(keys) for name, keys in METHODS[method].items()}
    state, reads = play(experiment(folder, **sections), folder, rounds=2)  # the second finds used memory
    assert {model.device for model in state.progress.models} <= {CUDA}
    assert {private.device for private in state.progress.private.values()} == {CPU}
    assert {tensor.device for tensor in state.model.network.state_dict().values()} == {CUDA}

    sections["federation"] = sections.get("federation", {}) | {"batch_size": 4}
    assert play(experiment(folder, **sections), folder, rounds=1)[1] == reads


# Training.


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("free", [1 << 40, 0], ids=["resident", "fetched"])
def test_training_reads_back_once(precision, free, folder):
    with fake_cuda(free) as watch:
        client = on_cuda(folder, compute={"precision": precision}, augmentation=EVERYTHING)
        watch.reads.clear()
        assert client.train(PLAN).steps == BATCHES
    assert watch.reads == ["federated.sgd.descend"]


def test_a_probe_reads_back_its_logits_alone(folder):
    with fake_cuda() as watch:
        client = on_cuda(folder)
        watch.reads.clear()
        assert client.probe(PLAN).shape == (8, 3)
    assert watch.reads == ["federated.probes.logits"]


def test_features_stay_on_the_device(folder, monkeypatch):
    monkeypatch.setitem(features.BATCH, "cuda", 4)
    with fake_cuda() as watch:
        network = on_cuda(folder).model.network
        watch.reads.clear()
        archive = DatasetArchive.open(folder / "one.h5")
        images = query_then_gallery(archive)
        found = extract_features(network, archive, images, Compute(), True)
        assert found.device == CUDA
        assert found.shape == (len(images), 16)
    assert watch.reads == []


@pytest.mark.parametrize(
    ("backbone", "last_stride"),
    [
        *(("small", 1), ("resnet18", 1), ("resnet50", 1), ("resnet50_ibn_a", 1), ("resnet50_ibn_b", 1)),
        *(("osnet_x1_0", 2), ("mobilenet_v2", 1), ("timm:test_vit", 2), ("timm:test_efficientnet", 2)),
    ],
)
def test_backbones_run_in_bfloat16_where_it_is_asked_for(backbone, last_stride, folder):
    settings = experiment(folder, model={"backbone": backbone, "last_stride": last_stride})
    with fake_cuda():
        network = build_network(settings.model, 3, 0, size=(64, 32)).place(CUDA, torch.channels_last)
        images = torch.empty(4, 3, 64, 32, device=CUDA)
        with autocast(Compute(precision="bf16"), CUDA):
            logits = network(images)
        assert (logits.device, logits.dtype) == (CUDA, torch.bfloat16)
        assert network(images).dtype == torch.float32


# Planted faults: what is tested above can fail.


def labels_on_the_host(client, folder):
    return replace(client, data=replace(client.data, labels=client.data.labels.cpu()))


def images_on_the_host(client, folder):
    opened, part = the_only(folder / "one.h5")
    images = ImageStore([(opened[n].images, indices) for n, indices in part.sources], CPU)
    return replace(client, data=replace(client.data, images=images))


def statistics_on_the_host(client, folder):
    client.model.network.embedding_bn.running_mean = torch.zeros(16)
    return client


def classifier_on_the_host(client, folder):
    client.model.network.classifier = nn.Linear(16, 3)
    return client


@pytest.mark.parametrize(
    "plant", [labels_on_the_host, images_on_the_host, statistics_on_the_host, classifier_on_the_host]
)
def test_a_mix_of_devices_is_caught(plant, folder):
    with fake_cuda():
        client = plant(on_cuda(folder), folder)
        with pytest.raises(RuntimeError, match=MIXED):
            client.train(PLAN)


def test_a_start_on_the_host_is_caught(folder):
    with fake_cuda():
        client = on_cuda(folder, objective={"proximal": 0.1})
        turn = objectives.ClientTurn(client.experiment, client.model, client.model.shared.cpu())
        loss = objectives.objective_of(turn)(*batch(client))
        torch.autograd.backward(loss)
        (correct,) = objectives.corrections_of(turn)
        with pytest.raises(RuntimeError, match=MIXED):
            correct()


def batch(client):
    return torch.empty(4, 3, 32, 16, device=CUDA), client.data.labels[:4]


def test_targets_on_the_host_are_caught(folder):
    def loss_of(images, target):
        return distillation_loss(client.model.network.features(images), target)

    with fake_cuda():
        client = on_cuda(folder)
        images, _ = batch(client)
        with pytest.raises(RuntimeError, match=MIXED):
            descend(client.model, optimizer_of(client), [(images, torch.empty(4, 16))], loss_of, 1)


def optimizer_of(client):
    parameters = client.model.parameters(Role.BACKBONE, Role.EMBEDDING)
    return Sgd([(parameters, 0.1)], client.experiment.optimizer)


def test_momentum_on_the_host_is_caught(folder):
    with fake_cuda():
        client = on_cuda(folder)
        optimizer = optimizer_of(client)
        for parameter in client.model.parameters(Role.BACKBONE, Role.EMBEDDING):
            parameter.grad = torch.empty_like(parameter)
            optimizer.momenta[parameter] = torch.empty(parameter.shape)
        with pytest.raises(RuntimeError, match=MIXED):
            optimizer.step()


def mask(logits):
    scratch = logits.detach().clone()
    scratch[scratch[:, 0] > 0] = torch.zeros(scratch.shape[1], device=CUDA)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda logits: logits.sum().item(), id="item"),
        pytest.param(lambda logits: float(logits.detach().max()), id="float"),
        pytest.param(lambda logits: bool(logits.isnan().any()), id="if"),
        pytest.param(lambda logits: logits.detach().cpu(), id="cpu"),
        pytest.param(lambda logits: torch.empty(logits.shape).copy_(logits.detach()), id="copy"),
        pytest.param(lambda logits: np.asarray(logits.detach().cpu()), id="numpy"),
        pytest.param(mask, id="mask"),
    ],
)
def test_a_read_within_a_batch_is_caught(read, folder, monkeypatch):
    def term(turn):
        def loss(outputs):
            read(outputs.logits)
            return outputs.logits.mean()

        return loss

    monkeypatch.setattr(objectives, "TERMS", (*objectives.TERMS, term))
    with fake_cuda() as watch:
        client = on_cuda(folder)
        watch.reads.clear()
        client.train(PLAN)
    assert watch.reads == ["federated.objectives.loss_of"] * BATCHES + ["federated.sgd.descend"]


def test_what_a_gpu_refuses_is_refused():
    with fake_cuda():
        there, here = torch.empty(3, device=CUDA), torch.empty(3)
        rows = torch.zeros(2, dtype=torch.int64)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        with pytest.raises(DeviceMixError, match="index"):
            here[rows.to(CUDA)]
        assert there[rows].device == CUDA  # which a GPU allows
