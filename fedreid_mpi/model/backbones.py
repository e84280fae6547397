"""Backbones: images in, one pooled vector an image out. Adding one is adding a line to `BACKBONES`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm and a shortcut (He et al., CVPR 2016).

    Where the shape changes, the shortcut averages before its 1×1 convolution (ResNet-D, He et al., CVPR
    2019): on a CPU, the gradient of a strided 1×1 convolution costs more than that of a 3×3 one.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(residual + self.shortcut(x))


class SmallResNet(nn.Module):
    """A residual network of 0.3 million parameters that a CPU core trains on 64×32 images in seconds.

    Each 2×2 square of pixels enters as one pixel of twelve channels: convolutions of three channels are slow.
    The last row or column of an odd size is left out.
    """

    dimension = 128

    def __init__(self, last_stride: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, 32, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            ResidualBlock(32, 32, 1), ResidualBlock(32, 64, 2), ResidualBlock(64, self.dimension, last_stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 128)."""
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        squares = F.pixel_unshuffle(x[:, :, :height, :width], 2)
        pooled: Tensor = self.blocks(torch.relu(self.bn(self.stem(squares)))).mean((2, 3))
        return pooled


def build_backbone(name: str, last_stride: int) -> tuple[nn.Module, int]:
    """Build a backbone with fresh random weights.

    Parameters
    ----------
    name
        One of `BACKBONES`.
    last_stride
        Stride of the last stage, 1 or 2.

    Returns
    -------
    tuple of Module and int
        The backbone, mapping (B, 3, H, W) to (B, dimension), and its dimension.
    """
    return BACKBONES[name](last_stride)


def _small(last_stride: int) -> tuple[nn.Module, int]:
    return SmallResNet(last_stride), SmallResNet.dimension


def _torchvision_resnet(name: str, last_stride: int) -> tuple[nn.Module, int]:
    # Imported here since it takes seconds, which every rank of a run with the small network would pay.
    from torchvision.models import resnet

    network = getattr(resnet, name)(weights=None)
    dimension = int(network.fc.in_features)
    network.fc = nn.Identity()
    if last_stride == 1:
        block = network.layer4[0]
        for layer in (block.conv1, block.conv2, block.downsample[0]):
            layer.stride = (1, 1)
    return network, dimension


BACKBONES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "small": _small,
    "resnet18": partial(_torchvision_resnet, "resnet18"),
    "resnet34": partial(_torchvision_resnet, "resnet34"),
    "resnet50": partial(_torchvision_resnet, "resnet50"),
}
"""Name in the configuration to what builds it, given the stride of the last stage."""
