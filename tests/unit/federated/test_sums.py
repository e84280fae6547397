"""What the clients of a rank add up to, by hand; over ranks, see ``tests/mpi/test_comm.py``."""

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedreid_mpi.algorithms.averaging import Grid
from fedreid_mpi.federated.masks import Masks
from fedreid_mpi.federated.sums import FEATURES, MODELS, RankSums, Segment, Vectors
from fedreid_mpi.records import Group

QUARTERS = Grid(2, 256.0)
PARAMETERS, STATISTICS = (
    Segment(slice(0, 2), QUARTERS, bound=5.0),
    Segment(slice(2, 4), Grid(2, 1024.0), bound=1.0),
)
VECTORS = {
    MODELS: Vectors(4, (PARAMETERS, STATISTICS)),
    FEATURES: Vectors(1, (Segment(slice(0, 1), QUARTERS),)),
}


def sums_of(keys, order=(2, 0, 1), **options):
    return RankSums(VECTORS, dict(keys), order, **options)


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


def total(sums, key, kind=MODELS):
    found = sums.total(kind, key)
    return None if found is None else found.values.tolist()


def test_each_segment_has_its_own_range():
    assert VECTORS[MODELS].fits(vector(255, -255, 1023, -1023))
    assert not VECTORS[MODELS].fits(vector(256, 0, 0, 0))
    assert not VECTORS[MODELS].fits(vector(0, 0, 0, -1024))
    assert not VECTORS[MODELS].fits(vector(0, 0, 0, torch.nan))


def test_a_sum_by_hand():
    sums = sums_of({0: 0, 1: 0, 2: 1})
    sums.add(0, MODELS, 0.5, vector(1, 2, 3, 4))
    sums.add(1, MODELS, 1.0, vector(0.25, -1, 0, 8))
    assert total(sums, 0) == [2 + 1, 4 - 4, 6, 8 + 32]
    assert total(sums, 1) is None
    mean = VECTORS[MODELS].mean(torch.tensor([3, 0, 6, 40]), 1.5)
    assert mean.tolist() == [0.5, 0.0, 1.0, pytest.approx(40 / 6)]
    assert mean.dtype == torch.float32


def test_kinds_and_groups_are_added_each_by_itself():
    sums = sums_of({0: 0, 1: 0, 2: 3, 3: 3}, order=(3, 2, 1, 0))
    for client in range(4):
        sums.add(client, MODELS, 1.0, vector(client, 0, 0, 0))
        sums.add(client, FEATURES, 1.0, vector(10 * client))
    assert (total(sums, 0), total(sums, 3)) == ([4, 0, 0, 0], [20, 0, 0, 0])
    assert (total(sums, 0, FEATURES), total(sums, 3, FEATURES)) == ([40], [200])


def test_the_model_of_one_that_is_alone_is_kept_as_it_is_and_its_features_are_added():
    sums, values = sums_of({0: 0, 1: 1, 2: 1}), vector(0.1, 0.2, 0.3, 0.4)
    assert [sums.is_alone(client) for client in range(3)] == [True, False, False]
    sums.add(0, MODELS, 1.0, values)
    sums.add(0, FEATURES, 1.0, vector(2))
    values.zero_()
    assert total(sums, 0) is None
    assert torch.equal(sums.lone_model(0), vector(0.1, 0.2, 0.3, 0.4))
    assert torch.equal(sums.statistics(0), vector(0.3, 0.4))
    assert sums.lone_model(1) is None
    assert total(sums, 0, FEATURES) == [8]


def test_who_comes_first_in_the_rounds_order_lends_its_statistics():
    for adding in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        sums = sums_of({0: 0, 1: 0, 2: 0}, order=(1, 2, 0), lends_statistics=True)
        for client in adding:
            values = vector(0, 0, client, 7)
            sums.add(client, MODELS, 1.0, values)
            values.zero_()
        assert torch.equal(sums.statistics(1), vector(1, 7))
        assert sums.statistics(0) is sums.statistics(2) is None
    sums = sums_of({0: 0, 1: 0, 2: 0})
    sums.add(1, MODELS, 1.0, vector(1, 2, 3, 4))
    assert sums.statistics(1) is None


