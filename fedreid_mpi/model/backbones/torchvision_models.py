"""Networks of torchvision, under its names of tensors."""

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
    # Imported here since it takes seconds, which every rank of a run with the small network would pay.
    from torchvision.models import resnet

    network = getattr(resnet, name)(weights=None)
    dimension = int(network.fc.in_features)
    network.fc = nn.Identity()
    if last_stride == 1:
        block = network.layer4[0]
        for layer in (block.conv1, block.conv2, block.downsample[0]):
            layer.stride = (1, 1)
    return Backbone(network, dimension)
