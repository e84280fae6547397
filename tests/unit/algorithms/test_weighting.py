import math

import numpy as np
import pytest

from fedreid_mpi.algorithms.weighting import LEAST_DISTANCE, WEIGHTINGS, cosine_distance, weigh
from fedreid_mpi.records import ClientReport


def reports_of(images, distances=None):
    return [
        ClientReport(client, count, 1, 1.0, True, 0.0, cosine_distance=(distances or {}).get(client))
        for client, count in images.items()
    ]


def test_distance_by_hand():
    before = [[1.0, 0.0], [3.0, 4.0], [1.0, 0.0]]
    after = [[0.0, 2.0], [6.0, 8.0], [-5.0, 0.0]]  # cosines 0, 1, -1
    assert cosine_distance(before, after) == pytest.approx((1 + 0 + 2) / 3, abs=1e-15)


@pytest.mark.parametrize("case", range(20))
def test_distance_equals_a_plain_loop(case):
    rng = np.random.default_rng(case)
    before, after = rng.standard_normal((2, 7, 5)).astype(np.float32)
    total = 0.0
    for p, q in zip(before.tolist(), after.tolist(), strict=True):
        dot = math.fsum(a * b for a, b in zip(p, q, strict=True))
        total += 1 - dot / math.sqrt(math.fsum(a * a for a in p)) / math.sqrt(math.fsum(b * b for b in q))
    assert cosine_distance(before, after) == pytest.approx(total / 7, rel=1e-12)


def test_identical_models_are_at_distance_zero_and_count_alike():
    logits = np.random.default_rng(0).standard_normal((32, 19)).astype(np.float32)
    logits[3] = 0
    assert cosine_distance(logits, logits.copy()) == 0.0
    weights = weigh(reports_of({4: 30, 1: 10}, {4: 0.0, 1: 1e-9}), WEIGHTINGS["cosine-distance"])
    assert weights == {1: LEAST_DISTANCE, 4: LEAST_DISTANCE}


def test_a_zero_row_is_at_distance_one_from_any_other():
    assert cosine_distance([[0.0, 0.0]], [[2.0, 1.0]]) == 1.0
    assert cosine_distance([[0.0, 0.0], [3.0, 4.0]], [[2.0, 1.0], [0.0, 0.0]]) == 1.0


def test_equal_rows_are_told_one_by_one():
    assert cosine_distance([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]) == 0.5


def test_the_length_of_logits_does_not_matter():
    assert cosine_distance([[1e-3, 0.0], [1e-6, 1e-6]], [[2e-3, 0.0], [0.0, 1e-9]]) == pytest.approx(
        (1 - 0.5**0.5) / 2
    )


def test_rounding_does_not_lead_out_of_the_range():
    # Of these two directions the cosine comes out as 1 + 2^-51.
    assert cosine_distance([[0.98, 0.08]], [[2.548, 0.208]]) == 0.0
    assert cosine_distance([[0.98, 0.08]], [[-2.548, -0.208]]) == 2.0


def test_a_client_that_moved_more_weighs_more():
    rng = np.random.default_rng(1)
    before = rng.standard_normal((32, 10))
    noise = rng.standard_normal((32, 10))
    distances = [cosine_distance(before, before + step * noise) for step in (0.0, 0.1, 0.5, 2.0)]
    assert distances == sorted(distances)
    assert len(set(distances)) == 4


def test_weigh_takes_what_is_asked_for():
    reports = reports_of({3: 7, 0: 5}, {3: 0.25, 0: 0.5})
    assert list(weigh(reports, WEIGHTINGS["samples"]).items()) == [(0, 5.0), (3, 7.0)]
    assert list(weigh(reports, WEIGHTINGS["uniform"]).items()) == [(0, 1.0), (3, 1.0)]
    assert list(weigh(reports, WEIGHTINGS["cosine-distance"]).items()) == [(0, 0.5), (3, 0.25)]


@pytest.mark.parametrize(("before", "after"), [(np.ones((2, 3)), np.ones((2, 4))), (np.ones(3), np.ones(3))])
def test_other_shapes_are_refused(before, after):
    with pytest.raises(ValueError, match="expected one shape"):
        cosine_distance(before, after)


def test_no_weight_is_above_the_reference():
    reports = reports_of({3: 7, 0: 5, 4: 90}, {3: 2.0, 0: 0.0, 4: 0.5})
    for name, rule in WEIGHTINGS.items():
        largest = rule.reference([report.images for report in reports])
        assert all(0 < weight <= largest for weight in weigh(reports, WEIGHTINGS[name]).values()), name
    assert WEIGHTINGS["samples"].reference([7, 5, 90]) == 90.0
