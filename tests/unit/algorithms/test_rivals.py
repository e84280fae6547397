"""FedNova, SCAFFOLD, the server's optimisers and FedProx, each against a plain derivation of three rounds.

The derivation has its own loop with `torch.optim.SGD` and its own server in NumPy and float64. It shares with
the program the fresh weights, who takes part, and the order of the images.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from fedreid_mpi.algorithms.fednova import extrapolate, extrapolation, normalised, step_norm
from fedreid_mpi.algorithms.scaffold import next_common_control, next_control
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.algorithms.server_optimizers import TILE, Rates, initial_moments, step
from fedreid_mpi.algorithms.weighting import WEIGHTINGS
from fedreid_mpi.comm import PhaseError, SingleCommunicator
from fedreid_mpi.config import backbones as known
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model import backbones
from fedreid_mpi.records import ClientReport
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import folder_of, newest_whole
from fedreid_mpi.run.loop import run_federation
from support.learners import learner
from support.small import Silent, write_experiment

ROUNDS = 3
BATCH = 8
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

PLAIN = {
    "compute": {"channels_last": False},
    "optimizer": {"lr": 0.02, "backbone_lr_factor": 0.5},
    "augmentation": {"pad": 0, "flip": 0.0},
    "run": {"rounds": ROUNDS},
    "evaluation": {"every": 3},
}


class Smooth(nn.Module):
    """A backbone without kinks: with ReLU, the last bit of a sum can decide whether a unit is on."""

    def __init__(self):
        super().__init__()
        self.first, self.first_bn = nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.first_bn(self.first(x))))).mean((2, 3))


@pytest.fixture(autouse=True)
def smooth(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "smooth", lambda last_stride: backbones.Backbone(Smooth(), 16))
    monkeypatch.setattr(known, "BACKBONES", (*known.BACKBONES, "smooth"))


def play(folder, archives, name="run", **sections):
    """Play three clients, very different in size, in one process."""
    merged = {key: dict(PLAIN.get(key, {})) | sections.get(key, {}) for key in {*PLAIN, *sections}}
    path = write_experiment(folder / f"{name}.toml", archives[:3], **merged)
    experiment = load_experiment(path)
    model = experiment.model.model_copy(update={"backbone": "smooth"})
    experiment = experiment.model_copy(update={"model": model})
    run_federation(SingleCommunicator(), experiment, folder / name, Silent())
    return experiment, folder / name


def global_model(run_dir):
    return load_file(run_dir / "models" / "global.safetensors")


# The derivation.


def along_ones(steps, settings):
    """How far torch's SGD goes along a gradient of 1: the sum of the factors that momentum gives them."""
    place = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    sgd = torch.optim.SGD([place], lr=1.0, momentum=settings.momentum, nesterov=settings.nesterov)
    for _ in range(steps):
        place.grad = torch.ones((), dtype=torch.float64)
        sgd.step()
    return -place.item()


