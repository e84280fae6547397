"""One round in this process, from what is in memory before it to what is in memory after it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedreid_mpi.algorithms.scaffold import CONTROLS
from fedreid_mpi.comm import PhaseError
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.probes import Measurement
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.federated.sums import FEATURES
from fedreid_mpi.records import ModelKind, RoundPlan
from support.federations import begun
from support.small import experiment, write_public, write_site

IMAGES = (12, 8, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    for seed, images in enumerate(IMAGES):
        write_site(folder / f"site{seed}.h5", images, people=2, test_people=3, seed=seed)
    write_public(folder / "public.h5")
    return folder


@pytest.fixture
def federation(folder, tmp_path):
    """A federation of the three sites, about to begin."""

    def begin(public=False, data=None, **sections):
        held = {"archives": [folder / f"site{seed}.h5" for seed in range(3)]}
        held |= {"public": folder / "public.h5"} if public else {}
        return begun(experiment(data=held | (data or {}), **sections), tmp_path)

    return begin


def plan(participants=(2, 0, 1), round=1, learning_rate=0.05, evaluate=False, **what):
    return RoundPlan(round, tuple(participants), learning_rate, evaluate, **what)


def play(state, plan):
    """Play a round; return its record and the shared part of what each client trained."""
    trained = {}

    def keep(spec, model):
        trained[spec.id] = model.shared.clone()

    return run_round(state, plan, keep), trained


def mean(trained, weights):
    total = sum(weights.values())
    return sum(trained[client].double() * weight / total for client, weight in weights.items()).float()


def test_the_new_model_is_the_mean_of_those_who_trained(federation):
    state = federation()
    before = state.progress.models[0].clone()
    record, trained = play(state, plan((2, 0)))
    assert [report.client for report in record.reports] == [0, 2]
    assert sorted(trained) == [0, 2]
    assert record.weights == {0: 12.0, 2: 6.0}
    assert state.progress.groups == ((0, 1, 2),)
    assert state.progress.untrained == {1}
    (model,) = state.progress.models
    torch.testing.assert_close(model, mean(trained, {0: 12, 2: 6}), rtol=1e-6, atol=1e-7)
    assert not torch.equal(model, before)
    assert record.evaluations == ()
    assert record.phase_seconds.keys() == {"train", "aggregate"}


def test_a_second_round_begins_with_the_model_of_the_first(federation):
    state = federation()
    play(state, plan())
    first = state.progress.models[0].clone()
    _, trained = play(state, plan(round=2, learning_rate=0.0))
    parameters = slice(0, state.model.statistics.start)
    for shared in trained.values():
        assert torch.equal(shared[parameters], first[parameters])
    assert state.progress.untrained == frozenset()


def test_seconds_are_those_of_this_round_alone(federation):
    state = federation()
    state.progress.seconds["of the round before"] = 1.0
    record, _ = play(state, plan())
    assert "of the round before" not in record.phase_seconds


def test_a_client_that_diverges_is_left_as_it_was(federation):
    state = federation()
    state.progress.private[1].fill_(torch.nan)
    record, trained = play(state, plan())
    assert [report.finite for report in record.reports] == [True, False, True]
    assert sorted(trained) == [0, 2]
    assert record.weights == {0: 12.0, 2: 6.0}
    assert state.progress.private[1].isnan().all()
    assert sorted(state.progress.memory) == [0, 2]
    torch.testing.assert_close(state.progress.models[0], mean(trained, {0: 12, 2: 6}), rtol=1e-6, atol=1e-7)


def test_a_model_that_leaves_the_grid_has_diverged(federation):
    """It is finite, but has a value of 300, where 256 is the limit."""
    state = federation()
    state.progress.models[0][0] = 300.0
    with pytest.raises(PhaseError, match="the models of none of 3 clients are finite"):
        play(state, plan(learning_rate=0.0))


def test_without_enough_clients_nothing_is_changed(federation):
    state = federation(reliability={"min_clients": 3})
    state.progress.private[1].fill_(torch.nan)
    before = state.progress.models
    with pytest.raises(PhaseError, match="the models of 2 of 3 clients are finite, expected at least 3"):
        play(state, plan())
    assert state.progress.models is before
    assert state.progress.untrained == {0, 1, 2}


@pytest.mark.parametrize("mode", ["federated", "local"])
def test_where_nobody_trains_all_stays(mode, federation):
    state = federation(federation={"mode": mode})
    before, private = state.progress.models, {k: v.clone() for k, v in state.progress.private.items()}
    record, trained = play(state, plan((), evaluate=mode == "federated"))
    assert (record.reports, trained, dict(record.weights)) == ((), {}, {})
    assert all(torch.equal(*pair) for pair in zip(before, state.progress.models, strict=True))
    assert all(torch.equal(values, private[client]) for client, values in state.progress.private.items())
    assert state.progress.untrained == {0, 1, 2}
    assert len(record.evaluations) == (3 if mode == "federated" else 0)


def test_alone_each_client_trains_on(federation):
    state = federation(federation={"mode": "local"})
    record, _ = play(state, plan())
    assert [report.client for report in record.reports] == [0, 1, 2]
    assert state.progress.models == ()
    assert dict(record.weights) == {}
    before = {client: values.clone() for client, values in state.progress.private.items()}
    play(state, plan((1,), round=2))
    moved = {
        client for client, values in state.progress.private.items() if not torch.equal(values, before[client])
    }
    assert moved == {1}


def test_alone_all_that_diverge_end_the_run(federation):
    state = federation(federation={"mode": "local"})
    for private in state.progress.private.values():
        private.fill_(torch.nan)
    with pytest.raises(PhaseError, match="the models of none of 3 clients are finite"):
        play(state, plan())


def test_alone_as_well_enough_clients_are_needed(federation):
    state = federation(federation={"mode": "local"}, reliability={"min_clients": 3})
    state.progress.private[1].fill_(torch.nan)
    with pytest.raises(PhaseError, match="the models of 2 of 3 clients are finite, expected at least 3"):
        play(state, plan())


def test_a_model_that_the_last_step_ruins_has_diverged(federation):
    """Each takes a single step, so that no loss tells of it."""
    state = federation(federation={"mode": "local"})
    before = {client: values.clone() for client, values in state.progress.private.items()}
    with pytest.raises(PhaseError, match="the models of none of 2 clients are finite"):
        play(state, plan((1, 2), learning_rate=1e45))
    assert all(torch.equal(values, before[client]) for client, values in state.progress.private.items())


def test_where_all_diverge_there_is_nothing_to_cluster(federation):
    state = federation(public=True, clustering={"enabled": True})
    for private in state.progress.private.values():
        private.fill_(torch.nan)
    with pytest.raises(PhaseError, match="the models of none of 3 clients are finite"):
        play(state, plan(cluster=True))


def test_the_sum_of_one_hides_nothing(federation):
    state = federation(privacy={"secure_aggregation": True})
    with pytest.raises(PhaseError, match="secure_aggregation"):
        play(state, plan((1,)))


class Made:
    """A probe that measures what it is told to."""

    def __init__(self, measured):
        self.measured = measured

    def before(self):
        pass

    def after(self):
        return self.measured


def test_what_a_probe_cannot_measure_is_a_divergence(federation, monkeypatch):
    state = federation(public=True, distillation={"enabled": True})
    length = len(state.public) * state.model.network.width
    measured = {
        0: Measurement(sums={FEATURES: torch.full((length,), 1.0)}),
        1: None,
        2: Measurement(sums={FEATURES: torch.full((length,), 300.0)}),  # the grid ends at 256
    }
    monkeypatch.setattr(
        "fedreid_mpi.federated.round.probes_of", lambda state, plan, client: [Made(measured[client.spec.id])]
    )
    record, _ = play(state, plan(distil=True))
    assert [report.finite for report in record.reports] == [True, False, False]


def test_the_student_is_shown_the_mean_of_its_teachers(federation, monkeypatch):
    state, shown = federation(public=True, distillation={"enabled": True}), []
    shape = len(state.public), state.model.network.width
    features = {
        client: torch.rand(shape, generator=torch.Generator().manual_seed(client)) for client in range(3)
    }
    monkeypatch.setattr(
        "fedreid_mpi.federated.round.probes_of",
        lambda state, plan, client: [Made(Measurement(sums={FEATURES: features[client.spec.id].flatten()}))],
    )
    monkeypatch.setattr(
        type(state.public), "distil", lambda public, student, target, *_: shown.append(target) or 0.5
    )
    play(state, plan(distil=True))
    (target,) = shown
    torch.testing.assert_close(target, sum(features.values()) / 3, rtol=1e-6, atol=1e-7)


def test_the_new_model_is_scored_on_every_client(federation):
    state = federation()
    record, _ = play(state, plan((1,), evaluate=True))
    found = [(each.round, each.client, each.model) for each in record.evaluations]
    assert found[:3] == [(1, client, ModelKind.GLOBAL) for client in range(3)]
    assert {model for _, _, model in found[3:]} <= {ModelKind.LOCAL}


def test_a_student_is_scored_before_and_after(federation):
    state = federation(public=True, distillation={"enabled": True})
    record, trained = play(state, plan(evaluate=True, distil=True))
    kinds = [each.model for each in record.evaluations if each.model is not ModelKind.LOCAL]
    assert kinds == [ModelKind.AGGREGATED] * 3 + [ModelKind.GLOBAL] * 3
    assert record.distillation_loss.keys() == {0}
    assert 0 < record.distillation_loss[0] < 4
    assert (state.progress.models[0] - mean(trained, dict(enumerate(IMAGES)))).abs().max() > 1e-4


def test_a_student_that_is_not_scored_is_only_taught(federation):
    state = federation(public=True, distillation={"enabled": True})
    record, _ = play(state, plan(distil=True))
    assert record.evaluations == ()
    assert record.distillation_loss.keys() == {0}
    assert record.phase_seconds.keys() == {"train", "aggregate", "distil"}


def test_each_group_has_a_student_of_its_own(federation):
    """Each begins with its group's model and does not move far from it."""
    state = federation(
        public=True,
        distillation={"enabled": True, "lr": 1e-4},
        clustering={"enabled": True, "max_distance": 1e-9},
    )
    record, trained = play(state, plan(cluster=True, distil=True))
    assert record.distillation_loss.keys() == {0, 1, 2}
    for client, model in enumerate(state.progress.models):
        moved = {other: float((model - values).abs().max()) for other, values in trained.items()}
        assert 0 < moved.pop(client) < min(moved.values()) / 10


