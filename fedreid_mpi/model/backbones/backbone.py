"""What a builder of a backbone returns."""

from dataclasses import dataclass

from torch import nn

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records.pixels import IMAGENET, PixelScale


@dataclass(frozen=True, slots=True)
class Backbone:
    """A feature extractor.

    Attributes
    ----------
    module
        Maps normalised images (B, 3, H, W) to one vector per image, (B, dimension).
    dimension
        Width of that vector.
    pixel_scale
        Mean and deviation by which its pixels are normalised.
    """

    module: nn.Module
    dimension: int
    pixel_scale: PixelScale = IMAGENET


def refuse_last_stride(name: str, last_stride: int) -> None:
    """Refuse a last stride of 1, for a backbone whose last stage has no stride.

    Raises
    ------
    ConfigurationError
        If the last stride is 1.
    """
    if last_stride == 1:
        raise ConfigurationError(
            f"model.last_stride is 1, but {name} has no last stage with a stride, expected 2"
        )
