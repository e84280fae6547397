"""What the server makes of the clients' mean, by hand; whole runs are in ``test_rivals.py``."""

from types import SimpleNamespace

import pytest
import torch

from fedreid_mpi.algorithms.scaffold import CONTROLS
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.federated.server_step import (
    ServerTurn,
    broadcast_to_clients,
    move_controls,
    normalise,
    optimise,
    step_from_mean,
    steps_of,
)
from fedreid_mpi.federated.turn import local_normalisation
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import ClientReport, ClientSpec
from support.small import experiment

SPECS = tuple(ClientSpec(id, f"site{id}", id, images, 4, 9) for id, images in enumerate((10, 5, 8, 6)))
OTHER = torch.tensor([9.0])


def report(client, images, steps=1):
    return ClientReport(client, images, steps, loss=1.0, finite=True, seconds=0.0)


def turn(settings, reports=(), start=1.0, mean=3.0, change=None, **memory):
    values = {name: torch.tensor([value]) for name, value in memory.items()}
    return ServerTurn(
        settings,
        SPECS,
        reports,
        torch.tensor([start]),
        torch.tensor([mean]),
        {} if change is None else {CONTROLS: torch.tensor([change])},
        {"other": OTHER, **values},
    )


@pytest.mark.parametrize(
    ("weights", "factor"),
    [("samples", (0.75 * 2 + 0.25 * 4) * (0.75 / 2 + 0.25 / 4)), ("uniform", 3 * (1 / 2 + 1 / 4) / 2)],
)
def test_fednova_goes_beyond_the_mean(weights, factor):
    settings = experiment(
        aggregation={"rule": "fednova", "weights": weights}, optimizer={"momentum": 0.0, "nesterov": False}
    )
    given = turn(settings, [report(0, 3, steps=2), report(1, 1, steps=4)])
    model, memory = normalise(given)
    assert model.item() == pytest.approx(1 + factor * 2)
    assert memory is given.memory


def test_fednova_knows_what_momentum_makes_of_steps():
    """With m = 1/2 two steps go 2.5 far, and one goes 1; with Nesterov's form 3.25 and 1.5."""
    for nesterov, (longer, shorter) in ((False, (2.5, 1.0)), (True, (3.25, 1.5))):
        settings = experiment(
            aggregation={"rule": "fednova"}, optimizer={"momentum": 0.5, "nesterov": nesterov}
        )
        model, _ = normalise(turn(settings, [report(0, 1, steps=2), report(1, 1, steps=1)]))
        factor = (longer + shorter) / 2 * (1 / longer + 1 / shorter) / 2
        assert model.item() == pytest.approx(1 + factor * 2)


@pytest.mark.parametrize(("weights", "fraction"), [("samples", 18 / 29), ("uniform", 1 / 2)])
def test_scaffold_moves_the_common_control_as_far_as_clients_took_part(weights, fraction):
    settings = experiment(aggregation={"rule": "scaffold", "weights": weights})
    reports = [report(0, 10), report(2, 8)]
    model, memory = move_controls(turn(settings, reports, change=2.0, **{CONTROLS: 1.0}))
    assert model.item() == 3.0
    assert memory.keys() == {"other", CONTROLS}
    assert memory[CONTROLS].item() == pytest.approx(1 + fraction * 2)
    _, memory = move_controls(turn(settings, reports, change=2.0))
    assert memory[CONTROLS].item() == pytest.approx(fraction * 2)


def test_an_optimiser_goes_on_from_what_it_remembers():
    server = {"optimizer": "momentum", "lr": 0.5, "momentum": 0.25}
    model, memory = optimise(turn(experiment(server=server)))
    assert (model.item(), memory["first_moment"].item(), memory["other"]) == (2.0, 2.0, OTHER)
    model, memory = optimise(turn(experiment(server=server), first_moment=4.0))
    assert (model.item(), memory["first_moment"].item()) == (2.5, 3.0)


