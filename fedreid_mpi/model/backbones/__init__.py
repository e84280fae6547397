"""Backbones: images in, one pooled vector an image out. Adding one is adding a line to `BACKBONES`."""

from collections.abc import Callable
from functools import partial

from fedreid_mpi import config
from fedreid_mpi.model.backbones.backbone import Backbone
from fedreid_mpi.model.backbones.small import build_small
from fedreid_mpi.model.backbones.torchvision_models import build_resnet

__all__ = ["BACKBONES", "Backbone", "build_backbone"]

BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "small": build_small,
    "resnet18": partial(build_resnet, "resnet18"),
    "resnet34": partial(build_resnet, "resnet34"),
    "resnet50": partial(build_resnet, "resnet50"),
}
"""Name in the configuration to what builds it, given the stride of the last stage."""


def build_backbone(settings: config.Model, size: tuple[int, int]) -> Backbone:
    """Build a backbone with fresh random weights.

    Parameters
    ----------
    settings
        The experiment's ``[model]`` section.
    size
        Height and width of its images, in pixels.
    """
    return BACKBONES[settings.backbone](settings.last_stride)
