"""Samplers: what an epoch is, on random people and cameras, and what a client trains on."""

from collections import Counter
from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.config import Federation, load_experiment
from fedreid_mpi.data.samplers import (
    SAMPLERS,
    _mixed,
    count_batches,
    epoch_batches,
    identity_batches,
    training_batches,
)
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import RoundPlan, Sampling
from support.learners import learner
from support.small import write_experiment, write_site


@pytest.mark.parametrize(
    ("images", "drop_last", "sizes"),
    [
        (24, False, [8, 8, 8]),
        (26, False, [8, 8, 8, 2]),
        (25, False, [8, 8, 8]),  # a batch of one has no variance
        (26, True, [8, 8, 8]),
        (5, False, [5]),
        (5, True, []),
        (2, False, [2]),
    ],
)
def test_an_epoch_is_cut_into_batches(images, drop_last, sizes):
    batches = list(epoch_batches(images, 8, drop_last, generator(0, "epoch")))
    assert [len(rows) for rows in batches] == sizes
    rows = np.concatenate([np.empty(0, np.int64), *batches])
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(range(images))


def test_the_configuration_says_whether_the_last_batch_is_dropped():
    people = np.arange(26)
    for drop_last, batches in ((False, 4), (True, 3)):
        assert count_batches(people, people, Federation(batch_size=8, drop_last=drop_last)) == batches


def test_epochs_are_shuffled_anew():
    random = generator(0, "epoch")
    first, second = (np.concatenate(list(epoch_batches(32, 8, False, random))) for _ in range(2))
    assert not np.array_equal(first, second)
    assert sorted(first) == sorted(second) == list(range(32))


SIGHTINGS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=60)


def most_batches(groups, persons):
    """The most batches of so many different people, found by trying all numbers."""
    return max(b for b in range(sum(groups) + 1) if sum(min(g, b) for g in groups) >= b * persons)


