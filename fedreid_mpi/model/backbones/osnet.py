"""OSNet x1.0: features of several scales, weighed for each image, in 2.2 million parameters.

Zhou, Yang, Cavallaro and Xiang, "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019,
section 3 and table 1. Tensors are named as in the authors' public files.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from fedreid_mpi.model.backbones.backbone import Backbone, refuse_last_stride

WIDTHS = (64, 256, 384, 512)
"""Channels of the stem and of the three stages."""

SCALES = ("conv2a", "conv2b", "conv2c", "conv2d")
"""The streams of a block: one, two, three and four convolutions of 3×3, which see 3 to 9 pixels."""

GATE_REDUCTION = 16


class ConvNorm(nn.Module):
    """A convolution with batch normalisation, and a ReLU unless it is linear."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        normalised: Tensor = self.bn(self.conv(x))
        return normalised if self.linear else torch.relu(normalised)


class Lite3x3(nn.Module):
    """A 3×3 convolution in two factors, pointwise then depthwise (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return torch.relu(self.bn(self.conv2(self.conv1(x))))


class Gate(nn.Module):
    """The aggregation gate: weighs the channels of a stream by what is in the image (equation 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // GATE_REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // GATE_REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class OmniScaleBlock(nn.Module):
    """Four streams of growing receptive field, gated by one shared gate and summed (figure 4)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = ConvNorm(inputs, inner, 1)
        for depth, name in enumerate(SCALES, 1):
            layers = [Lite3x3(inner) for _ in range(depth)]
            self.add_module(name, layers[0] if depth == 1 else nn.Sequential(*layers))
        self.gate = Gate(inner)
        self.conv3 = ConvNorm(inner, outputs, 1, linear=True)
        self.downsample = ConvNorm(inputs, outputs, 1, linear=True) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        reduced = self.conv1(x)
        first, *others = (self.gate(self.get_submodule(name)(reduced)) for name in SCALES)
        for stream in others:
            first = first + stream
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv3(first) + shortcut)


class OSNet(nn.Module):
    """OSNet x1.0 up to its feature of 512."""

    dimension = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, WIDTHS[0], 7, stride=2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(OmniScaleBlock(inputs, outputs), OmniScaleBlock(outputs, outputs))
            for inputs, outputs in pairwise(WIDTHS)
        )
        for stage, width in ((self.conv2, WIDTHS[1]), (self.conv3, WIDTHS[2])):
            stage.append(nn.Sequential(ConvNorm(width, width, 1), nn.AvgPool2d(2, 2)))
        self.conv5 = ConvNorm(WIDTHS[3], WIDTHS[3], 1)
        last = nn.Linear(WIDTHS[3], self.dimension)
        self.fc = nn.Sequential(last, nn.BatchNorm1d(self.dimension), nn.ReLU())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(last.weight, 0.0, 0.01)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 512)."""
        x = self.conv3(self.conv2(self.maxpool(self.conv1(x))))
        feature: Tensor = self.fc(self.conv5(self.conv4(x)).mean((2, 3)))
        return feature


def build_osnet(last_stride: int) -> Backbone:
    """Build OSNet x1.0, whose last stage has no stride that could be changed."""
    refuse_last_stride("osnet_x1_0", last_stride)
    return Backbone(OSNet(), OSNet.dimension)