def test_an_optimiser_has_the_rates_of_the_configuration():
    """Δ = 2, v begins at ε² = 1/4 and goes a quarter of the way to 4."""
    server = {"optimizer": "adam", "lr": 0.5, "momentum": 0.5, "beta2": 0.75, "epsilon": 0.5}
    model, memory = optimise(turn(experiment(server=server)))
    assert memory["second_moment"].item() == 0.25 + 3.75 / 4
    assert model.item() == pytest.approx(1 + 0.5 / ((0.25 + 3.75 / 4) ** 0.5 + 0.5))


def test_steps_are_taken_in_order():
    rule, server = {"aggregation": {"rule": "fednova"}}, {"server": {"optimizer": "yogi"}}
    assert steps_of(experiment()) == ()
    assert steps_of(experiment(**rule)) == (normalise,)
    assert steps_of(experiment(aggregation={"rule": "scaffold"})) == (move_controls,)
    assert steps_of(experiment(**rule, **server)) == (normalise, optimise)


def server_of(settings):
    """A server between two rounds, alone; all its model's values are 1."""
    model = FlatModel(build_network(settings.model, 4, 3, "shared"), torch.device("cpu"))
    before = torch.ones_like(model.shared)
    progress = SimpleNamespace(models=(before,), server={})
    return SimpleNamespace(
        comm=SingleCommunicator(), experiment=settings, model=model, specs=SPECS, progress=progress
    )


@pytest.mark.parametrize("bn", ["average", "local"])
def test_only_parameters_that_clients_begin_with_are_stepped(bn):
    """From 1 half of the way to 3; BatchNorm's statistics, and what clients keep, are the mean's."""
    settings = experiment(
        aggregation={"bn": bn}, server={"optimizer": "momentum", "lr": 0.5, "momentum": 0.0}
    )
    state = server_of(settings)
    mean = torch.full_like(state.model.shared, 3.0)
    memory = step_from_mean(state, [report(0, 10)], mean, {})
    own = local_normalisation(state.model, settings)
    assert bool(own) == (bn == "local")
    for spec in state.model.specs:
        if spec.offset < state.model.statistics.start:
            expected = 3.0 if spec.name in own else 2.0
            assert (mean[spec.offset : spec.offset + spec.size] == expected).all(), spec.name
    assert (mean[state.model.statistics] == 3.0).all()
    assert torch.equal(memory["first_moment"], torch.full((state.model.statistics.start,), 2.0))
    assert (state.progress.models[0] == 1).all()
    assert state.progress.server == {}


def test_one_step_goes_on_from_another():
    """FedNova takes the mean from 3 to 3.25; the optimiser then goes half of the way there from 1."""
    settings = experiment(
        aggregation={"rule": "fednova", "weights": "uniform"},
        optimizer={"momentum": 0.0, "nesterov": False},
        server={"optimizer": "momentum", "lr": 0.5, "momentum": 0.5},
    )
    state = server_of(settings)
    state.progress.server["first_moment"] = torch.full((state.model.statistics.start,), 4.0)
    mean = torch.full_like(state.model.shared, 3.0)
    memory = step_from_mean(state, [report(0, 3, steps=2), report(1, 1, steps=4)], mean, {})
    change = 2 * 1.125
    assert torch.allclose(memory["first_moment"], torch.tensor(2 + change))
    assert mean[state.model.specs[0].offset].item() == pytest.approx(1 + (2 + change) / 2)


def test_a_step_into_nowhere_is_refused():
    settings = experiment(server={"optimizer": "momentum", "lr": 1e6, "momentum": 0.0})
    state = server_of(settings)
    with pytest.raises(FedReIDError, match="that are not finite, or 256 and larger"):
        step_from_mean(state, [report(0, 10)], torch.full_like(state.model.shared, 3.0), {})


def test_clients_are_told_the_common_control_with_scaffold_alone():
    assert broadcast_to_clients(server_of(experiment())) == {}
    settings = experiment(aggregation={"rule": "scaffold"})
    state = server_of(settings)
    (broadcast,) = broadcast_to_clients(state).values()
    assert torch.equal(broadcast, torch.zeros(state.model.statistics.start))
    state.progress.server[CONTROLS] = torch.full_like(broadcast, 0.5)
    assert (broadcast_to_clients(state)[CONTROLS] == 0.5).all()
