import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedreid_mpi.algorithms.averaging import (
    TILE,
    Grid,
    add_contribution,
    fits,
    grid_of,
    mean_of,
    share_of,
    weighted_average,
)

SIZES = (12936, 16522, 7365, 32621, 3744, 1940, 632, 450, 248)  # training images of the nine datasets


def updates_of(count, size, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(size).astype(np.float32) for _ in range(count)]


def bits(array):
    return np.asarray(array).view(np.uint32)


def total_of(updates, shares, grid):
    total = torch.zeros(len(updates[0]), dtype=torch.int64)
    for update, share in zip(updates, shares, strict=True):
        add_contribution(total, torch.from_numpy(update), share, grid)
    return total


def test_hand_computed():
    updates = [np.array([1.0, -2.0, 0.0], np.float32), np.array([4.0, 1.0, 0.5], np.float32)]
    assert weighted_average(updates, [1, 2]).tolist() == [3.0, 0.0, np.float32(1 / 3)]


def test_the_resolution_follows_from_the_number_of_participants():
    assert grid_of("parameters", 9) == Grid(50, 256.0)
    assert grid_of("features", 8) == Grid(51, 256.0)
    assert grid_of("parameters", 10_000) == Grid(40, 256.0)
    assert grid_of("statistics", 9) == Grid(38, 2.0**20)
    assert grid_of("parameters", 1) == Grid(54, 256.0)
    for participants in (0, 2**20 + 1):
        with pytest.raises(ValueError, match=f"{participants} participants, expected 1 to 1048576"):
            grid_of("parameters", participants)


def test_contributions_are_exact_multiples_rounded_half_to_even():
    grid = Grid(2, 256.0)  # quarters
    values = np.array([0.25, 0.375, 0.625, -0.375, 100.1, -0.0, 1e-45], np.float32)
    assert total_of([values], [1.0], grid).tolist() == [1, 2, 2, -2, 400, 0, 0]
    assert total_of([values], [0.5], grid).tolist() == [0, 1, 1, -1, 200, 0, 0]


@pytest.mark.parametrize("weights", [SIZES, np.random.default_rng(1).random(9).tolist()])
def test_equals_an_oracle_of_fractions(weights):
    updates = updates_of(9, 200)
    shares = [Fraction(float(np.float32(weight / max(weights)))) for weight in weights]
    found = weighted_average(updates, weights)
    for place, value in enumerate(found.tolist()):
        parts = [share * Fraction(float(each[place])) for share, each in zip(shares, updates, strict=True)]
        total = sum(round(part * 2**50) for part in parts)
        assert value == np.float32(float(total) / (float(sum(shares)) * 2.0**50))


@pytest.mark.parametrize("count", [2, 9, 500])
def test_the_error_is_within_its_bound(count):
    random = np.random.default_rng(count)
    updates = [
        (random.standard_normal(300) * 10.0 ** random.uniform(-9, 2, 300)).clip(-255, 255).astype(np.float32)
        for _ in range(count)
    ]
    weights = (10.0 ** random.uniform(-6, 6, count)).tolist()
    found = weighted_average(updates, weights)
    shares = np.float32(np.array(weights) / max(weights)).astype(np.float64)
    grid = grid_of("parameters", count)
    bound = count * 2.0 ** -(grid.bits + 1) / math.fsum(shares)
    for place in range(300):
        exact = math.fsum(s * float(u[place]) for s, u in zip(shares, updates, strict=True)) / math.fsum(
            shares
        )
        assert abs(float(found[place]) - exact) <= bound + float(np.spacing(np.float32(abs(exact)))) * 0.51


@given(
    hnp.arrays(np.float32, (7, 12), elements=st.floats(-255, 255, width=32)),
    st.permutations(range(7)),
    st.lists(st.integers(0, 2), min_size=7, max_size=7),
    st.lists(st.floats(1e-6, 1e6), min_size=7, max_size=7),
)
def test_order_and_place_do_not_matter(updates, order, ranks, weights):
    """Whoever adds what, and in whatever order: the sum is the same."""
    grid, shares = grid_of("parameters", 7), [share_of(weight, max(weights)) for weight in weights]
    expected = total_of(updates, shares, grid)
    parts = torch.zeros(3, 12, dtype=torch.int64)
    for client in order:
        add_contribution(parts[ranks[client]], torch.from_numpy(updates[client]), shares[client], grid)
    assert torch.equal(parts[2] + (parts[0] + parts[1]), expected)


