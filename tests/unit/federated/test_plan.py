"""What a round does: who trains, how fast, what follows, and what a client weighs."""

import pytest

from fedreid_mpi.algorithms.participants import select_participants, select_poisson
from fedreid_mpi.federated.plan import (
    expected_clients,
    plan_round,
    sampling_probability,
    trainers,
    weight_rule,
)
from fedreid_mpi.records import ClientReport, ClientSpec, RoundPlan
from support.small import experiment

SITES = tuple(
    ClientSpec(id, name, dataset, images, 4, 9, steps)
    for id, (name, dataset, images, steps) in enumerate(
        [("north", 0, 10, 2), ("east", 0, 5, 1), ("south", 1, 8, 4), ("west", 2, 6, 3)]
    )
)
POOL = ClientSpec(4, "pool", -1, 29, 16, 0, 9)


def plans(settings, specs=SITES, **options):
    return {
        round: plan_round(settings, specs, round, **options) for round in range(1, settings.run.rounds + 1)
    }


def rounds_where(settings, attribute):
    return [round for round, plan in plans(settings).items() if getattr(plan, attribute)]


def test_the_sites_train_or_the_pool_alone():
    assert trainers(experiment(), SITES) == (0, 1, 2, 3)
    assert trainers(experiment(federation={"mode": "centralised"}), (*SITES, POOL)) == (4,)


def test_how_many_are_expected_is_how_many_are_drawn():
    some, everyone = experiment(federation={"clients_per_round": 3}), experiment()
    assert (expected_clients(some, SITES), expected_clients(everyone, SITES)) == (3, 4)
    assert (sampling_probability(some, SITES), sampling_probability(everyone, SITES)) == (0.75, 1.0)


def test_in_round_0_nobody_trains():
    assert plan_round(experiment(), SITES, 0) == RoundPlan(0, (), 0.0, evaluate=True)


def test_a_plan_is_made_for_the_round_it_is_asked_for():
    settings = experiment(run={"rounds": 4})
    assert [plan.round for plan in plans(settings).values()] == [1, 2, 3, 4]


def test_those_who_are_away_or_dropped_take_no_part():
    away = {"east": [[1, 1], [3, 4]], "west": [[4, 5]]}
    settings = experiment(run={"rounds": 5}, federation={"availability": away})
    assert [set(plan.participants) for plan in plans(settings).values()] == [
        {0, 2, 3},
        {0, 1, 2, 3},
        {0, 2, 3},
        {0, 2},
        {0, 1, 2},
    ]
    assert [set(plan.participants) for plan in plans(settings, dropped=(0,)).values()] == [
        {2, 3},
        {1, 2, 3},
        {2, 3},
        {2},
        {1, 2},
    ]


def test_who_is_there_is_drawn_from_in_the_runs_seeded_order():
    settings = experiment(
        run={"rounds": 9}, federation={"clients_per_round": 2, "availability": {"north": [[1, 9]]}}
    )
    for round, plan in plans(settings).items():
        assert plan.participants == tuple(
            (1, 2, 3)[place] for place in select_participants(3, 2, settings.run.seed, round)
        )


def test_with_privacy_each_is_drawn_by_itself_whoever_is_there():
    settings = experiment(
        run={"rounds": 9},
        federation={"clients_per_round": 2, "availability": {"north": [[1, 9]]}},
        aggregation={"weights": "uniform"},
        privacy={"clip": 1.0, "statistics_clip": 1.0, "noise_multiplier": 1.0},
    )
    found = plans(settings, dropped=(3,))
    for round, plan in found.items():
        drawn = select_poisson(4, 2, settings.run.seed, round)
        assert plan.participants == tuple(client for client in drawn if client in (1, 2))
    assert {len(plan.participants) for plan in found.values()} == {0, 1, 2}


