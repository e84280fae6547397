"""Distillation, clustering and cosine distance weight against plain re-derivations from what clients trained.

In its first round a client of a federation trains exactly as one that is alone, so the models of a run in
mode "local" are the updates that the federation's server got.
"""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedreid_mpi.algorithms.clustering import finch
from fedreid_mpi.algorithms.distillation import distillation_loss, teacher_features
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import augment, normalise
from fedreid_mpi.data.samplers import epoch_batches
from fedreid_mpi.federated.distillation import PublicImages
from fedreid_mpi.model import FlatModel, load_model
from fedreid_mpi.records import ModelKind, RoundPlan
from fedreid_mpi.records.pixels import IMAGENET
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.oracles import assert_same_model, averaged
from support.small import PUBLIC_IMAGES, Silent, write_experiment, write_public


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    return write_public(tmp_path_factory.mktemp("public") / "public.h5")


@pytest.fixture
def play(archives, tmp_path):
    """Play one round of an experiment over the small sites; give the run directory and the experiment."""

    def run(name, **sections):
        sections.setdefault("run", {"rounds": 1})
        path = write_experiment(tmp_path / f"{name}.toml", archives, **sections)
        if "data" in sections:
            path = write_experiment(path, archives, **sections)
        experiment = load_experiment(path)
        run_federation(SingleCommunicator(), experiment, tmp_path / name, Silent())
        return tmp_path / name, experiment

    return run


def updates(play, **sections):
    """What each client trains in the first round, by id: tensors by name, float32."""
    run_dir, _ = play("alone", federation={"mode": "local"}, **sections)
    files = sorted(
        (run_dir / "models" / "local").iterdir(), key=lambda path: int(path.name.partition("_")[0])
    )
    return [load_file(path) for path in files]


def test_cosine_distance_weight_replaces_the_number_of_images(play):
    run_dir, _ = play("cosine", aggregation={"weights": "cosine-distance"})
    results = read_run(run_dir)
    assert (results.cosine_distance[1] > 0).all()
    assert results.weight[1].tolist() == results.cosine_distance[1].tolist()
    assert len(set(results.weight[1])) == 5
    expected = averaged(updates(play), results.weight[1], reference=2.0)
    assert_same_model(load_file(run_dir / "models" / "global.safetensors"), expected)


@pytest.mark.parametrize("feature", ["concat", "mean"])
def test_clustering_averages_within_the_groups_of_finch(play, public, feature):
    trained = updates(play)
    run_dir, experiment = play(
        "clustered",
        data={"public": str(public)},
        clustering={"enabled": True, "feature": feature},
    )
    results = read_run(run_dir)
    archive = DatasetArchive.open(public)
    drawn = generator(3, "clustering", 1).permutation(PUBLIC_IMAGES)[:32]
    features = []
    for path in sorted(
        (run_dir.parent / "alone" / "models" / "local").iterdir(), key=lambda p: int(p.name[0])
    ):
        network = load_model(path).network
        with torch.no_grad():
            if feature == "concat":
                vector = network.features(
                    normalise(torch.from_numpy(archive.images[np.sort(drawn)]), IMAGENET)
                ).flatten()
            else:
                rows = network.features(normalise(torch.from_numpy(archive.images[:]), IMAGENET))
                vector = (rows / rows.norm(dim=1, keepdim=True)).mean(0)
        features.append((vector / vector.norm() if feature == "concat" else vector).numpy())
    labels = finch(np.stack(features))[0]
    assert results.group[1].tolist() == labels.tolist()
    assert results.groupings.tolist() == [1]
    lengths = np.linalg.norm(features, axis=1)
    distances = 1 - np.stack(features) @ np.stack(features).T / np.outer(lengths, lengths)
    np.testing.assert_allclose(results.distances[0], distances, atol=1e-6)
    images = [client.images for client in results.header.clients]
    for group in range(labels.max() + 1):
        members = np.flatnonzero(labels == group)
        expected = averaged(
            [trained[k] for k in members], [images[k] for k in members], max(images), len(images)
        )
        name = "global" if labels.max() == 0 else f"group_{group}"
        assert_same_model(load_file(run_dir / "models" / f"{name}.safetensors"), expected)
    assert experiment.uses_public


def test_a_threshold_leaves_every_client_alone_with_its_own_model(play, public):
    run_dir, _ = play(
        "singles", data={"public": str(public)}, clustering={"enabled": True, "max_distance": 1e-9}
    )
    assert read_run(run_dir).group[1].tolist() == [0, 1, 2, 3, 4]
    for group, expected in enumerate(updates(play)):
        assert_same_model(load_file(run_dir / "models" / f"group_{group}.safetensors"), expected)


