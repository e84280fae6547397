"""Optimisers of the server: the clients' mean change is a step's direction, not yet the step.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2, for Adam and Yogi; Hsu, Qi
and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019, for momentum. With Δ the clients' mean minus the model θ that they began with, the server's new model
is θ + s:

| momentum | m ← β m + Δ             |                                  | s = η m             |
| Adam     | m ← β m + (1 - β) Δ     | v ← v - (1 - β₂) (v - Δ²)        | s = η m / (√v + ε)  |
| Yogi     | m ← β m + (1 - β) Δ     | v ← v - (1 - β₂) Δ² sign(v - Δ²) | s = η m / (√v + ε)  |

m begins at 0 and v at ε², without a correction of the bias, as in the paper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedreid_mpi.records import ServerOptimizer

TILE = 1 << 20
"""Elements that are computed at a time, in float64."""


@dataclass(frozen=True, slots=True)
class Rates:
    """η, β, β₂ and ε."""

    lr: float
    momentum: float
    beta2: float
    epsilon: float


def _adam(second: Tensor, square: Tensor, rest: float) -> Tensor:
    return second - rest * (second - square)


def _yogi(second: Tensor, square: Tensor, rest: float) -> Tensor:
    return second - rest * square * torch.sign(second - square)


SECOND_MOMENTS: Mapping[ServerOptimizer, Callable[[Tensor, Tensor, float], Tensor]] = {
    "adam": _adam,
    "yogi": _yogi,
}
"""From v, Δ² and 1 - β₂ to the next v."""


def initial_moments(optimizer: ServerOptimizer, size: int, rates: Rates) -> dict[str, Tensor]:
    """Return m, and v where the optimiser has one, of a server that has not stepped yet."""
    moments = {"first_moment": torch.zeros(size)}
    if optimizer in SECOND_MOMENTS:
        moments["second_moment"] = torch.full((size,), rates.epsilon**2)
    return moments


def step(
    optimizer: ServerOptimizer, start: Tensor, mean: Tensor, moments: Mapping[str, Tensor], rates: Rates
) -> tuple[Tensor, dict[str, Tensor]]:
    """Take a step; what is given is not changed.

    All is computed in float64. The new model is the mean less what the step lacks of Δ, so that η = 1 and
    β = 0 give the mean to the bit; θ + Δ would not where θ is much the larger.

    Parameters
    ----------
    optimizer
        Which.
    start, mean
        θ, and the clients' mean: shape (parameters,), float32, on the host.
    moments
        Of the step before, or `initial_moments`: by name, shape (parameters,), float32.
    rates
        Its settings.

    Returns
    -------
    Tensor and dict
        The new model and the new moments, float32.
    """
    model, kept = torch.empty_like(mean), {name: torch.empty_like(mean) for name in moments}
    for begin in range(0, len(mean), TILE):
        part = slice(begin, begin + TILE)
        target = mean[part].double()
        change = target - start[part].double()
        first = rates.momentum * moments["first_moment"][part].double()
        if optimizer in SECOND_MOMENTS:
            first += (1 - rates.momentum) * change
            second = moments["second_moment"][part].double()
            second = SECOND_MOMENTS[optimizer](second, change.square(), 1 - rates.beta2)
            moved = rates.lr * first / (second.sqrt() + rates.epsilon)
            kept["second_moment"][part] = second
        else:
            first += change
            moved = rates.lr * first
        kept["first_moment"][part] = first
        model[part] = target - (change - moved)
    return model, kept