def test_there_is_a_heartbeat_before_each_batch(federation):
    """Clients train on two, one and one batches, and each teaches on five, from which the student learns."""
    state, beats = federation(public=True, distillation={"enabled": True}), []
    play(replace(state, heartbeat=lambda: beats.append(None)), plan(distil=True))
    assert len(beats) == 2 + 1 + 1 + 3 * 5 + 5


def test_unseen_datasets_are_scored_once_for_each_groups_model(federation, folder):
    unseen = write_site(folder / "unseen.h5", 4, test_people=4, seed=9)
    state = federation(data={"unseen": [unseen]}, distillation={"enabled": True}, public=True)
    record, _ = play(state, plan(evaluate=True, distil=True))
    assert [(each.round, each.group) for each in record.unseen] == [(1, 0)]


def test_with_privacy_the_step_is_the_sum_of_updates_over_the_number_to_expect(federation):
    """Bounds so wide that nothing is clipped, and no noise; one client of the three is not drawn."""
    state = federation(
        aggregation={"weights": "uniform"},
        privacy={"clip": 200.0, "statistics_clip": 1e5, "noise_multiplier": 0.0},
    )
    before = state.progress.models[0].clone()
    _, trained = play(state, plan((2, 0)))
    moved = sum(shared.double() - before for shared in trained.values()) / 3
    torch.testing.assert_close(state.progress.models[0], (before + moved).float(), rtol=1e-5, atol=1e-6)