def test_what_waits_for_its_group_is_added_when_the_groups_are_known():
    sums = sums_of({}, order=(2, 0, 1, 3), lends_statistics=True)
    for client in range(4):
        sums.add(client, MODELS, 0.5, vector(client, 0, client, 0))
        sums.add(client, FEATURES, 1.0, vector(client))
    # Client 4 begins with the mean of all, which is no group of theirs.
    everyone = dict.fromkeys(range(4), 1.0)
    groups = [
        Group((0, 2, 3), dict.fromkeys((0, 2, 3), 1.0), {2: 1.0}, 0),
        Group((1,), {1: 1.0}, {1: 1.0}, 0),
    ]
    sums.settle([*groups, Group((4,), everyone, {2: 1.0}, 0)])
    assert sums.keys == {0: 0, 2: 0, 3: 0, 1: 1}
    assert total(sums, 0) == [10, 0, 10, 0]
    assert (total(sums, 0, FEATURES), total(sums, 1, FEATURES)) == ([20], [4])
    assert total(sums, 1) is None
    assert torch.equal(sums.lone_model(1), vector(1, 0, 1, 0))
    assert sums.lone_model(0) is None
    assert torch.equal(sums.statistics(2), vector(2, 0))


def test_an_update_is_clipped_part_by_part_and_a_lone_one_is_added():
    sums = sums_of({0: 0}, updates=True)
    start, trained = vector(1, 1, 1, 1), vector(4, 5, 4, 5)
    update = sums.contribution(trained, start)
    torch.testing.assert_close(update, vector(3, 4, 0.6, 0.8))
    assert trained.tolist() == [4, 5, 4, 5]
    assert not sums.is_alone(0)
    sums.add(0, MODELS, 1.0, vector(3, 4, 0.5, 0.75))
    assert total(sums, 0) == [12, 16, 2, 3]
    assert sums_of({0: 0}).contribution(trained, start) is trained


def test_memory_of_an_earlier_round_is_used_again():
    spare = [torch.full((4,), 99), torch.full((1,), 99)]
    sums = sums_of({0: 0, 1: 0, 2: 1, 3: 1}, order=(0, 1, 2, 3), spare=spare)
    held = spare[0]
    sums.add(0, MODELS, 1.0, vector(1, 2, 3, 4))
    assert total(sums, 0) == [4, 8, 12, 16]
    assert sums.total(MODELS, 0).values.ctypes.data == held.data_ptr()
    assert [len(each) for each in spare] == [1]
    sums.add(2, MODELS, 1.0, vector(1, 0, 0, 0))  # there is no other of this length
    sums.received.append(torch.zeros(6, dtype=torch.int64))
    sums.finish()
    assert [len(each) for each in spare] == [1, 4, 6]
    assert spare[1] is held
    assert all(each.dtype == torch.int64 for each in spare)
    assert sums.received == []
    assert total(sums, 0) is total(sums, 1) is None


def test_masks_hide_the_sums_of_two_ranks_one_of_which_has_nothing_to_add():
    keys = [X25519PrivateKey.generate() for _ in range(2)]
    public = tuple(key.public_key().public_bytes_raw() for key in keys)
    ranks = [sums_of({0: 4, 1: 4}, masks=Masks(key, place, public, 0)) for place, key in enumerate(keys)]
    ranks[0].add(0, MODELS, 1.0, vector(1, 2, 3, 4))
    hidden = [rank.total(MODELS, 4).values for rank in ranks]
    assert (hidden[0] + hidden[1]).tolist() == [4, 8, 12, 16]  # modulo 2^64
    assert not {4, 8, 12, 16} & set(hidden[0].tolist())
    assert 0 not in hidden[1]
    for rank in ranks:
        with pytest.raises(RuntimeError, match="models 4 masked twice"):
            rank.total(MODELS, 4)
        rank.finish()
        assert [len(each) for each in rank.spare] == [4]
