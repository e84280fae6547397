"""FedNova: clients that take more steps do not pull the model towards their own optimum.

Source: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020. A client's change θ_k - θ is the sum of its gradients, each times the learning rate and an
accumulation factor a_k,i that momentum gives it. Divided by ‖a_k‖₁ = Σ_i a_k,i it is a mean gradient,
whatever the number of steps; the server takes Σ_k p_k ‖a_k‖₁ of the mean ones (equation 9, with τ_eff as in
section 5):

θ + (Σ p_k ‖a_k‖₁) Σ p_k (θ_k - θ) / ‖a_k‖₁

The weighted mean with weights p_k / ‖a_k‖₁ is θ + Σ p_k (θ_k - θ) / ‖a_k‖₁ / Σ p_k / ‖a_k‖₁, so the server
extrapolates from θ to that mean by γ = (Σ p_k ‖a_k‖₁) (Σ p_k / ‖a_k‖₁), which is 1 or more.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from fedreid_mpi.algorithms.weighting import WeightRule


def step_norm(steps: int, momentum: float, nesterov: bool) -> float:
    """Return ‖a‖₁ of some steps of SGD with momentum as torch takes them, from a momentum of zero.

    Each gradient's factor is not negative, so that their sum is how far SGD with a learning rate of 1 goes
    along a gradient that is always 1. torch's momentum is b ← m b + g, and its step b, or g + m b with
    Nesterov's form.
    """
    buffer = moved = 0.0
    for _ in range(steps):
        buffer = momentum * buffer + 1
        moved += 1 + momentum * buffer if nesterov else buffer
    return moved


def normalised(rule: WeightRule, norm_of: Callable[[int], float], least: float) -> WeightRule:
    """Return the weights n_k / ‖a_k‖₁, times a constant of the round.

    Parameters
    ----------
    rule
        Gives n_k.
    norm_of
        Number of steps to ‖a_k‖₁.
    least
        The smallest ‖a_k‖₁ of the round, known before anyone has trained. The constant is chosen so that n_k
        stays what it is with that many steps: weights are then in the same range, and equal steps give the
        weights of `rule` to the bit.
    """
    return WeightRule(lambda report: rule.weight(report) * (least / norm_of(report.steps)), rule.reference)


def extrapolation(weights: Sequence[float], norms: Sequence[float]) -> float:
    """Return γ.

    Parameters
    ----------
    weights
        n_k of each client in the mean, in proportion to p_k.
    norms
        ‖a_k‖₁ of each.

    Returns
    -------
    float
        At least 1; 1 exactly where all norms are equal.
    """
    if len(set(norms)) == 1:
        return 1.0
    together = math.fsum(weights)
    longer = math.fsum(weight * norm for weight, norm in zip(weights, norms, strict=True))
    shorter = math.fsum(weight / norm for weight, norm in zip(weights, norms, strict=True))
    return (longer / together) * (shorter / together)


def extrapolate(start: Tensor, mean: Tensor, factor: float) -> Tensor:
    """Return start + factor · (mean - start), computed in float64; with factor 1 the mean, to the bit.

    Parameters
    ----------
    start, mean
        Parameters before the round and after it, of one shape, float32.
    factor
        γ.
    """
    if factor == 1:
        return mean
    return (mean.double() + (factor - 1) * (mean.double() - start.double())).float()
