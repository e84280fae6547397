"""What a network expects of pixels: the mean and the deviation that they are normalised by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Channels = tuple[float, float, float]
"""Values of red, green and blue."""


@dataclass(frozen=True, slots=True)
class PixelScale:
    """From pixels in [0, 1] to the input of a network: (pixel − mean) / deviation, channel by channel.

    It belongs to the backbone's weights: they know pixels as they were shown them.
    """

    mean: Channels
    deviation: Channels


IMAGENET = PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's mean and standard deviation a channel."""

HALF = PixelScale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""From −1 to 1, as many transformers expect."""

CLIP = PixelScale((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of the images that CLIP was trained on."""

Normalization = Literal["backbone", "imagenet", "half", "clip"]

SCALES: Mapping[Normalization, PixelScale] = {"imagenet": IMAGENET, "half": HALF, "clip": CLIP}
"""By the names in the configuration; ``"backbone"`` is the scale that a backbone of its name expects."""


def read_pixel_scale(about: Mapping[str, Any]) -> PixelScale:
    """Read what a stored model expects of pixels; before it was stored, all models had ImageNet's scale.

    Raises
    ------
    ValueError, TypeError
        There is something else than three numbers each, or a deviation is not positive.
    """
    mean = [float(value) for value in about.get("mean", IMAGENET.mean)]
    deviation = [float(value) for value in about.get("deviation", IMAGENET.deviation)]
    if not len(mean) == len(deviation) == 3 or not all(0 < value < math.inf for value in deviation):
        raise ValueError(f"expected three means and deviations, found {mean} and {deviation}")
    return PixelScale((mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2]))
