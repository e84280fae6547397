"""SCAFFOLD: control variates take out of each client's gradients what sets them apart from all clients'.

Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
algorithm 1 with option II. Client k has a control c_k, the server c. In each step the client goes along g -
c_k + c. From its K steps at the rate η, from θ to θ_k, it takes its new control,

c_k⁺ = c_k - c + (θ - θ_k) / (K η),

which is the mean of its gradients g; the server moves c by the clients' mean change, times the share of all
clients that took part. The paper has plain SGD. With momentum, K is ‖a‖₁ of FedNova (`fednova.step_norm`): K
steps carry each gradient as far as ‖a‖₁ / K steps of plain SGD would, up to 1 / (1 - m) times. With K itself
controls would be too large by that factor, and the corrections would drive the model away. Divided by ‖a‖₁
the control is again a mean of the gradients, weighted by their factors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

CONTROLS = "controls"
"""Name of the control variates: in the memories of a client and of the server, and in the ledger."""


@torch.no_grad()
def controlled_gradient(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add c - c_k to the parameters' gradients, in place.

    Parameters
    ----------
    pairs
        Each trained parameter, and its c - c_k, of one shape. A parameter without a gradient is left alone.
    """
    for parameter, difference in pairs:
        if parameter.grad is not None:
            parameter.grad.add_(difference)


def next_control(control: Tensor, common: Tensor, start: Tensor, trained: Tensor, distance: float) -> Tensor:
    """Return a client's new control c_k⁺.

    Parameters
    ----------
    control, common
        c_k and c that the client trained with, of the parameters' shape, float32.
    start, trained
        θ and θ_k.
    distance
        η ‖a‖₁, greater than 0; without momentum K η.
    """
    return control - common + (start - trained) / distance


def next_common_control(common: Tensor, change: Tensor, fraction: float) -> Tensor:
    """Return the server's new control, computed in float64 and rounded to float32.

    Where c is the weighted mean of all clients' controls, those included that are 0 as they never trained, it
    stays that.

    Parameters
    ----------
    common
        c.
    change
        The weighted mean of c_k⁺ - c_k over the clients that trained.
    fraction
        Their part of the weights of all clients: with equal weights the paper's |S| / N.
    """
    return (common.double() + fraction * change.double()).float()
