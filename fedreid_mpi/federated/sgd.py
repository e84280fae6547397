"""Mini-batch SGD: the one loop for the clients' training and for the server's distillation."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedreid_mpi import config
from fedreid_mpi.device import torch_randomness
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import Heartbeat, no_heartbeat

Batch = tuple[Tensor, Tensor]
"""Images, shape (B, 3, H, W), float32, and what belongs to them: labels (B,), int64, or target features."""

LossOf = Callable[[Tensor, Tensor], Tensor]
"""From images and what belongs to them to a loss, a mean over the images."""

Correction = Callable[[], None]
"""Changes gradients in place, between the backward pass and the step."""


@dataclass(frozen=True, slots=True)
class Descent:
    """What came of a run of SGD.

    Attributes
    ----------
    loss
        Mean over the images seen, each batch's before its step; NaN where nothing was seen.
    images, steps
        How many images were seen, in how many steps.
    """

    loss: float
    images: int
    steps: int


def make_sgd(groups: Iterable[dict[str, Any]], settings: config.Optimizer) -> torch.optim.SGD:
    """Make an optimiser for groups of parameters with learning rates of their own; its momentum is zero."""
    return torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def descend(
    model: FlatModel,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    loss_of: LossOf,
    seed: int,
    corrections: Sequence[Correction] = (),
    heartbeat: Heartbeat = no_heartbeat,
) -> Descent:
    """Take a step of SGD for each batch, in place.

    Parameters
    ----------
    model
        Its network is in the mode that is wanted.
    optimizer
        Of the model's parameters.
    batches
        Images and what belongs to them.
    loss_of
        The objective.
    seed
        Of what the network draws, i.e. dropout.
    corrections
        Are applied to the gradients before each step.
    heartbeat
        Is called before each batch.
    """
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses: list[Tensor] = []
    seen: list[int] = []
    with torch_randomness(model.buffer.device, seed):
        for images, aim in batches:
            heartbeat()
            loss = loss_of(images, aim)
            _drop_gradients(trained)
            torch.autograd.backward(loss)
            for correct in corrections:
                correct()
            optimizer.step()
            losses.append(loss.detach())
            seen.append(len(images))
    _drop_gradients(trained)
    if not seen:
        return Descent(math.nan, 0, 0)
    read = torch.stack(losses).cpu().tolist()  # once, as each reading would wait for the device
    total = sum(loss * images for loss, images in zip(read, seen, strict=True))
    return Descent(total / sum(seen), sum(seen), len(seen))


def _drop_gradients(parameters: Iterable[Tensor]) -> None:
    """Do what `Optimizer.zero_grad` does, without its tracing, which small clients would notice."""
    for parameter in parameters:
        parameter.grad = None
