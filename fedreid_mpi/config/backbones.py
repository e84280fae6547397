"""The names that ``model.backbone`` may have; what they mean is known where networks are built."""

import re
from typing import Annotated

from pydantic import AfterValidator

BACKBONES = (
    *("small", "resnet18", "resnet34", "resnet50", "resnet50_ibn_a", "resnet50_ibn_b"),
    *("osnet_x1_0", "mobilenet_v2", "vit_small_ics", "vit_base_ics"),
)
"""Names of backbones, other than timm's."""


def _known(name: str) -> str:
    if name not in BACKBONES and not re.fullmatch(r"timm:\w[\w.]*", name):
        raise ValueError(f"{name!r} is unknown, expected {', '.join(BACKBONES)} or timm:NAME")
    return name


BackboneName = Annotated[str, AfterValidator(_known)]
