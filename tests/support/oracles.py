"""What the program computes, written down a second time in other words."""

import math

import numpy as np


def averaged(models, weights, reference=None, participants=None):
    """The weighted mean of models, tensors by name: integers on a grid, divided once, rounded once.

    The reference is the largest weight that a client of the round can have, if it is not among these; the
    participants are as many as a round can have, if that is more than these.
    """
    shares = np.float32(np.asarray(weights, np.float64) / (reference or max(weights))).astype(np.float64)
    room = 62 - math.ceil(math.log2(participants or len(models)))
    mean = {}
    for name in models[0]:
        scale = 2.0 ** (room - (20 if "running_" in name else 8))
        parts = [
            np.rint(share * model[name].astype(np.float64) * scale).astype(np.int64)
            for share, model in zip(shares, models, strict=True)
        ]
        mean[name] = (sum(parts) / (math.fsum(shares) * scale)).astype(np.float32)
    return mean


def assert_same_model(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name].tobytes() != expected[name].tobytes()] == []