def test_who_is_alone_in_its_cluster_keeps_its_own_model(federation):
    state = federation(public=True, clustering={"enabled": True, "max_distance": 1e-9})
    record, trained = play(state, plan(cluster=True, evaluate=True))
    assert state.progress.groups == ((0,), (1,), (2,))
    assert all(torch.equal(model, trained[client]) for client, model in enumerate(state.progress.models))
    assert dict(record.groups) == {0: 0, 1: 1, 2: 2}
    assert record.feature_distances.shape == (3, 3)
    found = [each.client for each in record.evaluations if each.model is ModelKind.GLOBAL]
    assert found == [0, 1, 2]
    # Until they are grouped anew, each trains on from its own.
    before = [model.clone() for model in state.progress.models]
    _, trained = play(state, plan((1,), round=2))
    assert [torch.equal(*pair) for pair in zip(state.progress.models, before, strict=True)] == [
        True,
        False,
        True,
    ]
    assert torch.equal(state.progress.models[1], trained[1])


def test_at_the_edge_clients_average_with_those_of_their_dataset(federation):
    state = federation(federation={"clients": "camera", "edge_rounds": 1})
    _, trained = play(state, plan(range(6), edge=True))
    assert state.progress.groups == ((0, 1), (2, 3), (4, 5))
    for edge, model in enumerate(state.progress.models):
        members = {client: state.specs[client].images for client in (2 * edge, 2 * edge + 1)}
        torch.testing.assert_close(model, mean(trained, members), rtol=1e-6, atol=1e-7)
    _, trained = play(state, plan(range(6), round=2))
    assert state.progress.groups == ((0, 1, 2, 3, 4, 5),)
    weights = {spec.id: spec.images for spec in state.specs}
    torch.testing.assert_close(state.progress.models[0], mean(trained, weights), rtol=1e-6, atol=1e-7)


