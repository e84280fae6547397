from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from fedreid_mpi.algorithms.participants import select_participants


@pytest.mark.parametrize("per_round", [0, 9, 12])
def test_all_clients_in_seeded_order(per_round):
    orders = [select_participants(9, per_round, seed=1, round=round) for round in range(1, 20)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert len(set(orders)) == len(orders)


def test_draws_are_what_they_always_were():
    """Pinned: a run can be repeated with a later version."""
    assert select_participants(9, 0, seed=3, round=7) == (2, 5, 0, 7, 6, 4, 8, 1, 3)
    assert select_participants(9, 4, seed=4, round=7) == (1, 4, 7, 0)


def test_one_client_is_enough():
    assert select_participants(1, 0, seed=3, round=7) == select_participants(1, 1, seed=3, round=7) == (0,)


def test_fewer_are_the_head_of_the_same_order():
    order = select_participants(9, 0, seed=4, round=2)
    assert select_participants(9, 3, seed=4, round=2) == order[:3]


@pytest.mark.parametrize("place", [0, 3])
def test_all_are_drawn_equally_often(place):
    # At the head of the order (the reference client) as well as in it at all.
    drawn = Counter(select_participants(9, 4, seed=0, round=round)[place] for round in range(3000))
    assert chisquare([drawn[client] for client in range(9)]).pvalue > 0.001


def test_rounds_are_independent():
    # Who is drawn in one round says nothing about the next: overlaps have the hypergeometric mean K * K / N.
    rounds = [set(select_participants(10, 4, seed=2, round=round)) for round in range(2000)]
    overlaps = [len(a & b) for a, b in pairwise(rounds)]
    assert np.mean(overlaps) == pytest.approx(1.6, abs=0.07)


def test_depends_on_seed_and_round_alone():
    expected = select_participants(9, 5, seed=3, round=7)
    np.random.seed(0)  # noqa: NPY002 (the global state must not matter)
    select_participants(9, 5, seed=3, round=8)
    assert select_participants(9, 5, seed=3, round=7) == expected
    assert all(type(client) is int for client in expected)
    others = {select_participants(9, 5, seed=seed, round=7) for seed in range(20)}
    assert len(others) > 15


@pytest.mark.parametrize(("clients", "per_round"), [(0, 0), (3, -1)])
def test_bad_input_is_named(clients, per_round):
    with pytest.raises(ValueError, match=f"{per_round} of {clients} clients"):
        select_participants(clients, per_round, seed=0, round=1)