@dataclass
class Reference:
    """A federation in plain torch; tensors by name."""

    experiment: object
    archives: list
    participants: list
    server: Callable
    shared: dict = field(default_factory=dict)
    controls: dict = field(default_factory=dict)
    common: dict = field(default_factory=dict)
    moments: dict = field(default_factory=dict)

    def __post_init__(self):
        self.learners = [learner(path, self.experiment, id) for id, path in enumerate(self.archives)]
        states = [
            {name: value.clone() for name, value in one.model.network.state_dict().items()}
            for one in self.learners
        ]
        self.normalisation = {spec.name for spec in self.learners[0].model.normalisation}
        local = self.experiment.aggregation.bn == "local"
        self.own_names = {n for n in states[0] if n.startswith("classifier") or "num_batches" in n}
        self.own_names |= self.normalisation if local else set()
        self.own = [{name: state[name] for name in self.own_names} for state in states]
        kept = {n for n in states[0] if n.startswith("classifier") or "num_batches" in n}
        self.shared = {name: value for name, value in states[0].items() if name not in kept}
        trained = {name for name, _ in self.learners[0].model.network.named_parameters()}
        self.stepped = trained - self.own_names
        zeros = {name: np.zeros(tuple(self.shared[name].shape)) for name in self.stepped}
        self.common = dict(zeros)
        self.controls = {id: dict(zeros) for id in range(len(self.learners))}

    def rate(self, name):
        optimizer = self.experiment.optimizer
        return optimizer.lr * (optimizer.backbone_lr_factor if name.startswith("backbone") else 1.0)

    def train(self, id, round):
        """Train a client; return its state and the number of steps."""
        one, settings, strength = (
            self.learners[id],
            self.experiment.optimizer,
            self.experiment.objective.proximal,
        )
        network = one.model.network.train()
        network.load_state_dict({**self.shared, **self.own[id]})
        archive = DatasetArchive.open(self.archives[id])
        pixels = torch.from_numpy(np.asarray(archive.images[archive.split("train")])).float() / 255
        images = ((pixels - MEAN) / DEVIATION).permute(0, 3, 1, 2)
        parameters = dict(network.named_parameters())
        groups = [{"params": [value], "lr": self.rate(name)} for name, value in parameters.items()]
        sgd = torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=settings.nesterov, weight_decay=settings.weight_decay
        )
        random, steps = generator(self.experiment.run.seed, "train", round, id), 0
        order = random.permutation(len(images))
        for start in range(0, len(images), BATCH):
            rows = order[start : start + BATCH]
            if len(rows) < 2:
                continue
            loss = F.cross_entropy(network(images[rows]), one.data.labels[rows])
            loss = loss + strength / 2 * sum(
                ((parameters[name] - self.shared[name]) ** 2).sum() for name in self.stepped
            )
            sgd.zero_grad()
            loss.backward()
            for name in self.stepped:
                if self.experiment.aggregation.rule == "scaffold":
                    shift = self.common[name] - self.controls[id][name]
                    parameters[name].grad += torch.from_numpy(shift).float()
            sgd.step()
            steps += 1
        state = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.own[id] = {name: state[name] for name in self.own_names}
        return {name: state[name].double().numpy() for name in self.shared}, steps

    def play(self):
        """Play all rounds; return the shared part."""
        for round, clients in enumerate(self.participants, 1):
            before = {name: value.double().numpy() for name, value in self.shared.items()}
            trained = {id: self.train(id, round) for id in clients}
            after = self.server(self, before, trained)
            self.shared = {name: torch.from_numpy(np.asarray(value)).float() for name, value in after.items()}
        return self.shared


def weighted_mean(trained, weights):
    total = sum(weights.values())
    names = next(iter(trained.values()))[0]
    return {n: sum(weights[k] * trained[k][0][n] for k in trained) / total for n in names}


def images_of(reference, ids):
    return {id: len(reference.learners[id].data.images) for id in ids}


def average(reference, before, trained):
    return weighted_mean(trained, images_of(reference, trained))


def fednova(reference, before, trained):
    """The paper's own form: mean changes per unit of ‖a‖, times the mean of ‖a‖."""
    images = images_of(reference, trained)
    p = {id: count / sum(images.values()) for id, count in images.items()}
    norms = {id: along_ones(steps, reference.experiment.optimizer) for id, (_, steps) in trained.items()}
    reach = sum(p[id] * norms[id] for id in trained)
    after = weighted_mean(trained, {id: p[id] / norms[id] for id in trained})  # of what is not stepped
    for name in reference.stepped:
        change = sum(p[id] * (trained[id][0][name] - before[name]) / norms[id] for id in trained)
        after[name] = before[name] + reach * change
    return after


def scaffold(reference, before, trained):
    everyone = images_of(reference, range(len(reference.learners)))
    new = {}
    for id, (state, steps) in trained.items():
        norm = along_ones(steps, reference.experiment.optimizer)
        new[id] = {
            name: reference.controls[id][name]
            - reference.common[name]
            + (before[name] - state[name]) / (reference.rate(name) * norm)
            for name in reference.stepped
        }
    reference.common = {  # the invariant, instead of the step: the mean of all clients' controls
        name: sum(n * (new.get(id) or reference.controls[id])[name] for id, n in everyone.items())
        / sum(everyone.values())
        for name in reference.stepped
    }
    reference.controls |= new
    return average(reference, before, trained)


def optimised(reference, before, trained):
    server = reference.experiment.server
    after = average(reference, before, trained)
    for name in reference.stepped:
        delta = after[name] - before[name]
        m, v = reference.moments.get(name, (0.0, server.epsilon**2))
        if server.optimizer == "momentum":
            m = server.momentum * m + delta
            move = m
        else:
            m = server.momentum * m + (1 - server.momentum) * delta
            if server.optimizer == "adam":
                v = server.beta2 * v + (1 - server.beta2) * delta**2
            else:
                v = v - (1 - server.beta2) * delta**2 * np.sign(v - delta**2)
            move = m / (np.sqrt(v) + server.epsilon)
        reference.moments[name] = m, v
        after[name] = before[name] + server.lr * move
    return after