def test_with_privacy_a_round_may_be_lost_on_everybody(federation):
    state = federation(
        aggregation={"weights": "uniform"},
        privacy={"clip": 200.0, "statistics_clip": 1e5, "noise_multiplier": 0.0},
    )
    before = state.progress.models[0].clone()
    for private in state.progress.private.values():
        private.fill_(torch.nan)
    record, trained = play(state, plan())
    assert trained == {}
    assert [report.finite for report in record.reports] == [False] * 3
    torch.testing.assert_close(state.progress.models[0], before, rtol=1e-6, atol=1e-7)


def test_with_fednova_a_client_weighs_less_by_its_steps(federation):
    """Without momentum: 12, 8 and 6 images, of which the first takes two steps where the others take one."""
    state = federation(aggregation={"rule": "fednova"}, optimizer={"momentum": 0.0, "nesterov": False})
    record, _ = play(state, plan())
    assert [report.steps for report in record.reports] == [2, 1, 1]
    assert record.weights == {0: 6.0, 1: 8.0, 2: 6.0}


def test_models_are_scored_with_statistics_of_each_clients_own_as_well(federation):
    state = federation(evaluation={"reestimate_bn": True})
    record, _ = play(state, plan(evaluate=True))
    kinds = [each.model for each in record.evaluations]
    assert kinds.count(ModelKind.REESTIMATED) == kinds.count(ModelKind.GLOBAL) == 3
    assert {each.round for each in record.evaluations} == {1}


def test_the_server_remembers_what_its_step_leaves(federation):
    state = federation(aggregation={"rule": "scaffold"})
    play(state, plan((0, 2)))
    assert state.progress.server.keys() == {CONTROLS}
    own = {client: memory[CONTROLS] for client, memory in state.progress.memory.items()}
    assert own.keys() == {0, 2}
    common = sum(IMAGES[client] * own[client].double() for client in own) / sum(IMAGES)
    np.testing.assert_allclose(state.progress.server[CONTROLS], common, rtol=1e-5, atol=1e-6)
    left = state.progress.server
    play(state, plan((), round=2))
    assert state.progress.server is left


def test_statistics_can_be_those_of_the_rounds_first_client(federation):
    state = federation(aggregation={"bn": "reference"})
    _, trained = play(state, plan((2, 0, 1)))
    (model,), part = state.progress.models, state.model.statistics
    assert torch.equal(model[part], trained[2][part])
    expected = mean(trained, dict(enumerate(IMAGES)))
    torch.testing.assert_close(model[: part.start], expected[: part.start], rtol=1e-6, atol=1e-7)


def test_a_round_is_a_matter_of_its_plan_and_of_what_was_before(federation):
    """Twice the same round from the same state gives the same bits, whatever memory is used again."""
    models = []
    for _ in range(2):
        state = federation()
        for round in (1, 2):
            play(state, plan_round(state.experiment, state.specs, round))
        models.append(state.progress.models[0])
    assert torch.equal(*models)
    assert [len(each) for each in state.progress.spare] == [len(models[0])]
