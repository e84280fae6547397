"""Sums over clients on a device, long enough to be taken in blocks on a CPU."""

import numpy as np
import torch

from fedreid_mpi.algorithms.averaging import grid_of
from fedreid_mpi.federated.sums import MODELS, RankSums, Segment, Vectors

LENGTH = 70_000  # more than a CPU takes at a time, where a GPU takes all


def add_clients(device):
    grids = grid_of("parameters", 3), grid_of("statistics", 3)
    segments = Segment(slice(0, LENGTH - 100), grids[0]), Segment(slice(LENGTH - 100, LENGTH), grids[1])
    sums = RankSums({MODELS: Vectors(LENGTH, segments)}, {0: 0, 1: 0, 2: 1}, (1, 0, 2), lends_statistics=True)
    draw = np.random.default_rng(4)
    for client, share in enumerate((1.0, 0.3, 0.7)):
        values = torch.from_numpy(draw.standard_normal(LENGTH).astype(np.float32)).to(device)
        assert sums.vectors[MODELS].fits(values)
        sums.add(client, MODELS, share, values)
    return sums
