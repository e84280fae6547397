"""The cosine distance weight's measure, and lent BatchNorm statistics, against plain re-derivations."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.algorithms.weighting import LEAST_DISTANCE
from fedreid_mpi.config import Experiment, load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.federated.client import load_client, reestimated, train
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.model import batch_norms, batch_statistics, build_network
from fedreid_mpi.records.pixels import IMAGENET
from support.federations import begun
from support.learners import learner
from support.small import EXPERIMENT, PUBLIC_IMAGES, write_public, write_site


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Archives of three clients, one with two images, and a public one."""
    folder = tmp_path_factory.mktemp("sites")
    counts = {"large": 26, "small": 9, "tiny": 2}
    write_public(folder / "public.h5")
    return [write_site(folder / f"{name}.h5", n, people=2, seed=n) for name, n in counts.items()]


def settings_of(sites, probe="own", **sections):
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()}
    content["data"] = {"archives": sites or ["unused.h5"]}
    if probe == "public":
        content["data"]["public"] = sites[0].with_name("public.h5")
    content["aggregation"] = {"weights": "cosine-distance", "probe": probe}
    content["evaluation"] = {"every": 10}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    return Experiment.model_validate(content)


def distances(record):
    return [report.cosine_distance for report in record.reports]


def pixels(archive_path, role, rows):
    archive = DatasetArchive.open(archive_path)
    chosen = archive.images[archive.split(role)[rows]].astype(np.float64) / 255
    chosen = (chosen - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(chosen.transpose(0, 3, 1, 2)).float()


PROBES = ("own", "public")
HEADS = {"none": {"dropout": 0.5}, "bnneck": {"dropout": 0.5, "neck": "bnneck"}}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("head", HEADS)
def test_who_learns_nothing_is_at_distance_0_though_its_statistics_move(probe, head, sites, tmp_path):
    settings = settings_of(sites, probe, model=HEADS[head], optimizer={"lr": 1e-300})
    state = begun(settings, tmp_path)
    before = state.progress.models[0].clone()
    record = run_round(state, plan_round(settings, state.specs, 1))
    assert distances(record) == [0.0, 0.0, 0.0]
    assert set(record.weights.values()) == {LEAST_DISTANCE}
    moved, statistics = (state.progress.models[0] - before).abs(), state.model.statistics
    assert moved[: statistics.start].max() < 1e-10
    assert moved[statistics].max() > 0.01


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("head", HEADS)
def test_the_distance_is_that_of_the_logits_of_one_batch(probe, head, sites, tmp_path):
    """Derived anew: plain pixels, copies of the network in training mode without dropout, and NumPy."""
    settings = settings_of(sites, probe, model=HEADS[head])
    state = begun(settings, tmp_path)
    plan, expected = plan_round(settings, state.specs, 1), []
    for client in state.clients:
        if probe == "own":
            rows = generator(3, "probe", 1, client.spec.id).permutation(client.spec.images)[:8]
            batch = pixels(sites[client.spec.id], "train", rows)
        else:
            rows = generator(3, "probe", 1).permutation(PUBLIC_IMAGES)[:8]
            batch = pixels(settings.data.public, "public", rows)
        load_client(
            state.model,
            client.spec,
            state.progress.models[0],
            state.progress.private[client.spec.id],
            settings,
        )
        before = deepcopy(state.model.network).train()
        train(client, state.model, plan, settings)
        after = deepcopy(state.model.network).train()
        logits = []
        for network in (before, after):
            network.dropout.eval()
            with torch.no_grad():
                logits.append(network(batch).double().numpy())
        p, q = logits
        cosines = (p * q).sum(1) / np.sqrt((p**2).sum(1) * (q**2).sum(1))
        expected.append((1 - cosines).mean())
    record = run_round(begun(settings, tmp_path), plan)
    assert distances(record) == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 1e-4
    assert list(record.weights.values()) == distances(record)


def test_lent_statistics_are_those_of_the_batch_and_leave_no_trace():
    settings = settings_of([], model={"dropout": 0.5})
    network = build_network(settings.model, 3, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    batch[0, 0, 0, 0] = torch.inf  # nothing of it may stay
    with batch_statistics(network), torch.no_grad():
        network(batch)
        batch[0, 0, 0, 0] = 0
        embedded = network.embedding(network.backbone(batch))
        features = network.features(batch)
        assert torch.equal(network(batch), network(batch))  # dropout is off
    spread = embedded.var(0, unbiased=False)
    scaled = (embedded - embedded.mean(0)) / (spread + 1e-5).sqrt() * before["embedding_bn.weight"]
    torch.testing.assert_close(features, scaled + before["embedding_bn.bias"], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with torch.no_grad():
        assert not torch.allclose(network.features(batch), features)  # the running ones are back


def test_lent_statistics_are_given_back_after_an_error():
    network = build_network(settings_of([]).model, 3, 1)
    with pytest.raises(ValueError, match="more than 1 value"), batch_statistics(network):
        network(torch.zeros(1, 3, 32, 16))  # one image has no variance; no batch here has only one
    assert all(layer.track_running_stats and not layer.training for layer in batch_norms(network))


def test_a_public_probe_needs_a_public_dataset(sites, tmp_path):
    def load(*overrides):
        (tmp_path / "x.toml").write_text(f'data.archives = ["{sites[0]}"]')
        return load_experiment(tmp_path / "x.toml", overrides)

    weighed = "aggregation.weights=cosine-distance"
    with pytest.raises(
        ConfigurationError, match=r'aggregation\.probe = "public" needs data\.public, the archive'
    ):
        load(weighed, "aggregation.probe=public")
    with pytest.raises(
        ConfigurationError, match=r'aggregation\.probe has no effect when aggregation\.weights = "s'
    ):
        load("aggregation.probe=public", f"data.public={sites[1]}")
    with pytest.raises(
        ConfigurationError, match=r"data\.public has no effect when there is no distillation, no clustering, "
    ):
        load(weighed, f"data.public={sites[1]}")
    assert load(weighed, "aggregation.probe=public", f"data.public={sites[1]}").uses_public


def test_reestimated_variances_are_those_of_all_images_though_they_lie_by_person(tmp_path):
    """In that order a batch shows two people, and what tells people apart would be missed."""
    path = write_site(tmp_path / "site.h5", 96, people=24)
    settings = settings_of([], federation={"batch_size": 8})
    one = learner(path, settings)
    archive = DatasetArchive.open(path)
    by_person = np.argsort(archive.pids[archive.split("train")], kind="stable")
    network, data = one.model.network, one.data
    fetch = data.images.batch

    class ByPerson:
        """The images in the order in which folders have them."""

        def __len__(self):
            return 96

        def batch(self, rows):
            return fetch(by_person[rows])

    with torch.no_grad():
        stem = network.backbone.stem(pixel_unshuffle(normalise(fetch(by_person), IMAGENET), 2))
    population = stem.var((0, 2, 3))
    in_order = torch.stack([part.var((0, 2, 3)) for part in stem.split(8)]).mean(0)
    with reestimated(replace(data, images=ByPerson()), one.model, settings):
        found = network.backbone.bn.running_var.clone()
    assert (in_order / population).mean() < 0.9
    assert (found / population).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(3, 2, [3]), (2, 8, [2]), (9, 2, [3, 2, 2, 2])])
def test_no_batch_of_a_reestimation_holds_a_single_image(images, batch_size, sizes, tmp_path):
    settings = settings_of([], federation={"batch_size": batch_size})
    one = learner(write_site(tmp_path / "site.h5", images, people=2), settings)
    seen = []
    hook = one.model.network.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with reestimated(one.data, one.model, settings):
        assert one.model.buffer.isfinite().all()
    hook.remove()
    assert seen == sizes
