"""Drawn cases of ranking and of re-ranking, and whether two rankings are the same."""

import random

import numpy as np


def random_case(seed, queries=12, gallery=40, dimensions=3, people=5, cameras=3):
    """Small-integer features, hence many ties; junk, background, unmatched queries, zero vectors."""
    draw = random.Random(seed)

    def side(count, lowest):
        features = [[draw.randint(-2, 2) for _ in range(dimensions)] for _ in range(count)]
        pids = [draw.randint(lowest, people) for _ in range(count)]
        return features, pids, [draw.randrange(cameras) for _ in range(count)]

    qf, qp, qc = side(queries, 1)
    gf, gp, gc = side(gallery, -1)
    qp[0] = people + 1  # in no gallery
    qp[1] = -1
    return {"qf": qf, "qp": qp, "qc": qc, "gf": gf, "gp": gp, "gc": gc}


def people(seed, queries=15, gallery=90, persons=12, dimensions=8, spread=0.7):
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((persons, dimensions))
    pids = draw.integers(persons, size=queries + gallery)
    features = centres[pids] + spread * draw.standard_normal((len(pids), dimensions))
    camids = draw.integers(4, size=len(pids))
    split = slice(0, queries), slice(queries, None)
    return [array[part] for part in split for array in (features, pids, camids)]


def same(ranking, other):
    for name in ("cmc", "average_precision", "inverse_negative_penalty", "first_match"):
        np.testing.assert_array_equal(getattr(ranking, name), getattr(other, name), err_msg=name)
    assert ranking.scores().queries == other.scores().queries
