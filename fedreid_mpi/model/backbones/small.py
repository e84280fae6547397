"""A small residual network, for experiments on CPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_mpi.model.backbones.backbone import Backbone


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


def build_small(last_stride: int) -> Backbone:
    """Build the small network."""
    return Backbone(SmallResNet(last_stride), SmallResNet.dimension)