def test_tiles_do_not_matter():
    size = 2 * TILE + 77
    updates, shares, grid = updates_of(3, size), [0.25, 1.0, 0.1], grid_of("parameters", 3)
    whole = total_of(updates, shares, grid)
    for cut in (1, TILE, TILE + 3, size - 1):
        parts = [
            total_of([u[part] for u in updates], shares, grid) for part in (slice(cut), slice(cut, None))
        ]
        assert torch.equal(torch.cat(parts), whole)
    expected = (whole.numpy() / (1.35 * 2.0**grid.bits)).astype(np.float32)
    np.testing.assert_array_equal(mean_of(whole.numpy(), 1.35, grid), expected)


@pytest.mark.parametrize(("role", "limit"), [("parameters", 2.0**8), ("statistics", 2.0**20)])
@pytest.mark.parametrize("participants", [1, 9, 10_000, 2**20])
def test_as_many_as_there_can_be_fit_at_the_edge_of_the_range(role, limit, participants):
    grid = grid_of(role, participants)
    largest = np.nextafter(np.float32(limit), np.float32(0))
    for value in (largest, -largest):
        assert fits(torch.tensor([0.0, value]), grid)
        (one,) = total_of([np.array([value])], [1.0], grid).tolist()
        assert abs(one) * participants <= 2**62
        assert mean_of(np.array([one * participants]), float(participants), grid)[0] == value
    for value in (limit, -limit, math.nan, math.inf, -math.inf):
        assert not fits(torch.tensor([0.0, value, 1.0]), grid)
    assert fits(torch.empty(0), grid)


@given(hnp.arrays(np.float32, 8, elements=st.floats(-255, 255, width=32)), st.floats(1e-30, 1e30))
@settings(max_examples=50)
def test_lone_update_is_unchanged(update, weight):
    update[:2] = -0.0, np.float32(1e-45)
    np.testing.assert_array_equal(bits(weighted_average([update], [weight])), bits(update))
    others = np.ones(8, np.float32)
    found = weighted_average([others, update, others], [0, weight, 0])
    np.testing.assert_array_equal(bits(found), bits(update))
    assert found is not update


def test_equal_updates_of_ordinary_size_are_unchanged():
    (update,) = updates_of(1, 1000)
    np.testing.assert_array_equal(bits(weighted_average([update] * 4, [1, 3, 1, 2])), bits(update))


def test_what_is_below_the_resolution_is_lost_and_negative_zero_with_it():
    tiny = np.array([1e-45, -0.0, 2.0**-60, 2.0**-50], np.float32)
    assert weighted_average([tiny] * 9, [1] * 9).tolist() == [0.0, 0.0, 0.0, 2.0**-50]
    assert not np.signbit(weighted_average([tiny] * 9, [1] * 9)[1])


def test_sum_keeps_what_float32_would_lose():
    updates = [np.array([value], np.float32) for value in (200.0, 1e-9, -200.0)]
    assert weighted_average(updates, [1, 1, 1])[0] == pytest.approx(1e-9 / 3, rel=1e-5)


def test_shares_have_24_bits():
    assert share_of(1, 3) == float(np.float32(1 / 3))
    assert share_of(0.0, 2.0) == 0.0
    assert share_of(2.0, 2.0) == 1.0
    for weight, reference in ((3, 2), (-1, 2), (math.nan, 2), (1, 0), (0, 0), (1, math.inf)):
        with pytest.raises(ValueError, match=f"weight {weight}, expected 0 to {reference}"):
            share_of(weight, reference)


def test_tensors_and_shapes():
    updates = [update.reshape(4, 5, 6) for update in updates_of(2, 120)]
    expected = weighted_average(updates, [3, 4])
    assert expected.shape == (4, 5, 6)
    np.testing.assert_array_equal(
        weighted_average([torch.from_numpy(each) for each in updates], [3, 4]), expected
    )
    np.testing.assert_array_equal(weighted_average(updates, [0, 4]), updates[1])


ONE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("updates", "weights", "message"),
    [
        ([], [], "0 updates and 0 weights"),
        ([ONE], [1, 2], "1 updates and 2 weights"),
        ([ONE, ONE], [0, 0], "all weights are 0"),
        ([ONE, ONE], [1, -1], "expected finite values that are not negative"),
        ([ONE], [float("nan")], "expected finite values"),
        ([ONE, ONE[:1]], [1, 1], r"update 1 is float32 of shape \(1,\), expected float32 of shape \(2,\)"),
        ([ONE, ONE.astype(np.float64)], [1, 1], "update 1 is float64"),
        ([ONE, 256 * ONE], [1, 1], "update 1 has values that are not finite, or 256 and larger"),
        ([ONE, np.float32([1, np.nan])], [1, 1], "update 1 has values that are not finite"),
    ],
)
def test_bad_input_is_named(updates, weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_average(updates, weights)