def test_distillation_equals_a_plain_rederivation(play, public):
    run_dir, experiment = play("distilled", data={"public": str(public)}, distillation={"enabled": True})
    trained = updates(play)
    results = read_run(run_dir)
    teachers = [
        load_model(path).network
        for path in sorted(
            (run_dir.parent / "alone" / "models" / "local").iterdir(), key=lambda p: int(p.name[0])
        )
    ]
    archive = DatasetArchive.open(public)
    student = load_model(run_dir / "models" / "global.safetensors").network
    start = averaged(trained, [client.images for client in results.header.clients])
    student.load_state_dict({name: torch.from_numpy(value) for name, value in start.items()}, strict=False)
    student.eval()
    sgd = torch.optim.SGD(
        [p for p in student.parameters() if p.requires_grad],
        lr=0.1 * 0.05,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    random = generator(3, "distillation", 1)
    losses = []
    for rows in epoch_batches(PUBLIC_IMAGES, 8, False, random):
        pixels = augment(torch.from_numpy(archive.images[rows]), IMAGENET, experiment.augmentation, random)
        with torch.no_grad():
            lessons = [teacher.features(pixels) for teacher in teachers]
            target = torch.stack([f / f.norm(dim=1, keepdim=True) for f in lessons]).mean(0)
        features = student.features(pixels)
        loss = ((features / features.norm(dim=1, keepdim=True) - target) ** 2).sum(1).mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(float(loss.detach()) * len(rows))
    assert results.distillation_loss[1] == pytest.approx([sum(losses) / PUBLIC_IMAGES] * 5, rel=1e-5)
    found = load_model(run_dir / "models" / "global.safetensors").network.state_dict()
    for name, value in student.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    # The step is no small one: the aggregated model is another.
    moved = max(float((found[name] - torch.from_numpy(start[name])).abs().max()) for name in start)
    assert moved > 1e-3
    assert results.score(1, 0, ModelKind.AGGREGATED) is not None


def flat(network):
    return FlatModel(network, torch.device("cpu"))


@pytest.fixture
def classroom(archives, public, tmp_path):
    """The public images of an experiment, and two different models."""

    def build(**distillation):
        sections = {"optimizer": {"weight_decay": 0.0}, "distillation": {"enabled": True, **distillation}}
        path = write_experiment(
            tmp_path / "teaching.toml", archives, data={"public": str(public)}, **sections
        )
        experiment = load_experiment(path)
        from fedreid_mpi.model import build_network

        networks = [build_network(experiment.model, None, seed) for seed in (1, 2)]
        return PublicImages.open(
            DatasetArchive.open(public), experiment, torch.device("cpu"), IMAGENET
        ), *networks

    return build


PLAN = RoundPlan(1, (0,), 0.05, evaluate=False, distil=True)


def test_a_single_teacher_and_its_copy_agree(classroom):
    public, network, _ = classroom()
    targets = public.teach(network, PLAN)
    assert targets.shape == (PUBLIC_IMAGES, 16)
    assert public.distil(flat(network), targets, PLAN) < 1e-10


def test_the_students_loss_falls(classroom):
    public, teacher, student = classroom(lr_factor=1.0)
    targets, model = public.teach(teacher, PLAN), flat(student)
    losses = [public.distil(model, targets, PLAN) for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("batchnorm", "moved"), [("frozen", False), ("train", True)])
def test_statistics_move_only_when_asked(classroom, batchnorm, moved):
    public, teacher, student = classroom(batchnorm=batchnorm)
    model = flat(student)
    before = model.shared[model.statistics].clone()
    public.distil(model, public.teach(teacher, PLAN), PLAN)
    assert torch.equal(model.shared[model.statistics], before) is not moved


def test_batches_depend_on_the_round_alone(classroom):
    public, _, _ = classroom()
    torch.manual_seed(99)
    first = torch.cat(list(public.batches(PLAN)))
    torch.rand(7)
    assert torch.equal(torch.cat(list(public.batches(PLAN))), first)
    other = RoundPlan(2, (0,), 0.05, evaluate=False, distil=True)
    assert not torch.equal(torch.cat(list(public.batches(other))), first)


def test_the_overlap_can_be_left_out(archives, public, tmp_path):
    path = write_experiment(
        tmp_path / "overlap.toml",
        archives,
        data={"public": str(public), "exclude_overlap": True},
        distillation={"enabled": True},
    )
    from fedreid_mpi.errors import DataError

    with pytest.raises(DataError, match="24 public images, expected at least 32"):
        PublicImages.open(DatasetArchive.open(public), load_experiment(path), torch.device("cpu"), IMAGENET)


def test_loss_by_hand():
    student, target = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    assert float(distillation_loss(student, target)) == pytest.approx((0 + 2) / 2)
    assert float(distillation_loss(student, target, "mse")) == pytest.approx((0 + 2) / 4)
    plain = ((2.4**2 + 3.2**2) + (1 + 4)) / 2
    assert float(distillation_loss(student, target, normalize="teachers")) == pytest.approx(plain)
    assert teacher_features(student, "none") is student
    torch.testing.assert_close(teacher_features(student, "teachers")[0], torch.tensor([0.6, 0.8]))