@given(SIGHTINGS, st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32))
def test_batches_are_people_with_as_many_images_each(sightings, persons, each, seed):
    people, cameras = (np.array(column, np.int64) for column in zip(*sightings, strict=True))
    images = Counter(people.tolist())
    batches = identity_batches(people, cameras, persons, each, generator(seed, "epoch"))
    persons = min(persons, len(images))
    groups = {person: -(-count // each) for person, count in images.items()}
    assert len(batches) == most_batches(groups.values(), persons) >= 1
    shown = Counter()
    for rows in batches:
        assert rows.dtype == np.int64
        blocks = rows.reshape(persons, each)
        assert all(len(set(people[block].tolist())) == 1 for block in blocks)
        assert len({int(people[block[0]]) for block in blocks}) == persons
        for block in blocks:
            if images[int(people[block[0]])] >= each:
                assert len(set(block.tolist())) == each  # nobody is shown twice who need not be
        shown.update(rows.tolist())
    for person, count in images.items():
        again = groups[person] * each - count  # what fills the last group up
        times = [shown[row] for row in np.flatnonzero(people == person).tolist()]
        assert max(times) <= (each if count < each else 2)
        assert sum(max(0, t - 1) for t in times) <= again
    if max(groups.values()) <= len(batches):  # then no more than chance and division leave out
        assert sum(groups.values()) - len(batches) * persons < persons


@given(SIGHTINGS, st.integers(2, 5), st.integers(0, 2**32))
def test_neighbours_are_of_different_cameras_where_there_are(sightings, each, seed):
    cameras = np.array([camera for _, camera in sightings], np.int64)
    people = np.zeros(len(cameras), np.int64)
    batches = identity_batches(people, cameras, 1, each, generator(seed, "epoch"))
    seen = [Counter(cameras[rows].tolist()) for rows in batches]
    assert max(map(len, seen)) == min(each, len(set(cameras.tolist())))
    order = _mixed(cameras, generator(seed, "epoch"))
    assert sorted(order.tolist()) == list(range(len(cameras)))
    all_of = Counter(cameras.tolist())
    for end in range(1, len(order) + 1):
        so_far = Counter(cameras[order[:end]].tolist())
        most = max(so_far.values())
        assert all(so_far[camera] >= min(most - 1, count) for camera, count in all_of.items())


def test_a_small_epoch_by_hand():
    """Two people, of five and one images, K = 2: groups of 3 and 1, but one batch, as both must be in it."""
    people, cameras = np.array([7, 7, 3, 7, 7, 7]), np.array([1, 1, 1, 2, 2, 2])
    chosen = Counter()
    for seed in range(40):
        (rows,) = identity_batches(people, cameras, 2, 2, generator(seed, "epoch"))
        first, second = sorted(rows.reshape(2, 2).tolist(), key=lambda block: people[block[0]])
        assert first == [2, 2]
        chosen[frozenset(cameras[second].tolist())] += 1
    assert set(chosen) == {frozenset({1, 2}), frozenset({2})}  # the third group is the camera with more


def test_an_epoch_is_what_it_always_was():
    """Pinned: a run can be repeated, on another machine and with a later version as well."""
    people, cameras = np.arange(60) % 5, np.arange(60) // 5 % 3
    batches = identity_batches(people, cameras, 3, 4, generator(3, "epoch"))
    assert [rows.tolist() for rows in batches] == [
        [12, 47, 7, 27, 13, 23, 33, 58, 44, 4, 9, 59],
        [50, 45, 10, 35, 53, 3, 28, 38, 24, 29, 19, 54],
        [32, 52, 57, 2, 6, 41, 1, 51, 34, 39, 14, 49],
        [30, 40, 20, 0, 37, 42, 17, 22, 56, 16, 36, 26],
        [55, 5, 15, 25, 48, 43, 8, 18, 31, 21, 11, 46],
    ]


def test_everyone_is_left_out_at_times():
    people = np.repeat(np.arange(5), 2)
    left = Counter()
    for seed in range(200):
        shown = np.concatenate(identity_batches(people, people, 2, 2, generator(seed, "epoch")))
        (missing,) = set(range(5)) - set(people[shown].tolist())
        left[missing] += 1
    assert min(left[person] for person in range(5)) > 20  # of 40 each


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_functions_of_their_arguments(name):
    people, cameras = np.arange(40) % 7, np.arange(40) % 3
    settings = Federation(batch_size=8, sampler=name)
    first, second, other = (
        [
            rows.tolist()
            for rows in training_batches(people, cameras, settings, generator(3, "train", 1, client))
        ]
        for client in (0, 0, 1)
    )
    assert first == second != other


def test_the_table_holds_what_the_configuration_offers():
    assert tuple(SAMPLERS) == get_args(Sampling)


@pytest.mark.parametrize(("name", "iterations"), [*product(SAMPLERS, (1, 5, 6, 13))])
def test_iterations_are_epochs_cut_off(name, iterations):
    people, cameras = np.arange(40) % 7, np.arange(40) % 3
    epochs, cut = (
        list(
            training_batches(
                people, cameras, Federation(batch_size=8, sampler=name, **length), generator(3, "train")
            )
        )
        for length in ({"local_epochs": 3}, {"local_iterations": iterations})
    )
    assert len(epochs) == {"shuffled": 3 * 5, "identities": 3 * 7}[name]  # of 7 people, two groups each
    assert count_batches(people, cameras, Federation(batch_size=8, sampler=name, local_epochs=3)) == len(
        epochs
    )
    assert [rows.tolist() for rows in cut] == [rows.tolist() for rows in epochs[:iterations]]


def test_a_client_trains_on_what_the_sampler_gives(tmp_path):
    site = write_site(tmp_path / "site.h5", images=32, people=4)
    keys = {"batch_size": 8, "sampler": "identities", "local_iterations": 5, "images_per_identity": 4}
    path = write_experiment(tmp_path / "x.toml", [site], federation=keys)
    client = learner(site, load_experiment(path))
    assert client.data.people.tolist() == client.data.labels.tolist()
    assert sorted(set(client.data.cameras.tolist())) == [1, 2]
    seen = []
    batch = client.data.images.batch
    client.data.images.batch = lambda rows: seen.append(rows) or batch(rows)
    report = client.train(RoundPlan(1, (0,), 0.05, evaluate=False))
    assert report.steps == client.data.spec.steps == len(seen) == 5
    random = generator(3, "train", 1, 0)
    first = identity_batches(client.data.people, client.data.cameras, 2, 4, random)
    assert [rows.tolist() for rows in seen[: len(first)]] == [rows.tolist() for rows in first]
    for rows in seen:
        assert sorted(Counter(client.data.people[rows].tolist()).values()) == [4, 4]
        assert sorted(client.data.cameras[rows].tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ({"sampler": "identities", "batch_size": 10}, "batch_size is 10, expected twice images_per_identity"),
        ({"sampler": "identities", "batch_size": 4}, "batch_size is 4, expected twice images_per_identity"),
        ({"images_per_identity": 2}, 'has no effect when federation.sampler = "shuffled"'),
        (
            {"sampler": "identities", "drop_last": True},
            "federation.drop_last has no effect when federation.sampler",
        ),
        (
            {"local_iterations": 3, "local_epochs": 2},
            "federation.local_epochs has no effect when federation.local_it",
        ),
        (
            {"images_per_identity": 1},
            "federation.images_per_identity is 1, expected greater than or equal to 2",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(federation, said, tmp_path):
    path = write_experiment(tmp_path / "x.toml", [tmp_path / "a.h5"], federation=federation)
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert said in str(caught.value)
