from dataclasses import replace

import pytest

from fedreid_mpi.algorithms.clustering import cluster_clients
from fedreid_mpi.algorithms.grouping import plan_groups, require_finite_models, require_sums
from fedreid_mpi.algorithms.weighting import LEAST_DISTANCE, WEIGHTINGS
from fedreid_mpi.errors import TooFewClientsError
from fedreid_mpi.records import ClientReport, Group

SAMPLES, UNIFORM = WEIGHTINGS["samples"], WEIGHTINGS["uniform"]

ALL = [(0, 1, 2, 3, 4)]


def reports_of(images, broken=()):
    return [
        ClientReport(client=client, images=count, steps=1, loss=1.0, finite=client not in broken, seconds=0.0)
        for client, count in images.items()
    ]


@pytest.mark.parametrize("bn", ["average", "local"])
@pytest.mark.parametrize(("weights", "expected"), [(SAMPLES, {0: 5.0, 3: 7.0}), (UNIFORM, {0: 1.0, 3: 1.0})])
def test_without_clustering_all_share_one_model(bn, weights, expected):
    reports = reports_of({3: 7, 1: 4, 0: 5}, broken=[1])
    (group,) = plan_groups(ALL, None, reports, (1, 3, 0), weights, bn)
    assert group.members == (0, 1, 2, 3, 4)
    assert list(group.weights) == [0, 3]
    assert group.weights == group.statistics_weights == expected


def test_reference_statistics_come_from_the_first_finite_client_of_the_round():
    reports = reports_of({0: 5, 1: 4, 3: 7}, broken=[1])
    (group,) = plan_groups(ALL, None, reports, (1, 3, 0), SAMPLES, "reference")
    assert group.weights == {0: 5.0, 3: 7.0}
    assert group.statistics_weights == {3: 1.0}
    assert (group.members, group.before) == ((0, 1, 2, 3, 4), 0)
    (group,) = plan_groups(ALL, None, reports, (1, 0, 3), SAMPLES, "reference")
    assert group.statistics_weights == {0: 1.0}


def test_no_finite_client_is_an_error():
    with pytest.raises(TooFewClientsError, match="none of 2 clients are finite"):
        plan_groups(ALL, None, reports_of({0: 5, 1: 4}, broken=[0, 1]), (0, 1), SAMPLES, "average")


def test_one_finite_client_is_enough_unless_more_are_asked_for():
    reports = reports_of({0: 5, 1: 4, 2: 3}, broken=[0, 1])
    require_finite_models(reports)
    (group,) = plan_groups(ALL, None, reports, (0, 1, 2), SAMPLES, "average")
    assert group.weights == {2: 3.0}
    for ask in (
        lambda: require_finite_models(reports, 2),
        lambda: plan_groups(ALL, None, reports, (0, 1, 2), SAMPLES, "average", min_clients=2),
    ):
        with pytest.raises(TooFewClientsError, match="1 of 3 clients are finite, expected at least 2"):
            ask()


def test_a_mask_needs_two_to_hide():
    two, nobody = Group((0, 1), {0: 1.0, 1: 1.0}, {}, 0), Group((3,), {}, {}, 0)
    require_sums([two, nobody])
    with pytest.raises(TooFewClientsError, match="only the model of client 2 is finite"):
        require_sums([two, Group((2, 3), {2: 1.0}, {}, 0)])


def test_clusters_get_models_and_those_away_keep_theirs():
    previous = [(0, 1, 4), (2, 3)]
    reports = reports_of({0: 5, 2: 6, 3: 7})
    groups = plan_groups(previous, {0: 0, 2: 0, 3: 1}, reports, (3, 2, 0), SAMPLES, "average")
    assert [group.members for group in groups] == [(0, 2), (1, 4), (3,)]
    assert [group.weights for group in groups] == [{0: 5.0, 2: 6.0}, {}, {3: 7.0}]
    assert groups[1].before == 0


def test_reference_is_the_first_of_each_group():
    groups = plan_groups(
        ALL,
        {0: 0, 1: 1, 2: 0, 3: 1, 4: 1},
        reports_of(dict.fromkeys(range(5), 2)),
        (3, 2, 4, 1, 0),
        SAMPLES,
        "reference",
    )
    assert [group.statistics_weights for group in groups] == [{2: 1.0}, {3: 1.0}]


def test_between_two_groupings_groups_stay_even_where_nobody_trained():
    previous = [(0, 1), (2, 3, 4)]
    groups = plan_groups(previous, None, reports_of({3: 7, 2: 1}), (3, 2), SAMPLES, "average")
    assert [group.members for group in groups] == previous
    assert [group.weights for group in groups] == [{}, {2: 1.0, 3: 7.0}]
    assert [group.before for group in groups] == [0, 1]


def test_a_client_that_is_not_finite_stays_with_the_model_it_had():
    groups = plan_groups(
        [(0, 1, 2)], {0: 0, 2: 0}, reports_of({0: 1, 1: 1, 2: 1}, broken=[1]), (0, 1, 2), SAMPLES, "average"
    )
    assert [(group.members, group.weights) for group in groups] == [((0, 2), {0: 1.0, 2: 1.0}), ((1,), {})]


def test_clusters_of_clients_by_feature():
    features = {7: [1.0, 0.1], 2: [1.0, 0.0], 5: [0.0, 1.0], 3: [0.1, 1.0]}
    assert cluster_clients(features) == {2: 0, 3: 1, 5: 1, 7: 0}
    assert cluster_clients(features, partition=9) == dict.fromkeys((2, 3, 5, 7), 0)
    assert cluster_clients(features, max_distance=1e-6) == {2: 0, 3: 1, 5: 2, 7: 3}
    assert cluster_clients({4: [1.0, 0.0]}) == {4: 0}


def test_where_no_model_of_a_group_moved_its_clients_count_alike():
    reports = [
        replace(report, cosine_distance=distance)
        for report, distance in zip(reports_of({0: 5, 1: 4, 2: 6, 3: 7}), (0.0, 0.25, 0.0, 0.0), strict=True)
    ]
    groups = plan_groups(
        [(0, 1, 2, 3)],
        {0: 0, 1: 0, 2: 1, 3: 1},
        reports,
        (0, 1, 2, 3),
        WEIGHTINGS["cosine-distance"],
        "average",
    )
    floor = LEAST_DISTANCE
    assert [group.weights for group in groups] == [{0: floor, 1: 0.25}, {2: floor, 3: floor}]


def test_untrained_clients_get_the_mean_of_all_that_trained():
    reports = reports_of({0: 5, 2: 6, 3: 7})
    groups = plan_groups(ALL, {0: 0, 2: 0, 3: 1}, reports, (3, 2, 0), SAMPLES, "average", untrained=(0, 1))
    assert [group.members for group in groups] == [(0, 2), (1,), (3,), (4,)]
    assert groups[1].weights == {0: 5.0, 2: 6.0, 3: 7.0}
    assert groups[3].weights == {}
