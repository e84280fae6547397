"""Averages of features and contributions; those of models are in ``tests/mpi/test_exchange.py``."""

from types import SimpleNamespace

import pytest
import torch

from fedreid_mpi.algorithms.averaging import grid_of
from fedreid_mpi.algorithms.scaffold import CONTROLS
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.federated.aggregation import (
    average_contributions,
    average_features,
    average_models,
    begin_sums,
)
from fedreid_mpi.federated.contributions import contribute
from fedreid_mpi.federated.sums import FEATURES, MODELS, RankSums, Segment, Vectors
from fedreid_mpi.federated.turn import ClientTurn, FinishedTurn
from fedreid_mpi.records import Group, RoundPlan
from support.federations import begun
from support.small import experiment, write_site


def group(*members, teachers=None):
    weights = dict.fromkeys(members if teachers is None else teachers, 1.0)
    return Group(members, weights, weights, 0)


@pytest.mark.parametrize("scope", ["group", "global"])
def test_teachers_are_averaged_by_group_or_all_together(scope):
    """Two images, features of two values; client k says k everywhere, and (k², 0) of the first image."""
    settings = experiment(
        data={"public": "public.h5"},
        clustering={"enabled": True},
        distillation={"enabled": True, "scope": scope},
    )
    vectors = Vectors(4, (Segment(slice(0, 4), grid_of("features", 3)),))
    sums = RankSums({FEATURES: vectors}, {0: 0, 2: 0, 3: 1}, (3, 0, 2))
    for client in (0, 2, 3):
        sums.add(client, FEATURES, 1.0, torch.tensor([client**2, 0, client, client]).float())
    state = SimpleNamespace(
        comm=SingleCommunicator(),
        experiment=settings,
        model=SimpleNamespace(network=SimpleNamespace(width=2)),
    )
    groups = [group(0, 2), group(1, teachers=()), group(3), group(4, teachers=(0, 2, 3))]
    first, away, third, newcomer = average_features(state, sums, groups)
    everyone = [[13 / 3, 0], [5 / 3, 5 / 3]]
    expected = {"group": ([[2, 0], [1, 1]], [[9, 0], [3, 3]]), "global": (everyone, everyone)}[scope]
    assert away is None
    for found, values in ((first, expected[0]), (third, expected[1]), (newcomer, everyone)):
        torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float32))


def test_a_newcomer_begins_with_the_mean_of_all_whether_they_are_alone_or_not():
    """Clients 0 and 1 are together, 2 is alone, 3 is away, and 4 has never trained."""
    vectors = Vectors(2, (Segment(slice(0, 2), grid_of("parameters", 3)),))
    sums = RankSums({MODELS: vectors}, {0: 0, 1: 0, 2: 1}, (0, 1, 2))
    models, shares = {0: [4.0, 0.0], 1: [1.0, 3.0], 2: [8.0, -6.0]}, {0: 0.5, 1: 1.0, 2: 0.25}
    for client, values in models.items():
        sums.add(client, MODELS, shares[client], torch.tensor(values))
    old = torch.tensor([7.0, 7.0])
    state = SimpleNamespace(
        comm=SingleCommunicator(),
        hosts=dict.fromkeys(range(5), 0),
        progress=SimpleNamespace(models=(None, old)),
    )
    away = Group((3,), {}, {}, 1)
    groups = [group(4, teachers=(0, 1, 2)), group(0, 1), group(2), away]
    newcomer, together, alone, left = average_models(state, sums, groups, shares)
    assert newcomer.tolist() == pytest.approx([(2 + 1 + 2) / 1.75, (3 - 1.5) / 1.75])
    assert together.tolist() == [2.0, 2.0]
    assert alone.tolist() == [8.0, -6.0]
    assert torch.equal(left, old)


def test_groups_that_are_joined_give_the_bits_of_one():
    """Sums are integers of more digits than a float32 holds."""
    drawn = torch.randn(4, 200, generator=torch.Generator().manual_seed(5))
    vectors = Vectors(200, (Segment(slice(0, 200), grid_of("parameters", 4)),))
    shares = {0: 0.3, 1: 1.0, 2: 0.7, 3: 0.1}
    found = []
    for keys in (dict.fromkeys(range(4), 0), {0: 0, 1: 0, 2: 1, 3: 1}):
        sums = RankSums({MODELS: vectors}, keys, (0, 1, 2, 3))
        for client in range(4):
            sums.add(client, MODELS, shares[client], drawn[client])
        state = SimpleNamespace(comm=SingleCommunicator(), hosts=dict.fromkeys(range(5), 0))
        found += average_models(state, sums, [group(4, teachers=range(4))], shares)
    assert torch.equal(*found)


def test_contributions_are_averaged_with_the_models_weights():
    state = SimpleNamespace(
        comm=SingleCommunicator(), experiment=experiment(aggregation={"rule": "scaffold"})
    )
    vectors = Vectors(2, (Segment(slice(0, 2), grid_of("gradients", 2)),))
    sums = RankSums({CONTROLS: vectors}, {0: 0, 1: 0}, (0, 1))
    assert average_contributions(state, sums, [group(0, 1, teachers=())], {}) == {}
    sums.add(0, CONTROLS, 1.0, torch.tensor([4.0, 1.0]))
    sums.add(1, CONTROLS, 0.5, torch.tensor([1.0, -2.0]))
    means = average_contributions(state, sums, [group(0, 1)], {0: 1.0, 1: 0.5})
    assert means.keys() == {CONTROLS}
    assert means[CONTROLS].tolist() == [3.0, 0.0]


def finished(settings, **memory):
    return FinishedTurn(ClientTurn(settings, model=None, start=None, memory=memory), optimizer=None, steps=1)


def test_a_client_contributes_how_its_controls_have_changed():
    settings, remembered = experiment(aggregation={"rule": "scaffold"}), {CONTROLS: torch.tensor([1.0, 2.0])}
    assert contribute(finished(settings), remembered)[CONTROLS].tolist() == [1.0, 2.0]
    memory = {CONTROLS: torch.tensor([0.25, 3.0])}
    assert contribute(finished(settings, **memory), remembered)[CONTROLS].tolist() == [0.75, -1.0]
    assert contribute(finished(experiment()), remembered) == {}


@pytest.mark.parametrize(("clip", "most"), [(0.0, 2), (0.5, 3)])
def test_a_rounds_sums_have_room_for_all_that_may_take_part(clip, most, tmp_path):
    """With privacy each client is drawn by itself, so all of the three may be."""
    archives = [write_site(tmp_path / f"site{seed}.h5", 4, people=2, seed=seed) for seed in range(3)]
    privacy = {"clip": clip, "statistics_clip": clip, "noise_multiplier": 1.0} if clip else {}
    settings = experiment(
        data={"archives": archives},
        federation={"clients_per_round": 2},
        aggregation={"weights": "uniform"},
        privacy=privacy,
    )
    sums = begin_sums(begun(settings, tmp_path), RoundPlan(1, (0, 1), 0.1, evaluate=False))
    parameters, statistics = sums.vectors[MODELS].segments
    assert parameters.grid == grid_of("parameters", most)
    assert statistics.grid == grid_of("statistics", most)
    assert parameters.bound == clip
    assert sums.updates == (clip > 0)
