"""Client-level differential privacy: bounded updates, a fixed divisor, and noise on their sum.

Source: McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018, algorithm 1, with uniform weights and the estimator of fixed denominator. Each of N clients takes part
in a round with probability q, independently of the others. Its update is scaled down to an L2 norm of at most
S. The server's step is (Σ updates + noise) / (qN), even if nobody took part. The noise is normal,
its standard deviation z · S for the noise multiplier z, so that whether a client's data were there or not is
hidden to the degree that `accountant` computes.

A model has two parts, parameters and BatchNorm statistics, whose sizes have nothing to do with each other.
Each has its own bound, and noise of √2 · z times it: together they are one Gaussian mechanism with
multiplier z, as the update divided by the bounds, part by part, has norm √2 at most.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.algorithms.seeds import generator


@torch.no_grad()
def clip_update(update: Tensor, bound: float) -> None:
    """Scale an update down to an L2 norm of at most ``bound``, in place.

    Parameters
    ----------
    update
        Shape (elements,), float32. One whose norm is not finite stays as it is, and is not to be used.
    bound
        Positive.

    Notes
    -----
    Rounding to float32 can leave the norm above the bound by a few parts in 10⁸; the factor allows for it.
    """
    norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if bound < norm < math.inf:
        update.mul_(bound / norm * (1 - 2.0**-22))


def noise_scale(noise_multiplier: float, bound: float, parts: int) -> float:
    """Return the noise's standard deviation on the sum of one part of the update.

    Parameters
    ----------
    noise_multiplier
        z, of all parts together.
    bound
        The L2 norm that the part is clipped to.
    parts
        Number of parts that are clipped each on its own.
    """
    return noise_multiplier * bound * math.sqrt(parts)


def draw_noise(length: int, scale: float, seed: int, round: int, part: str) -> NDArray[np.float64]:
    """Draw a round's noise from the run's seed: shape (length,), float64, normal.

    Who knows the seed can take the noise away again: a laboratory's choice, so that runs can be repeated.
    """
    return generator(seed, "noise", round, part).standard_normal(length) * scale


def noise_to_signal(noise_multiplier: float, expected_clients: float, parameters: int, parts: int) -> float:
    """Compare the noise of one round's step with the largest step that clipping lets through.

    Parameters
    ----------
    noise_multiplier
        z.
    expected_clients
        qN.
    parameters
        Number of values that the clipped update has.
    parts
        As in `noise_scale`.

    Returns
    -------
    float
        The noise's expected norm, z · √parts · S · √d / (qN), over S: the step's norm if all clients moved
        alike, as far as they may. Updates that are not parallel make less of a signal.
    """
    return noise_scale(noise_multiplier, 1.0, parts) * math.sqrt(parameters) / expected_clients