HEAVY = {"optimizer": {"lr": 0.02, "backbone_lr_factor": 0.5, "momentum": 0.9, "nesterov": False}}
STILL = {"optimizer": {"lr": 0.02, "backbone_lr_factor": 0.5, "momentum": 0.0, "nesterov": False}}
NOVA, CONTROLLED = {"aggregation": {"rule": "fednova"}}, {"aggregation": {"rule": "scaffold"}}

CASES = {
    "average": (average, {}),
    "fednova": (fednova, STILL | NOVA),
    "fednova, heavy ball": (fednova, HEAVY | NOVA),
    "fednova, Nesterov": (fednova, NOVA),
    "fednova, own BatchNorm": (fednova, {"aggregation": {"rule": "fednova", "bn": "local"}}),
    "scaffold": (scaffold, STILL | CONTROLLED),
    "scaffold, Nesterov": (scaffold, CONTROLLED),
    "scaffold, some take part": (scaffold, HEAVY | CONTROLLED | {"federation": {"clients_per_round": 2}}),
    "scaffold, own BatchNorm": (scaffold, {"aggregation": {"rule": "scaffold", "bn": "local"}}),
    "momentum": (optimised, {"server": {"optimizer": "momentum", "lr": 0.7, "momentum": 0.5}}),
    "adam": (optimised, {"server": {"optimizer": "adam", "lr": 0.01}}),
    "yogi": (optimised, {"server": {"optimizer": "yogi", "lr": 0.01, "beta2": 0.9}}),
    "momentum, own BatchNorm": (
        optimised,
        {"server": {"optimizer": "momentum"}, "aggregation": {"bn": "local"}},
    ),
    "fedprox": (average, {"objective": {"proximal": 1.0}}),
    "fedprox, own BatchNorm": (average, {"objective": {"proximal": 1.0}, "aggregation": {"bn": "local"}}),
}


@pytest.mark.parametrize("case", CASES)
def test_three_rounds_are_those_of_a_plain_derivation(case, archives, tmp_path):
    server, sections = CASES[case]
    experiment, run_dir = play(tmp_path, archives, **sections)
    took_part = read_run(run_dir).participated[1:]
    assert took_part.shape == (ROUNDS, 3)
    participants = [np.flatnonzero(row).tolist() for row in took_part]
    reference = Reference(experiment, archives[:3], participants, server)
    begun = {name: value.clone() for name, value in reference.shared.items()}
    expected, found = reference.play(), global_model(run_dir)
    assert found.keys() == expected.keys()
    parts = {"backbone": [], "embedding": [], "statistics": []}
    for name in expected:
        parts["statistics" if "running" in name else name.partition(".")[0][:9]].append(name)
    for part, names in parts.items():
        error, change = (
            np.sqrt(sum(((torch.as_tensor(one[n]) - other[n]) ** 2).sum().item() for n in names))
            for one, other in ((found, expected), (expected, begun))
        )
        assert error < 1e-4 * change, part


# By hand.


def test_the_norm_of_steps_by_hand():
    """b = 1, 1.5, 1.75 with a momentum of a half; Nesterov's step is 1 + b / 2."""
    assert step_norm(3, 0.0, False) == 3.0
    assert step_norm(3, 0.5, False) == 1 + 1.5 + 1.75
    assert step_norm(3, 0.5, True) == 1.5 + 1.75 + 1.875
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        settings = SimpleNamespace(momentum=momentum, nesterov=nesterov)
        assert step_norm(7, momentum, nesterov) == pytest.approx(along_ones(7, settings), rel=1e-12)


def test_the_extrapolation_by_hand():
    """(0.75 · 2 + 0.25 · 4) (0.75 / 2 + 0.25 / 4) = 2.5 · 0.4375."""
    assert extrapolation([3.0, 1.0], [2.0, 4.0]) == 1.09375
    assert extrapolation([3.0, 1.0, 0.1], [1 / 3] * 3) == 1.0
    start, mean = torch.tensor([1.0, -2.0]), torch.tensor([2.0, -2.5])
    assert extrapolate(start, mean, 1.5).tolist() == [2.5, -2.75]
    assert extrapolate(start, mean, 1.0) is mean


def report(client, images, steps):
    return ClientReport(client, images, steps, loss=1.0, finite=True, seconds=0.0)


def test_normalised_weights_keep_their_range():
    rule = normalised(WEIGHTINGS["samples"], float, 2.0)
    assert [rule.weight(report(0, 30, steps)) for steps in (2, 4, 8)] == [30.0, 15.0, 7.5]
    assert rule.reference([30, 20]) == 30.0


def test_controls_by_hand():
    control, common, start, trained = (torch.tensor([value]) for value in (0.5, 0.25, 3.0, 2.0))
    assert next_control(control, common, start, trained, distance=2.0).tolist() == [0.75]
    assert next_common_control(common, torch.tensor([-1.0]), 0.5).tolist() == [-0.25]


