"""What is known of a backbone that has been built."""

from dataclasses import dataclass

from torch import nn

from fedreid_mpi.pixels import IMAGENET, PixelScale


@dataclass(frozen=True, slots=True)
class Backbone:
    """A feature extractor.

    Attributes
    ----------
    module
        Maps normalised images (B, 3, H, W) to one vector an image, (B, dimension).
    dimension
        Width of that vector.
    pixel_scale
        What its pre-trained weights expect of pixels.
    """

    module: nn.Module
    dimension: int
    pixel_scale: PixelScale = IMAGENET
