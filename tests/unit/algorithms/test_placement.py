from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedreid_mpi.algorithms.placement import place

COSTS = st.lists(st.integers(0, 30), max_size=7)


def makespan(costs, placement):
    return max(sum(costs[unit] for unit in units) for units in placement)


def test_hand_computed():
    assert place([3, 3, 2, 2, 2], 2) == ((0, 2, 4), (1, 3))  # Graham's worst case: 7, best possible 6
    assert place([1, 5, 2, 4], 2) == ((0, 1), (2, 3))


def test_nine_datasets_on_three_ranks():
    images = [12936, 16522, 7365, 32621, 3744, 1940, 632, 450, 248]
    placement = place(images, 3)
    assert placement[0] == (3,)
    assert makespan(images, placement) == 32621


def test_ties_go_to_the_lower_id_and_rank():
    assert place([1, 1, 1, 1], 3) == ((0, 3), (1,), (2,))


def test_more_ranks_than_units():
    assert place([2, 1], 4) == ((0,), (1,), (), ())
    assert place([], 2) == ((), ())


@given(COSTS, st.integers(1, 4))
def test_every_unit_once_and_ascending(costs, ranks):
    placement = place(costs, ranks)
    assert len(placement) == ranks
    assert sorted(unit for units in placement for unit in units) == list(range(len(costs)))
    assert all(list(units) == sorted(units) for units in placement)


@given(COSTS, st.integers(1, 3))
def test_within_grahams_bound_of_the_best(costs, ranks):
    best = min(
        max(sum(c for c, r in zip(costs, choice, strict=True) if r == rank) for rank in range(ranks))
        for choice in product(range(ranks), repeat=len(costs))
    )
    assert 3 * ranks * makespan(costs, place(costs, ranks)) <= (4 * ranks - 1) * best


@given(st.lists(st.floats(0, 1e6), unique=True, max_size=7), st.integers(1, 4), st.randoms())
def test_naming_of_units_does_not_matter(costs, ranks, random):
    names = list(range(len(costs)))
    random.shuffle(names)
    renamed = place([costs[name] for name in names], ranks)
    assert tuple(tuple(sorted(names[unit] for unit in units)) for units in renamed) == place(costs, ranks)


@pytest.mark.parametrize(
    ("costs", "ranks", "message"), [([1], 0, "0 ranks"), ([1, -1], 2, "negative"), ([float("nan")], 1, "NaN")]
)
def test_bad_input_is_named(costs, ranks, message):
    with pytest.raises(ValueError, match=message):
        place(costs, ranks)