def test_a_server_step_by_hand():
    """Δ = 2; v begins at ε² = 1/4, and goes by half: to 2.125 with Adam, by 2 with Yogi."""
    start, mean = torch.tensor([1.0]), torch.tensor([3.0])
    rates = Rates(lr=0.5, momentum=0.5, beta2=0.5, epsilon=0.5)
    first, kept = step("momentum", start, mean, initial_moments("momentum", 1, rates), rates)
    assert (first.tolist(), kept["first_moment"].tolist()) == ([2.0], [2.0])
    second, kept = step("momentum", start, mean, kept, rates)
    assert (second.tolist(), kept["first_moment"].tolist()) == ([2.5], [3.0])
    for optimizer, moment in (("adam", 2.125), ("yogi", 2.25)):
        found, kept = step(optimizer, start, mean, initial_moments(optimizer, 1, rates), rates)
        assert kept["first_moment"].tolist() == [1.0]
        assert kept["second_moment"].tolist() == [moment]
        assert found.item() == pytest.approx(1 + 0.5 / (np.sqrt(moment) + 0.5), rel=1e-6)
        found, kept = step(optimizer, start, mean, kept, rates)  # m = 1/2 + 1, and v goes on towards 4
        moment = moment + 0.5 * (4 - moment if optimizer == "adam" else 4)
        assert (kept["first_moment"].item(), kept["second_moment"].item()) == (1.5, moment)
        assert found.item() == pytest.approx(1 + 0.5 * 1.5 / (np.sqrt(moment) + 0.5), rel=1e-6)


def test_yogis_second_moment_stays_where_it_is_the_square():
    """Δ = ε = 1/2, so that v = Δ² to begin with."""
    rates = Rates(lr=0.5, momentum=0.5, beta2=0.5, epsilon=0.5)
    _, kept = step("yogi", torch.zeros(1), torch.full((1,), 0.5), initial_moments("yogi", 1, rates), rates)
    assert kept["second_moment"].tolist() == [0.25]


def test_a_server_step_with_rate_1_and_no_momentum_is_the_mean_to_the_bit():
    """Also where the model was much the larger, so that even in float64 θ + Δ is not the mean."""
    random = np.random.default_rng(0)
    start, mean = (torch.from_numpy(random.normal(size=TILE + 5).astype(np.float32)) for _ in range(2))
    mean[:4] = torch.tensor([1e-12, 3e-20, -0.0, 0.0])
    rates = Rates(lr=1.0, momentum=0.0, beta2=0.99, epsilon=1e-3)
    moments = {"first_moment": torch.full_like(mean, -7.0)}
    found, _ = step("momentum", start, mean, moments, rates)
    assert torch.equal(found.view(torch.int32), mean.view(torch.int32))
    naive = (start.double() + (mean.double() - start.double())).float()
    assert not torch.equal(naive.view(torch.int32), mean.view(torch.int32))


# To the bit.

