"""Vision transformers with a convolutional stem, as they are pre-trained on LUPerson.

Luo, Wang, Xu et al., "Self-Supervised Pre-Training for Transformer-Based Person Re-Identification", 2021,
section 3.3 (ICS: IBN in the stem). Tensors are named as in the authors' public files.
"""

from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor, nn

from fedreid_mpi.model.backbones.backbone import Backbone, refuse_last_stride
from fedreid_mpi.model.backbones.ibn import IBN
from fedreid_mpi.model.backbones.timm_models import PREFIX, create
from fedreid_mpi.records.pixels import HALF

STEM = 64
"""Channels of the stem."""


class StemEmbed(PatchEmbed):  # type: ignore[misc]
    """Three convolutions, the first with stride 2, before patches of half the size are embedded."""

    def __init__(
        self, img_size: tuple[int, int], patch_size: int, in_chans: int, embed_dim: int, **options: bool
    ) -> None:
        half = (img_size[0] // 2, img_size[1] // 2)
        super().__init__(half, patch_size // 2, STEM, embed_dim, **options)
        self.conv = nn.Sequential(
            nn.Conv2d(in_chans, STEM, 7, 2, 3, bias=False),
            IBN(STEM),
            nn.ReLU(),
            nn.Conv2d(STEM, STEM, 3, 1, 1, bias=False),
            IBN(STEM),
            nn.ReLU(),
            nn.Conv2d(STEM, STEM, 3, 1, 1, bias=False),
            nn.BatchNorm2d(STEM),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the embeddings of patches, (B, patches, width)."""
        embeddings: Tensor = super().forward(self.conv(x))
        return embeddings


def build_ics_vit(name: str, last_stride: int, size: tuple[int, int]) -> Backbone:
    """Build ``vit_small_ics`` or ``vit_base_ics`` for images of one size."""
    refuse_last_stride(name, last_stride)
    module = create(f"{PREFIX}{name.replace('_ics', '_patch16_224')}", size, embed_layer=StemEmbed)
    width: Any = module.num_features
    return Backbone(module, int(width), HALF)
