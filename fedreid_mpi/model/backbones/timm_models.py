"""Networks of timm, ``timm:NAME``: any that gives one feature for an image of the archives' size.

timm is an extra of this package, and imported when one of its networks is built.
"""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model.backbones.backbone import Backbone, refuse_last_stride
from fedreid_mpi.records.pixels import PixelScale

PREFIX = "timm:"


def build_timm(name: str, last_stride: int, size: tuple[int, int]) -> Backbone:
    """Build a network of timm for images of one size.

    Parameters
    ----------
    name
        ``timm:`` and timm's name, e.g. ``timm:vit_small_patch16_224.augreg_in1k``; the tag decides what
        pixels are normalised by.
    last_stride
        1 takes the stride out of the last stage of a convolutional network.
    size
        Height and width of the images; position embeddings are made for it.

    Raises
    ------
    ConfigurationError
        timm is not there or has no such network, or the network cannot take such images, gives no feature, or
        has no last stage with a stride.
    """
    module = create(name, size)
    try:
        feature = _look(module, size)
    except Exception as error:  # whatever a network does with images that it was not made for
        raise ConfigurationError(
            f"model.backbone: {name} takes no images of {size[0]}x{size[1]}: {_first_line(error)}"
        ) from error
    if not isinstance(feature, Tensor) or feature.dim() != 2:
        raise ConfigurationError(
            f"model.backbone: {name} gives no feature vector, expected a network that does"
        )
    if last_stride == 1:
        take_last_stride_out(module, name, size)
    expected: Any = module.pretrained_cfg
    mean, deviation = ((float(r), float(g), float(b)) for r, g, b in (expected["mean"], expected["std"]))
    return Backbone(module, feature.shape[1], PixelScale(mean, deviation))


def create(name: str, size: tuple[int, int], **options: object) -> nn.Module:
    """Create a network of timm without its classifier, its position embeddings for images of one size.

    Raises
    ------
    ConfigurationError
        timm is not there, has no such network, or cannot make it for this size.
    """
    timm = import_timm(name)
    known = name.removeprefix(PREFIX)
    try:
        try:
            module: nn.Module = timm.create_model(known, num_classes=0, img_size=size, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            module = timm.create_model(known, num_classes=0, **options)
        return module
    except Exception as error:
        if known.partition(".")[0] in timm.list_models():
            found = f"model.backbone: timm cannot make {known} for images of {size[0]}x{size[1]}"
            raise ConfigurationError(f"{found}: {_first_line(error)}") from error
        near = get_close_matches(known, timm.list_models(), 1)
        raise ConfigurationError(
            f"model.backbone: timm knows no {known}{f', perhaps {near[0]}' if near else ''}"
        ) from error


def import_timm(name: str) -> Any:  # noqa: ANN401 (a module without types)
    """Import timm.

    Raises
    ------
    ConfigurationError
        It is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"model.backbone: {name} needs timm: pip install 'fedreid_mpi[timm]' ({error})"
        ) from error
    return timm


def take_last_stride_out(module: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Set the stride of a network's last stage to 1, in place, so that its map is twice as high and wide.

    Raises
    ------
    ConfigurationError
        There is no such stage, as in transformers, or the network does not work without the stride.
    """
    levels: Any = getattr(module, "feature_info", ())
    levels = [level for level in levels if isinstance(level, dict)]
    if len(levels) < 2 or levels[-1]["reduction"] != 2 * levels[-2]["reduction"]:
        refuse_last_stride(name, 1)
    names = [each for each, _ in module.named_modules()]
    before = levels[-2]["module"]
    last = max(n for n, each in enumerate(names) if each == before or each.startswith(f"{before}."))
    wide = _map_size(module, size)
    for each in names[last + 1 :]:
        layer = module.get_submodule(each)
        if isinstance(layer, nn.AvgPool2d):  # the shortcut of a ResNet-D, which has nothing to average then
            module.set_submodule(each, nn.Identity())
        elif getattr(layer, "stride", None) in (2, (2, 2)):
            layer.stride = (1, 1)  # type: ignore[assignment]
    if not wide or _map_size(module, size) != tuple(2 * side for side in wide):
        refuse_last_stride(name, 1)


@torch.no_grad()
def _map_size(module: nn.Module, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the height and width of a network's last map; none where it has no such map."""
    features: Any = module.eval()
    try:
        maps = features.forward_features(_blank(module, size))
    except Exception:  # noqa: BLE001 (whatever a network does without a stride that it needs)
        return ()
    module.train()
    return tuple(maps.shape[2:]) if isinstance(maps, Tensor) else ()


@torch.no_grad()
def _look(module: nn.Module, size: tuple[int, int]) -> object:
    """Return what a network gives for one black image, in evaluation mode, in which nothing is drawn."""
    feature: object = module.eval()(_blank(module, size))
    module.train()
    return feature


def _blank(module: nn.Module, size: tuple[int, int]) -> Tensor:
    return torch.zeros(1, 3, *size, device=next(module.parameters()).device)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0]