NEUTRAL = {
    "fednova, equal steps": ({"aggregation": {"rule": "fednova"}}, {"federation": {"batch_size": 64}}),
    "fednova, iterations": ({"aggregation": {"rule": "fednova"}}, {"federation": {"local_iterations": 3}}),
    "fednova, one client": ({"aggregation": {"rule": "fednova"}}, {"federation": {"clients_per_round": 1}}),
    "server": ({"server": {"optimizer": "momentum", "lr": 1.0, "momentum": 0.0}}, {}),
    "server, one client": (
        {"server": {"optimizer": "momentum", "lr": 1.0, "momentum": 0.0}},
        {"federation": {"clients_per_round": 1}},
    ),
    "scaffold, one round": ({"aggregation": {"rule": "scaffold"}}, {"run": {"rounds": 1}}),
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_neutral_settings_are_fedpav_to_the_bit(case, archives, tmp_path):
    rival, common = NEUTRAL[case]
    _, found = play(tmp_path, archives, "rival", **common, **rival)
    _, expected = play(tmp_path, archives, "plain", **common)
    assert read_run(found).weight[1:].tolist() == pytest.approx(read_run(expected).weight[1:], nan_ok=True)
    name = "models/global.safetensors"
    assert (found / name).read_bytes() == (expected / name).read_bytes()


@pytest.mark.parametrize("bn", ["average", "local"])
def test_the_common_control_is_the_mean_of_all_clients(bn, archives, tmp_path):
    """Those included that never trained; and BatchNorm that clients keep has none."""
    sections = {"aggregation": {"rule": "scaffold", "bn": bn}, "federation": {"clients_per_round": 2}}
    experiment, run_dir = play(tmp_path, archives, **sections)
    manifest, _ = newest_whole(run_dir)
    folder = folder_of(run_dir, manifest.round)
    common = load_file(folder / "server.safetensors")["controls"]
    stored = load_file(folder / "rank_0.safetensors")
    images = [client.images for client in read_run(run_dir).header.clients]
    own = [stored.get(f"{id}/memory/controls", np.zeros_like(common)) for id in range(3)]
    np.testing.assert_allclose(common, np.average(own, axis=0, weights=images), rtol=1e-5, atol=1e-7)
    model = learner(archives[0], experiment).model
    for spec in model.specs:
        if spec.offset < len(common):
            part = common[spec.offset : spec.offset + spec.size]
            assert bool(part.any()) == (bn == "average" or spec not in model.normalisation), spec.name


def test_statistics_and_own_batchnorm_are_averaged_and_never_stepped(archives, tmp_path):
    """With a server that hardly moves, all that moves is what is averaged."""
    found = {}
    for bn in ("average", "local"):
        sections = {"server": {"optimizer": "momentum", "lr": 1e-9}, "aggregation": {"bn": bn}}
        experiment, run_dir = play(tmp_path, archives, bn, run={"rounds": 1}, **sections)
        model = learner(archives[0], experiment).model
        begun = {spec.name: model.view(spec).clone() for spec in model.specs}
        trained = global_model(run_dir)
        moved = {n for n, v in trained.items() if np.abs(v - begun[n].numpy()).max() > 1e-6}
        normalisation = {spec.name for spec in model.normalisation}
        running = {name for name in normalisation if "running" in name}
        assert moved == (running if bn == "average" else normalisation)
        found[bn] = moved
    assert found["average"] < found["local"]


def test_a_client_that_diverges_keeps_its_control(archives, tmp_path):
    """The rate is absurd in the first round alone; one client survives it, and the common control is its."""
    wild = {"lr": 1000.0, "schedule": "step", "step_every": 1, "step_factor": 1e-6}
    sections = {"aggregation": {"rule": "scaffold"}, "optimizer": wild}
    _, first = play(tmp_path, archives, "first", run={"rounds": 1}, **sections)
    finite = read_run(first).finite[1]
    assert finite.any()
    assert not finite.all()
    stored = load_file(folder_of(first, 1) / "rank_0.safetensors")
    assert [f"{id}/memory/controls" in stored for id in range(3)] == finite.tolist()
    _, both = play(tmp_path, archives, "both", run={"rounds": 2}, **sections)
    assert read_run(both).finite[2].all()


def test_a_server_step_into_nowhere_ends_the_run_in_one_line(archives, tmp_path):
    sections = {"server": {"optimizer": "momentum", "lr": 1e6}}
    with pytest.raises(
        PhaseError, match="after the server's step its model has values that are not"
    ) as caught:
        play(tmp_path, archives, **sections)
    assert str(caught.value).count("\n") == 0
    assert newest_whole(tmp_path / "run")[0].round == 0


# Refused.


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"aggregation": {"rule": "fednova"}, "clustering": {"enabled": True}},
            'aggregation.rule = "fednova" needs a model that all clients begin with, but clustering.enabled',
        ),
        (
            {"server": {"optimizer": "adam"}, "federation": {"clients": "camera", "edge_rounds": 1}},
            'server.optimizer = "adam" needs a model that all clients begin with, but federation.edge_rounds',
        ),
        (
            {"aggregation": {"rule": "scaffold", "weights": "cosine-distance"}},
            'aggregation.rule = "scaffold" needs weights that stay, but aggregation.weights = "cosine-dist',
        ),
        (
            {"aggregation": {"rule": "scaffold"}, "federation": {"mode": "local"}},
            'aggregation.rule has no effect when federation.mode = "local"',
        ),
        (
            {"server": {"optimizer": "yogi"}, "federation": {"mode": "centralised"}},
            'server.optimizer has no effect when federation.mode = "centralised"',
        ),
        ({"server": {"lr": 0.5}}, 'server.lr has no effect when server.optimizer = "none"'),
        (
            {"server": {"optimizer": "momentum", "beta2": 0.5}},
            'server.beta2 has no effect when server.optimizer = "momentum"',
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(sections, said, archives, tmp_path):
    path = write_experiment(tmp_path / "x.toml", archives[:3], **sections)
    override = ["data.public=public.h5"] if "clustering" in sections else []
    with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")) as caught:
        load_experiment(path, override)
    assert "\n" not in str(caught.value)