def test_with_privacy_all_are_drawn_unless_fewer_are_asked_for():
    settings = experiment(aggregation={"weights": "uniform"}, privacy={"clip": 1.0, "statistics_clip": 1.0})
    assert {frozenset(plan.participants) for plan in plans(settings).values()} == {frozenset(range(4))}


def test_where_nobody_is_there_nothing_follows(tmp_path):
    away = {spec.name: [[2, 2]] for spec in SITES}
    settings = experiment(
        data={"public": "public.h5"},
        federation={"availability": away},
        clustering={"enabled": True},
        distillation={"enabled": True},
    )
    first, second = plans(settings).values()
    assert (first.cluster, first.distil) == (True, True)
    assert (second.participants, second.cluster, second.distil) == ((), False, False)


def test_what_follows_comes_every_so_many_rounds():
    settings = experiment(
        run={"rounds": 10},
        data={"public": "public.h5"},
        evaluation={"every": 3},
        clustering={"enabled": True, "every": 2},
        distillation={"enabled": True, "every": 5},
    )
    assert rounds_where(settings, "evaluate") == [3, 6, 9, 10]  # the last one always
    assert rounds_where(settings, "cluster") == [2, 4, 6, 8, 10]
    assert rounds_where(settings, "distil") == [5, 10]
    plain = experiment(run={"rounds": 10})
    assert rounds_where(plain, "cluster") == rounds_where(plain, "distil") == []


def test_the_cloud_follows_so_many_edge_rounds():
    edges = experiment(run={"rounds": 7}, federation={"clients": "camera", "edge_rounds": 2})
    assert rounds_where(edges, "edge") == [1, 2, 4, 5, 7]
    assert rounds_where(experiment(run={"rounds": 7}), "edge") == []


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ({"schedule": "constant"}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "constant", "warmup": 2}, [0.05, 0.1, 0.1, 0.1]),
        ({"schedule": "step", "step_every": 2, "step_factor": 0.5}, [0.1, 0.1, 0.05, 0.05]),
        ({"schedule": "milestones", "milestones": [1, 3], "step_factor": 0.2}, [0.1, 0.02, 0.02, 0.004]),
        ({"schedule": "cosine"}, [0.1, 0.1 * (0.5 + 0.125**0.5), 0.05, 0.1 * (0.5 - 0.125**0.5)]),
    ],
)
def test_the_learning_rate_is_that_of_the_schedule(optimizer, rates):
    settings = experiment(run={"rounds": 4}, optimizer={"lr": 0.1} | optimizer)
    assert [plan.learning_rate for plan in plans(settings).values()] == pytest.approx(rates)


def reports():
    return [ClientReport(spec.id, spec.images, spec.steps, 1.0, True, 0.0) for spec in SITES]


def test_a_client_weighs_as_many_images_as_it_has():
    rule = weight_rule(experiment(), SITES, RoundPlan(1, (0, 1), 0.1, True))
    assert [rule.weight(report) for report in reports()] == [10, 5, 8, 6]
    assert rule.reference([10, 5]) == 10


@pytest.mark.parametrize(
    ("nesterov", "norms"), [(False, (2.5, 1.0, 6.125, 4.25)), (True, (3.25, 1.5, 7.0625, 5.125))]
)
def test_with_fednova_a_client_weighs_less_by_the_steps_that_it_takes(nesterov, norms):
    """By hand, m = 1/2: the steps along a gradient of 1 are 1, 1.5, 1.75, 1.875; Nesterov's 1.5, 1.75, …"""
    settings = experiment(aggregation={"rule": "fednova"}, optimizer={"momentum": 0.5, "nesterov": nesterov})
    rule = weight_rule(settings, SITES, RoundPlan(1, (0, 2), 0.1, True))  # the least is that of client 0
    expected = [images * norms[0] / norm for images, norm in zip((10, 5, 8, 6), norms, strict=True)]
    assert [rule.weight(report) for report in reports()] == pytest.approx(expected)
    assert rule.reference([10, 8]) == 10
