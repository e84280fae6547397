"""Networks of torchvision, under its names of tensors, and ResNet-50-IBN, which is made of them.

torchvision is imported when one is built: it takes seconds, which every rank of a run with the small network
would pay.
"""

from torch import nn

from fedreid_mpi.model.backbones.backbone import Backbone


def build_resnet(name: str, last_stride: int) -> Backbone:
    """Build a residual network (He et al., CVPR 2016).

    Parameters
    ----------
    name
        As in torchvision, e.g. ``resnet50``.
    last_stride
        Stride of the last stage, 1 or 2.
    """
    from torchvision.models import resnet

    network = getattr(resnet, name)(weights=None)
    dimension = int(network.fc.in_features)
    network.fc = nn.Identity()
    if last_stride == 1:
        block = network.layer4[0]
        for layer in (block.conv1, block.conv2, block.downsample[0]):
            layer.stride = (1, 1)
    return Backbone(network, dimension)


def build_resnet50_ibn(kind: str, last_stride: int) -> Backbone:
    """Build ResNet-50-IBN of kind ``a`` or ``b``; the last stage is that of ResNet-50."""
    from fedreid_mpi.model.backbones.ibn import build_ibn

    return build_ibn(kind, build_resnet("resnet50", last_stride))


def build_mobilenet_v2(last_stride: int) -> Backbone:
    """Build MobileNetV2 (Sandler et al., CVPR 2018)."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.classifier = nn.Identity()
    if last_stride == 1:
        network.features[14].conv[1][0].stride = (1, 1)
    return Backbone(network, int(network.last_channel))
