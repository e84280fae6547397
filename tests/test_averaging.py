from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedreid_mpi.algorithms.averaging import TILE, weighted_average

SIZES = (12936, 16522, 7365, 32621, 3744, 1940, 632, 450, 248)  # training images of the nine datasets


def updates_of(count, size, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(size).astype(np.float32) for _ in range(count)]


def bits(array):
    return np.asarray(array).view(np.uint32)


def test_hand_computed():
    updates = [np.array([1.0, -2.0, 0.0], np.float32), np.array([4.0, 1.0, 0.5], np.float32)]
    assert weighted_average(updates, [1, 2]).tolist() == [3.0, 0.0, np.float32(1 / 3)]


@pytest.mark.parametrize("weights", [SIZES, np.random.default_rng(1).random(9).tolist()])
def test_equals_independent_float64(weights):
    updates = updates_of(9, 3 * TILE + 77)
    exact = np.array(weights, np.float32).astype(np.float64)
    numerator = updates[0].astype(np.float64) * exact[0]
    for update, weight in zip(updates[1:], exact[1:], strict=True):
        numerator = numerator + update.astype(np.float64) * weight
    expected = (numerator / exact.sum()).astype(np.float32)
    np.testing.assert_array_equal(bits(weighted_average(updates, weights)), bits(expected))


@given(
    hnp.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False)),
    st.floats(1e-30, 1e30),
)
def test_lone_update_is_unchanged(update, weight):
    update[:3] = -0.0, np.float32(1e-45), np.finfo(np.float32).max
    ignored = np.full(8, np.nan, np.float32)
    np.testing.assert_array_equal(bits(weighted_average([update], [weight])), bits(update))
    np.testing.assert_array_equal(
        bits(weighted_average([ignored, update, ignored], [0, weight, 1e-60])), bits(update)
    )


def test_equal_updates_are_unchanged():
    update = updates_of(1, 1000)[0]
    update[0] = -0.0
    np.testing.assert_array_equal(bits(weighted_average([update] * 4, [1, 1, 1, 1])), bits(update))


@given(st.lists(st.integers(0, 3 * TILE), max_size=4))
def test_chunks_give_the_same_bits(cuts):
    size = 3 * TILE
    updates = updates_of(3, size)
    whole = weighted_average(updates, [0.1, 0.2, 0.7])
    chunked = np.empty(size, np.float32)
    edges = [0, *sorted(cuts), size]
    for start, stop in pairwise(edges):
        weighted_average([update[start:stop] for update in updates], [0.1, 0.2, 0.7], out=chunked[start:stop])
    np.testing.assert_array_equal(bits(whole), bits(chunked))


def test_weights_are_rounded_to_float32():
    updates = updates_of(3, 5000)
    weights = [1 / 3, 0.1, 2 / 7]
    np.testing.assert_array_equal(
        bits(weighted_average(updates, weights)), bits(weighted_average(updates, np.float32(weights)))
    )


def test_sum_keeps_what_float32_would_lose():
    updates = [np.array([value], np.float32) for value in (1e8, 1.0, -1e8)]
    assert weighted_average(updates, [1, 1, 1])[0] == np.float32(1 / 3)


def test_out_may_be_an_update():
    updates = updates_of(3, 2 * TILE + 5)
    expected = weighted_average(updates, SIZES[:3])
    assert weighted_average(updates, SIZES[:3], out=updates[1]) is updates[1]
    np.testing.assert_array_equal(bits(updates[1]), bits(expected))


def test_tensors_and_shapes():
    updates = [update.reshape(4, 5, 6) for update in updates_of(2, 120)]
    expected = weighted_average(updates, [3, 4])
    assert expected.shape == (4, 5, 6)
    target = torch.zeros(4, 5, 6)
    weighted_average([torch.from_numpy(update) for update in updates], [3, 4], out=target.numpy())
    np.testing.assert_array_equal(target.numpy(), expected)


ONE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("updates", "weights", "message"),
    [
        ([], [], "0 updates and 0 weights"),
        ([ONE], [1, 2], "1 updates and 2 weights"),
        ([ONE, ONE], [0, 0], "all weights are 0"),
        ([ONE, ONE], [1, -1], "expected finite values that are not negative"),
        ([ONE], [float("nan")], "expected finite values"),
        ([ONE], [1e39], "expected finite values"),
        ([ONE, ONE[:1]], [1, 1], r"update 1 is float32 of shape \(1,\), expected float32 of shape \(2,\)"),
        ([ONE, ONE.astype(np.float64)], [1, 1], "update 1 is float64"),
    ],
)
def test_bad_input_is_named(updates, weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_average(updates, weights)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros(3, np.float32), r"out is float32 of shape \(3,\)"),
        (np.zeros(2), "out is float64"),
        (np.zeros(4, np.float32)[::2], "out is not C-contiguous"),
    ],
)
def test_bad_out_is_named(out, message):
    with pytest.raises(ValueError, match=message):
        weighted_average([ONE], [1], out=out)
