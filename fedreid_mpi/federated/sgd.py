"""Mini-batch SGD: the one loop for the clients' training and for the server's distillation."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

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


class Sgd:
    """SGD with momentum, for groups of parameters with learning rates of their own.

    The step is torch's own, fused. What `torch.optim.SGD` does around it takes as long as the step
    itself where networks and clients are small.

    Parameters
    ----------
    groups
        Parameters and their learning rate.
    settings
        The experiment's ``[optimizer]`` section.
    momentum
        What `momentum` of an earlier one returned, on any device; None: it starts from zero.

    Attributes
    ----------
    groups
        As given.
    momenta
        Of each parameter that has moved, in the order of its elements in memory; None without momentum.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[nn.Parameter], float]],
        settings: config.Optimizer,
        momentum: Tensor | None = None,
    ) -> None:
        self.groups, self._settings = groups, settings
        self.momenta: dict[nn.Parameter, Tensor | None] = {}
        if momentum is not None:
            every = self._parameters()
            parts = torch.split(momentum, [each.numel() for each in every])
            for parameter, values in zip(every, parts, strict=True):
                held = torch.empty_like(parameter).copy_(values.view(parameter.shape))
                self.momenta[parameter] = _as_it_lies(held)

    def momentum(self) -> Tensor | None:
        """Return the momenta of all parameters: shape (elements,), float32; None where there are none yet.

        They follow one another, each in the order of its indices, whatever its layout in memory.
        """
        if not any(momentum is not None for momentum in self.momenta.values()):
            return None
        parts = []
        for parameter in self._parameters():
            values = self.momenta.get(parameter)
            held = torch.zeros_like(parameter) if values is None else values
            parts.append(held.as_strided(parameter.shape, parameter.stride()).flatten())
        return torch.cat(parts)

    @torch.no_grad()
    def step(self) -> None:
        """Step along the gradients; a parameter that has none stays."""
        settings = self._settings
        for parameters, rate in self.groups:
            moved = [parameter for parameter in parameters if parameter.grad is not None]
            momenta = [self.momenta.get(parameter) for parameter in moved]
            sgd(
                [_as_it_lies(parameter) for parameter in moved],
                [_as_it_lies(parameter.grad) for parameter in moved if parameter.grad is not None],
                momenta,
                fused=True,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=settings.nesterov,
                maximize=False,
            )
            self.momenta.update(zip(moved, momenta, strict=True))

    def drop_gradients(self) -> None:
        """Make the next backward pass begin anew."""
        for parameter in self._parameters():
            parameter.grad = None

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameters, _ in self.groups for parameter in parameters]


def _as_it_lies(tensor: Tensor) -> Tensor:
    """View a tensor's elements in their order in memory.

    Of a gradient in any other order torch's fused step on a CPU makes a copy first, which it does not read.
    """
    return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))


def descend(
    model: FlatModel,
    optimizer: Sgd,
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
    losses: list[Tensor] = []
    seen: list[int] = []
    with torch_randomness(model.buffer.device, seed):
        for images, aim in batches:
            heartbeat()
            loss = loss_of(images, aim)
            optimizer.drop_gradients()
            torch.autograd.backward(loss)
            for correct in corrections:
                correct()
            optimizer.step()
            losses.append(loss.detach())
            seen.append(len(images))
    optimizer.drop_gradients()
    if not seen:
        return Descent(math.nan, 0, 0)
    read = torch.stack(losses).cpu().tolist()  # once, as each reading would wait for the device
    total = sum(loss * images for loss, images in zip(read, seen, strict=True))
    return Descent(total / sum(seen), sum(seen), len(seen))
