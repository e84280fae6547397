import numpy as np

from fedreid_mpi.algorithms.seeds import derive, generator

SEED = 3529506651895283660


def test_a_stream_has_the_seed_it_always_had():
    """Pinned: a run can be repeated with a later version."""
    assert derive(3, "train", 1, 0) == SEED
    assert generator(3, "train", 1, 0).integers(1000) == np.random.default_rng(SEED).integers(1000)


def test_words_and_numbers_name_different_streams_whatever_the_kind_of_number():
    assert len({derive(3), derive(3, "3"), derive(3, 3), derive(3, "3", "3"), derive(3, "3/'3'")}) == 5
    assert derive(np.int64(3), "train", np.int32(1)) == derive(3, "train", 1)


def test_seeds_fit_into_63_bits():
    seeds = [derive(0, number) for number in range(200)]
    assert 0 <= min(seeds) < 2**60
    assert 2**62 < max(seeds) < 2**63
