"""FedProx: a client is held near the model that the round began with.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, equation 2: the local
loss gets the term μ/2 · ‖θ - θᵗ‖², over the parameters that are shared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def proximal_gradient(pairs: Sequence[tuple[Tensor, Tensor]], strength: float) -> None:
    """Add the gradient of the proximal term, μ(θ - θᵗ), to the parameters' gradients, in place.

    Parameters
    ----------
    pairs
        Each trained parameter θ and its value θᵗ at the beginning of the round, of one shape. A parameter
        without a gradient is left alone.
    strength
        μ, greater than 0.
    """
    for parameter, start in pairs:
        if parameter.grad is not None:
            parameter.grad.add_(parameter - start, alpha=strength)
