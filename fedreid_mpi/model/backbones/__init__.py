"""Backbones: images in, one vector per image out. To add one, add a line to `BACKBONES`."""

from collections.abc import Callable
from functools import partial

from fedreid_mpi import config
from fedreid_mpi.model.backbones.backbone import Backbone
from fedreid_mpi.model.backbones.osnet import build_osnet
from fedreid_mpi.model.backbones.small import build_small
from fedreid_mpi.model.backbones.timm_models import PREFIX, build_timm, import_timm
from fedreid_mpi.model.backbones.torchvision_models import (
    build_mobilenet_v2,
    build_resnet,
    build_resnet50_ibn,
)

__all__ = ["BACKBONES", "Backbone", "build_backbone"]


def _build_ics_vit(name: str, last_stride: int, size: tuple[int, int]) -> Backbone:
    import_timm(name)
    from fedreid_mpi.model.backbones.ics_vit import build_ics_vit

    return build_ics_vit(name, last_stride, size)


BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "small": build_small,
    "resnet18": partial(build_resnet, "resnet18"),
    "resnet34": partial(build_resnet, "resnet34"),
    "resnet50": partial(build_resnet, "resnet50"),
    "resnet50_ibn_a": partial(build_resnet50_ibn, "a"),
    "resnet50_ibn_b": partial(build_resnet50_ibn, "b"),
    "osnet_x1_0": build_osnet,
    "mobilenet_v2": build_mobilenet_v2,
}
"""Name in the configuration to the function that builds it, given the stride of the last stage."""

SIZED: dict[str, Callable[[int, tuple[int, int]], Backbone]] = {
    "vit_small_ics": partial(_build_ics_vit, "vit_small_ics"),
    "vit_base_ics": partial(_build_ics_vit, "vit_base_ics"),
}
"""The same for backbones of one image size, whose functions are given height and width as well."""


def build_backbone(settings: config.Model, size: tuple[int, int]) -> Backbone:
    """Build a backbone with fresh random weights.

    Parameters
    ----------
    settings
        The experiment's ``[model]`` section.
    size
        Height and width of its images, in pixels.

    Raises
    ------
    ConfigurationError
        The backbone takes no images of that size or no such last stride, or needs a package that is missing.
    """
    name, last_stride = settings.backbone, settings.last_stride
    if name in BACKBONES:
        return BACKBONES[name](last_stride)
    if name in SIZED:
        return SIZED[name](last_stride, size)
    assert name.startswith(PREFIX)
    return build_timm(name, last_stride, size)
