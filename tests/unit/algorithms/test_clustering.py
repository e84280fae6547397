import itertools

import numpy as np
import pytest

from fedreid_mpi.algorithms import clustering
from fedreid_mpi.algorithms.clustering import feature_distances, finch


def angles(*degrees):
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def partition(labels):
    return sorted(sorted(np.flatnonzero(labels == cluster).tolist()) for cluster in np.unique(labels))


def oracle(features, max_distance=np.inf):
    """Dense re-derivation from the paper: the adjacency of equation 1, components by matrix powers."""
    x = np.asarray(features, float)

    def adjacency(rows, limit):
        n = len(rows)
        norm = [np.sqrt(sum(v * v for v in row)) for row in rows]
        distance = np.array(
            [
                [
                    1 - (sum(a * b for a, b in zip(r, s, strict=True)) / (p * q) if p and q else 0)
                    for s, q in zip(rows, norm, strict=True)
                ]
                for r, p in zip(rows, norm, strict=True)
            ]
        ).round(11)
        np.fill_diagonal(distance, np.inf)
        first = [min(range(n), key=lambda j: (distance[i, j], j)) for i in range(n)]
        links = np.eye(n, dtype=bool)
        for i in range(n):
            for j in range(n):
                linked = j == first[i] or i == first[j] or first[i] == first[j]
                if i != j and n > 1 and linked and distance[i, j] < limit:
                    links[i, j] = True
        reach = links
        for _ in range(n):
            reach = reach @ links
        seen = []
        for row in reach:
            members = tuple(np.flatnonzero(row))
            if members not in seen:
                seen.append(members)
        labels = np.empty(n, int)
        for number, members in enumerate(sorted(seen)):
            labels[list(members)] = number
        return labels

    result = [adjacency(x, max_distance)]
    while result[-1].max() > 0:
        means = np.array([x[result[-1] == c].mean(axis=0) for c in range(result[-1].max() + 1)])
        merged = adjacency(means, np.inf)
        if merged.max() == result[-1].max():
            break
        result.append(merged[result[-1]])
    return result


def test_two_pairs_merge_at_the_second_level():
    first, second = finch(angles(0, 5, 90, 96))
    assert partition(first) == [[0, 1], [2, 3]]
    assert partition(second) == [[0, 1, 2, 3]]


def test_a_chain_of_first_neighbours_is_one_cluster():
    assert partition(finch(angles(0, 8, 15, 21, 26, 30))[0]) == [[0, 1, 2, 3, 4, 5]]


def test_a_shared_neighbour_joins():
    assert partition(finch(angles(0, 10, -11, 170, 175))[0]) == [[0, 1, 2], [3, 4]]


def test_one_client_and_two_clients():
    assert [labels.tolist() for labels in finch([[3.0, 4.0]])] == [[0]]
    assert [labels.tolist() for labels in finch([[1.0, 0.0], [-1.0, 0.0]])] == [[0, 0]]


def test_identical_features_are_one_cluster():
    assert [labels.tolist() for labels in finch(np.ones((7, 3)))] == [[0] * 7]


def test_ties_go_to_the_lower_row():
    # Row 2 is as near to row 0 as to row 4; the pairs 0-1 and 3-4 are nearer to each other.
    labels = finch(angles(0, -3, 20, 43, 40))[0]
    assert partition(labels) == [[0, 1, 2], [3, 4]]


def test_a_zero_vector_is_at_distance_one_from_all():
    rows = np.vstack([np.zeros(2), angles(0, 5)])
    assert partition(finch(rows)[0]) == [[0, 1, 2]]  # distance 1 to both: the lower one is its neighbour
    assert partition(finch(rows, max_distance=1.0)[0]) == [[0], [1, 2]]


def test_threshold_leaves_singletons_and_is_not_applied_higher_up():
    rows = angles(0, 5, 60, 120)
    limit = 1 - np.cos(np.radians(10))
    partitions = finch(rows, max_distance=limit)
    assert partition(partitions[0]) == [[0, 1], [2], [3]]
    assert partition(partitions[-1]) == [[0, 1, 2, 3]]


