"""Presets: the default, the paper's text, the authors' code. A test for each row of docs/method.md.

=====================================  ==================================================================
row                                    test
=====================================  ==================================================================
which keys the presets set             test_the_presets_set_these_keys_and_no_other
what is off by default                 test_what_is_off_by_default
distillation: loss                     test_the_servers_step[loss]
distillation: who is scaled            test_the_servers_step[normalize]
distillation: learning rate            test_the_servers_step[lr_factor], [lr]
distillation: BatchNorm, dropout       test_the_servers_step[batchnorm]
distillation: all of it                test_the_servers_step[default], [paper], [published]
distillation: every                    test_rounds_that_distil
teachers in evaluation mode            test_teachers_are_in_evaluation_mode_and_untouched
participants teach                     test_the_rounds_participants_teach
cosine distance: a plain batch         test_the_probe_is_a_plain_batch_in_evaluation_mode
partial batches                        test_partial_batches
statistics of the first participant    test_statistics
threshold of the clusters              test_threshold_of_the_clusters
protocol of the evaluation             test_a_query_without_a_match
schedules over the rounds              test_schedules_count_rounds
momentum restarted each round          test_training: test_a_round_is_the_step_that_is_written_in_the_paper
distributions of fresh weights         test_model: test_fresh_weights_have_the_papers_distributions
average precision by trapezoid         test_ranking: test_equals_plain_definition
features with the mirror image         test_evaluate: test_features_are_those_of_an_image_and_its_mirror_image
=====================================  ==================================================================
"""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedreid_mpi.algorithms.clustering import cluster_clients
from fedreid_mpi.algorithms.participants import select_participants
from fedreid_mpi.algorithms.seeds import derive, generator
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import PRESETS, Experiment, load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.federated.client import label_identities
from fedreid_mpi.federated.distillation import PublicImages
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import ClientSpec, ModelKind, RoundPlan
from fedreid_mpi.records.pixels import IMAGENET
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.learners import learner
from support.oracles import averaged
from support.small import PUBLIC_IMAGES, Silent, write_experiment, write_public

ALL = ("default", "paper", "published")
CPU = torch.device("cpu")
LR = 0.05


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    return write_public(tmp_path_factory.mktemp("public") / "public.h5")


@pytest.fixture(scope="module")
def experiment(archives, public, tmp_path_factory):
    """Build an experiment over the small sites from a preset and some keys."""
    folder = tmp_path_factory.mktemp("experiments")

    def build(preset, *overrides, with_public=False, **sections):
        if with_public:
            sections["data"] = {"archives": [str(a) for a in archives], "public": str(public)}
        path = write_experiment(folder / "x.toml", archives, **sections)
        return load_experiment(path, [f"preset={preset}", *overrides])

    return build


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    def run(experiment):
        run_dir = tmp_path_factory.mktemp("played") / "run"
        run_federation(SingleCommunicator(), experiment, run_dir, Silent())
        return run_dir

    return run


def test_the_presets_set_these_keys_and_no_other():
    assert PRESETS["paper"] == {
        "aggregation": {"probe": "public"},
        "optimizer": {"schedule": "step"},
        "distillation": {"lr": 0.0005},
    }
    assert PRESETS["published"] == {
        "federation": {"drop_last": True},
        "aggregation": {"bn": "reference"},
        "distillation": {
            "every": 10,
            "lr_factor": 0.01,
            "loss": "mse",
            "normalize": "teachers",
            "batchnorm": "train",
        },
        "clustering": {"max_distance": 0.9},
        "evaluation": {"protocol": "published"},
    }
    assert PRESETS["default"] == {}
    plain = Experiment.model_validate({"data": {"archives": ["a.h5"]}})
    assert tuple(PRESETS) == ALL
    for preset in ALL:
        for section, keys in PRESETS[preset].items():
            for key, value in keys.items():
                assert getattr(getattr(plain, section), key) != value


@pytest.mark.parametrize("preset", ALL)
def test_what_is_off_by_default(preset, tmp_path):
    (tmp_path / "x.toml").write_text(f'preset = "{preset}"\ndata.archives = ["a.h5"]')
    settings = load_experiment(tmp_path / "x.toml")
    assert (settings.augmentation.pad, settings.augmentation.flip) == (10, 0.5)
    assert (settings.augmentation.erasing, settings.augmentation.jitter) == (0, (0, 0, 0, 0))
    assert (settings.objective.label_smoothing, settings.optimizer.warmup) == (0, 0)
    schedule = "step" if preset == "paper" else "constant"
    assert (settings.optimizer.schedule, settings.model.neck) == (schedule, "none")
    assert (settings.optimizer.nesterov, settings.model.dropout, settings.model.last_stride) == (True, 0.5, 2)
    assert not settings.distillation.enabled
    assert not settings.clustering.enabled
    assert settings.federation.clients_per_round == 0


