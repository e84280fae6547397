"""ResNet-50-IBN-a and -b: instance and batch normalisation, for domains unlike those trained on.

Pan, Luo, Shi and Tang, "Two at Once", ECCV 2018, section 3.2. Tensors are named as in the authors' public
files.
"""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from fedreid_mpi.model.backbones.backbone import Backbone


class IBN(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.IN = nn.InstanceNorm2d(self.split, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return torch.cat([self.IN(x[:, : self.split]), self.BN(x[:, self.split :])], 1)


class NormalisedBottleneck(Bottleneck):  # type: ignore[misc]
    """A bottleneck whose sum of residual and shortcut is normalised by instance: the block of IBN-b."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__(inputs, planes)
        self.IN = nn.InstanceNorm2d(inputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to the same shape."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        normalised: Tensor = self.relu(self.IN(self.bn3(self.conv3(inner)) + x))
        return normalised


def add_ibn_a(network: ResNet) -> None:
    """Put IBN after the first convolution of each block, in all stages but the last."""
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            block.bn1 = IBN(block.bn1.num_features)


def add_ibn_b(network: ResNet) -> None:
    """Normalise by instance after the stem and at the end of the first two stages."""
    network.bn1 = nn.InstanceNorm2d(64, affine=True)
    for stage, planes in ((network.layer1, 64), (network.layer2, 128)):
        stage[-1] = NormalisedBottleneck(4 * planes, planes)
        for module in stage[-1].modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_ibn(kind: str, resnet50: Backbone) -> Backbone:
    """Make ResNet-50-IBN-a or -b of a ResNet-50, in place."""
    {"a": add_ibn_a, "b": add_ibn_b}[kind](resnet50.module)
    return resnet50