def test_a_link_at_the_threshold_does_not_count():
    rows = [[1.0, 0.0], [0.0, 1.0]]
    assert partition(finch(rows, max_distance=1.0)[0]) == [[0], [1]]
    assert partition(finch(rows, max_distance=1.0001)[0]) == [[0, 1]]


def test_a_threshold_cuts_a_chain_at_its_widest_gaps():
    rows = angles(0, 4, 30, 33, 60)  # 60 is nearest to 33, but too far
    assert partition(finch(rows)[0]) == [[0, 1], [2, 3, 4]]
    assert partition(finch(rows, 1 - np.cos(np.radians(10)))[0]) == [[0, 1], [2, 3], [4]]


def test_zero_vectors_alone():
    assert partition(finch(np.zeros((3, 2)))[0]) == [[0, 1, 2]]
    assert partition(finch(np.zeros((3, 2)), max_distance=1.0)[0]) == [[0], [1], [2]]


def test_a_square_of_ties_is_one_cluster():
    # Corners are at distance 1 from both of their neighbours: 0 and 2 choose 1, 1 and 3 choose 0.
    assert partition(finch(angles(0, 90, 180, 270))[0]) == [[0, 1, 2, 3]]


def test_scale_does_not_matter_to_the_finest_partition():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((30, 5))
    scaled = rows * rng.uniform(0.1, 10, (30, 1))
    assert finch(rows)[0].tolist() == finch(scaled)[0].tolist()


@pytest.mark.parametrize("case", range(40))
def test_equals_a_dense_rederivation(case, monkeypatch):
    rng = np.random.default_rng(case)
    n = int(rng.integers(1, 25))
    rows = rng.integers(-2, 3, (n, 3)).astype(float) if case % 2 else rng.standard_normal((n, 4))
    limit = None if case % 3 else float(rng.uniform(0.05, 1.2))
    monkeypatch.setattr(clustering, "BLOCK_ELEMENTS", int(rng.integers(1, 200)))
    found = [labels.tolist() for labels in finch(rows, limit)]
    assert found == [labels.tolist() for labels in oracle(rows, np.inf if limit is None else limit)]


def test_each_partition_is_coarser_than_the_one_before():
    partitions = finch(np.random.default_rng(0).standard_normal((200, 8)))
    assert len(partitions) > 2
    for fine, coarse in itertools.pairwise(partitions):
        assert coarse.max() < fine.max()
        assert all(len(set(coarse[fine == cluster])) == 1 for cluster in range(fine.max() + 1))


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((0, 3)), [[np.nan, 1.0]]])
def test_refuses_what_is_no_matrix(bad):
    with pytest.raises(ValueError, match="expected a finite matrix"):
        finch(bad)


def test_distances_of_the_clients_that_have_a_feature():
    distances = feature_distances({3: [0.0, 2.0], 0: [1.0, 0.0], 1: [1.0, 1.0]}, 4)
    half = 1 - np.sqrt(0.5)
    nan = np.nan
    expected = [[0, half, nan, 1], [half, 0, nan, half], [nan] * 4, [1, half, nan, 0]]
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, expected, atol=1e-7)
    assert np.isnan(feature_distances({}, 2)).all()


def test_small_distances_keep_their_digits():
    """1 - 1/√(1 + 10⁻⁶) is 5·10⁻⁷ less 4·10⁻¹³; float32 has steps of 6·10⁻⁸ there."""
    features = {0: np.array([1.0, 0.0], np.float32), 1: np.array([1.0, 0.001], np.float32)}
    assert feature_distances(features, 2)[0, 1] == pytest.approx(5e-7, rel=1e-5)
    rows = np.array([[1.0, 0.0], [1.0, 1e-5], [1.0, 5e-5], [1.0, 6e-5]], np.float32)
    assert partition(finch(rows)[0]) == [[0, 1], [2, 3]]


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_the_hierarchy_ends_where_nothing_merges():
    """The mean of the first two rows overflows, and is then at no distance from anything."""
    partitions = finch([[1.7e308, 0.0], [1.7e308, 0.0], [1.0, 0.0], [1.0, 0.1]])
    assert [partition(labels) for labels in partitions] == [[[0, 1], [2, 3]]]
