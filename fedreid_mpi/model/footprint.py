"""What a network weighs: parameters, bytes of a message, memory of the rank that trains it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedreid_mpi import config
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model.flat_model import FlatModel
from fedreid_mpi.model.network import ReIDNetwork
from fedreid_mpi.records import Role
from fedreid_mpi.records.pixels import PixelScale

IDENTITIES = 1000
"""Rows of the classifier: those of a large dataset."""

COPIES_OF_SHARED = 4
"""Of the shared part a rank holds what the round began with, the model of its group, and sums of 64 bits."""

NOWHERE = torch.device("meta")
"""Where tensors have shapes and no memory."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a network weighs.

    Attributes
    ----------
    parameters
        Of the backbone.
    dimension
        Width of the backbone's feature.
    pixel_scale
        What the backbone expects of pixels.
    message
        Bytes of the model as it travels: backbone, embedding and BatchNorm statistics.
    rank
        Bytes that one rank needs to train it in float32: model, gradients, momentum, its copies of the shared
        part, and what the backward pass needs of one batch. The libraries' own workspaces come on top.
    """

    parameters: int
    dimension: int
    pixel_scale: PixelScale
    message: int
    rank: int


def measure(settings: config.Model, size: tuple[int, int], batch_size: int) -> Footprint:
    """Weigh a network by a forward pass in which nothing is calculated.

    Parameters
    ----------
    settings
        The ``[model]`` section.
    size
        Height and width of the images, in pixels.
    batch_size
        Images in a training batch.

    Raises
    ------
    ConfigurationError
        The backbone cannot be built for such images, or not be trained on them.
    """
    with NOWHERE, torch.random.fork_rng(devices=[]):
        network = ReIDNetwork(settings, IDENTITIES, size).train()
        model = FlatModel(network, NOWHERE)
        images = torch.empty(batch_size, 3, *size)
        try:
            kept = _kept_for_backward(network, images)
        except Exception as error:  # whatever a network does with maps that have become too small
            raise ConfigurationError(
                f"model.backbone: {settings.backbone} cannot be trained on images of "
                f"{size[0]}x{size[1]}: {error}"
            ) from error
    trained = sum(parameter.numel() for parameter in model.parameters(*Role))
    state = model.buffer.numel() + 2 * trained + COPIES_OF_SHARED * model.shared.numel()
    built = network.backbone
    return Footprint(
        parameters=sum(parameter.numel() for parameter in built.parameters()),
        dimension=network.dimension,
        pixel_scale=network.pixel_scale,
        message=4 * model.shared.numel(),
        rank=4 * (state + images.numel()) + kept,
    )


def _kept_for_backward(network: ReIDNetwork, images: Tensor) -> int:
    """Count the bytes that a training step keeps of its forward pass, each storage once."""
    own = {tensor.untyped_storage()._cdata for tensor in network.state_dict(keep_vars=True).values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(images)
    assert logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