# The rows that make the server's step, one at a time from the default, then those of each preset.
STEP = {**PRESETS["published"]["distillation"], **PRESETS["paper"]["distillation"]}
ROWS = {
    "default": (),
    "lr": ("lr",),
    "paper": ("lr",),
    "loss": ("loss",),
    "normalize": ("normalize",),
    "lr_factor": ("lr_factor",),
    "batchnorm": ("batchnorm",),
    "published": ("loss", "normalize", "lr_factor", "batchnorm"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_servers_step(row, experiment, public):
    """One pass over the public images, written out plainly from the table."""
    differs = set(ROWS[row])
    if row in ALL:
        settings = experiment(
            row, "distillation.enabled=true", "run.rounds=20", "model.dropout=0.5", with_public=True
        )
    else:
        keys = [f"distillation.{key}={STEP[key]}" for key in ROWS[row]]
        settings = experiment(
            "default", "distillation.enabled=true", "model.dropout=0.5", *keys, with_public=True
        )
    images = PublicImages.open(DatasetArchive.open(public), settings, CPU, IMAGENET)
    plan = RoundPlan(1, (0,), LR, evaluate=False, distil=True)
    teacher, student, expected = (build_network(settings.model, None, seed) for seed in (1, 2, 2))
    targets = images.teach(teacher, plan)
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(PUBLIC_IMAGES))
    found = images.distil(FlatModel(student, CPU), targets, plan)

    expected.train("batchnorm" in differs)
    velocity = {name: torch.zeros_like(value) for name, value in expected.named_parameters()}
    rate = 0.0005 if "lr" in differs else LR * (0.01 if "lr_factor" in differs else 0.1)
    total, seen = 0.0, 0
    torch.manual_seed(derive(3, "distillation", 1, "dropout"))
    for pixels in images.batches(plan):
        features = expected.features(pixels)
        if "batchnorm" in differs:
            features = torch.nn.functional.dropout(features, 0.5)
        if "normalize" not in differs:
            features = features / features.norm(dim=1, keepdim=True)
        squares = (features - targets[seen : seen + len(pixels)]) ** 2
        loss = squares.mean() if "loss" in differs else squares.sum() / len(pixels)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for (name, value), gradient in zip(expected.named_parameters(), gradients, strict=True):
                gradient = gradient + 5e-4 * value
                velocity[name] = 0.9 * velocity[name] + gradient
                value -= rate * (gradient + 0.9 * velocity[name])  # Nesterov
        total += loss.item() * len(pixels)
        seen += len(pixels)
    assert found == pytest.approx(total / seen, rel=1e-4)
    start = state(build_network(settings.model, None, 2))
    moved = state(expected) - start
    assert (state(student) - start - moved).norm() < 0.01 * moved.norm()


def state(network):
    """All parameters and statistics, one after the other, float64."""
    values = [value.flatten() for value in network.state_dict().values() if value.is_floating_point()]
    return torch.cat(values).double()


@pytest.mark.parametrize(
    ("preset", "rounds"),
    [*((preset, list(range(1, 21))) for preset in ("default", "paper")), ("published", [10, 20])],
)
def test_rounds_that_distil(preset, rounds, experiment):
    settings = experiment(preset, "distillation.enabled=true", "run.rounds=20", with_public=True)
    specs = [ClientSpec(0, "one", 0, 9, 3, 0)]
    assert [n for n in range(21) if plan_round(settings, specs, n).distil] == rounds


@pytest.mark.parametrize("preset", ALL)
def test_teachers_are_in_evaluation_mode_and_untouched(preset, experiment, public):
    """Not reproduced: the authors' teachers are in training mode, which would move their statistics."""
    settings = experiment(
        preset, "distillation.enabled=true", "run.rounds=20", "model.dropout=0.5", with_public=True
    )
    images = PublicImages.open(DatasetArchive.open(public), settings, CPU, IMAGENET)
    network = build_network(settings.model, None, 1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plan = RoundPlan(1, (0,), LR, evaluate=False, distil=True)
    targets = images.teach(network, plan)
    assert not targets.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        features = torch.cat([network.eval().features(pixels) for pixels in images.batches(plan)])
    torch.testing.assert_close(targets, features / features.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("preset", ALL)
def test_the_rounds_participants_teach(preset, experiment, play, monkeypatch):
    """Not reproduced: in the authors' code the stale models of all other clients teach as well."""
    lessons, targets = [], []
    teach, distil = PublicImages.teach, PublicImages.distil

    def remember_lesson(self, *arguments):
        lessons.append(teach(self, *arguments))
        return lessons[-1]

    def remember_target(self, student, target, *arguments):
        targets.append(target.clone())
        return distil(self, student, target, *arguments)

    monkeypatch.setattr(PublicImages, "teach", remember_lesson)
    monkeypatch.setattr(PublicImages, "distil", remember_target)
    settings = experiment(
        preset,
        "distillation.enabled=true",
        "distillation.every=1",
        "federation.clients_per_round=2",
        "evaluation.every=9",
        with_public=True,
    )
    results = read_run(play(settings))
    assert results.participated.sum(1).tolist() == [0, 2, 2]
    assert len(lessons) == 4
    for round in range(2):
        mean = torch.stack(lessons[2 * round : 2 * round + 2]).double().mean(0)
        torch.testing.assert_close(targets[round].double(), mean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("preset", ALL)
def test_the_probe_is_a_plain_batch_with_statistics_of_its_own(preset, archives, experiment):
    """Not reproduced: the authors' batch is augmented, with dropout, and moves the statistics."""
    settings = experiment(
        preset, "model.dropout=0.5", "aggregation.weights=cosine-distance", "aggregation.probe=own"
    )
    client, archive = learner(archives[2], settings, 2), DatasetArchive.open(archives[2])
    before = client.model.buffer.clone()
    plan = RoundPlan(7, (2,), LR, evaluate=False)
    client.model.network.train()
    logits = client.probe(plan)
    assert torch.equal(client.model.buffer, before)
    rows = generator(3, "probe", 7, 2).permutation(61)[:8]
    pixels = archive.images[archive.split("train")[rows]].astype(np.float64) / 255
    pixels = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    network = client.model.network.train()
    network.dropout.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float())
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("preset", ALL)
def test_partial_batches(preset, archives, experiment):
    """26 images are three batches of 8 and one of 2; of 9 and 17, a lone last image is never used."""
    settings = experiment(preset)
    steps = []
    for id in (0, 1, 3):
        client, archive = learner(archives[id], settings, id), DatasetArchive.open(archives[id])
        assert client.data.labels.tolist() == label_identities(archive.pids[archive.split("train")]).tolist()
        steps.append(client.train(RoundPlan(1, (id,), LR, evaluate=False)).steps)
    assert steps == ([3, 1, 2] if preset == "published" else [4, 1, 2])


@pytest.mark.parametrize("preset", ALL)
def test_statistics(preset, archives, experiment, play):
    """The clients' mean, or those of the first in the round's order; parameters are averaged in both."""
    keys = (
        "run.rounds=1",
        "federation.drop_last=false",
        "evaluation.every=9",
        "evaluation.protocol=standard",
    )
    federated = play(experiment(preset, *keys))
    local = play(experiment("default", *keys, "federation.mode=local"))
    paths = sorted((local / "models" / "local").iterdir(), key=lambda path: int(path.name[0]))
    trained = [load_file(path) for path in paths]
    images = [client.images for client in read_run(federated).header.clients]
    first = trained[select_participants(5, 0, 3, 1)[0]]
    mean = averaged(trained, images)
    for name, found in load_file(federated / "models" / "global.safetensors").items():
        is_statistic = "running_" in name
        expected = first if is_statistic and preset == "published" else mean
        assert found.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize(
    ("preset", "labels"), [("default", [0, 0, 0]), ("paper", [0, 0, 0]), ("published", [0, 0, 2])]
)
def test_threshold_of_the_clusters(preset, labels, experiment):
    settings = experiment(preset, "clustering.enabled=true", with_public=True).clustering
    features = {0: [1.0, 0.0], 1: [0.9, 0.1], 2: [0.05, -1.0]}  # distances of 2: 0.95 and 1.05
    found = cluster_clients(features, settings.partition, settings.max_distance)
    assert (len(set(found.values())) == 1) is (len(set(labels)) == 1)
    assert found[0] == found[1]


@pytest.mark.parametrize("preset", ALL)
def test_a_query_without_a_match(preset, experiment, play):
    """One of each site's five queries has none: left out of the means, or counted as zero in them."""
    results = read_run(play(experiment(preset, "run.rounds=1", "evaluation.local_models=false")))
    for client in (0, 1, 2, 4):
        scores = results.score(1, client, ModelKind.GLOBAL)
        assert (scores.queries, scores.unmatched) == (4, 1)
        assert scores.cmc[-1] == (0.8 if preset == "published" else 1.0)
        assert scores.mean_ap <= scores.cmc[-1]


@pytest.mark.parametrize("preset", ALL)
def test_schedules_count_rounds(preset, experiment):
    """The text's steps. Not reproduced: the authors' schedule is made anew each round, and never steps."""
    asked = () if preset == "paper" else ("optimizer.schedule=step",)
    settings = experiment(preset, *asked, "run.rounds=300")
    specs = [ClientSpec(0, "one", 0, 9, 3, 0)]
    rates = {n: plan_round(settings, specs, n).learning_rate for n in (1, 40, 41, 80, 81, 300)}
    assert rates == pytest.approx({1: 0.05, 40: 0.05, 41: 0.005, 80: 0.005, 81: 0.0005, 300: 0.05 * 1e-7})
    constant = experiment(preset, "optimizer.schedule=constant", "run.rounds=300")
    assert {plan_round(constant, specs, n).learning_rate for n in range(1, 301)} == {0.05}
