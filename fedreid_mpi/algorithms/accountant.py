"""What differential privacy a run has spent: ε at a given δ, after so many rounds."""

import math
from functools import lru_cache

import dp_accounting
from dp_accounting.pld import PLDAccountant

FINEST, SHARE = 1e-4, 3e-5
"""Width of the grid of losses, at least, and as a share of how far one round's losses reach."""


@lru_cache(maxsize=1024)
def epsilon_after(rounds: int, sampling: float, noise_multiplier: float, delta: float) -> float:
    """Return ε of the sampled Gaussian mechanism, composed over rounds.

    Two federations are neighbours if one has a client more than the other. Each round takes each client with
    the given probability, independently, and adds noise to the sum of clipped updates. The bound is tight up
    to the accountant's grid: it composes privacy loss distributions (Koskela, Jälkö and Honkela, AISTATS
    2020; Doroshenko et al., PoPETs 2022).

    Parameters
    ----------
    rounds
        Number of rounds, 0 or more.
    sampling
        q, in (0, 1].
    noise_multiplier
        z: the noise's standard deviation over the norm that one client's update is clipped to.
    delta
        δ, in (0, 1).

    Returns
    -------
    float
        ε; infinity without noise.
    """
    if not rounds:
        return 0.0
    if not noise_multiplier:
        return math.inf
    # With little noise the losses reach far, and one width for all grids would take minutes. Any grid gives
    # an upper bound; this one's is within some millionths of the finest one's.
    reach = 0.5 / noise_multiplier**2 + 6 / noise_multiplier
    accountant = PLDAccountant(value_discretization_interval=max(FINEST, reach * SHARE))
    noise = dp_accounting.GaussianDpEvent(noise_multiplier)
    event = noise if sampling == 1 else dp_accounting.PoissonSampledDpEvent(sampling, noise)
    return float(accountant.compose(event, rounds).get_epsilon(delta))
