"""Which backbone a file of weights is for."""

import torch

from fedreid_mpi import config
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model.backbones import build_backbone
from fedreid_mpi.model.weights import Account, Weights, account_for

SIZES_OF_TRANSFORMERS = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
"""Width of a vision transformer to what timm calls it."""

CONVOLUTIONAL = (
    *("resnet18", "resnet34", "resnet50", "resnet50_ibn_a", "resnet50_ibn_b", "osnet_x1_0", "mobilenet_v2"),
    *("timm:resnet101", "timm:resnet152", "small"),
)

EFFICIENTNETS = (
    *(f"timm:tf_efficientnet_lite{number}" for number in range(5)),
    *(f"timm:tf_efficientnet_b{number}" for number in range(9)),
)
"""Those that pad as the files of efficientnet_pytorch need it."""


def try_on(weights: Weights, name: str, size: tuple[int, int]) -> Account:
    """Describe what becomes of a file's tensors in a backbone; nothing is calculated.

    Raises
    ------
    ConfigurationError
        There is no such backbone.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        backbone = build_backbone(config.model_settings(backbone=name), size).module
    return account_for(weights, backbone)[0]


def recognise(weights: Weights, size: tuple[int, int]) -> tuple[str, Account] | None:
    """Find the backbone that a file fits, or that it comes nearest to.

    Parameters
    ----------
    weights
        The file's tensors.
    size
        Height and width of the images that it is wanted for.

    Returns
    -------
    tuple of str and Account, or None
        Name of the backbone, and what becomes of the tensors; None where the file has no tensor in common
        with any that is tried.
    """
    best: tuple[int, str, Account] | None = None
    for name in _candidates(weights):
        try:
            account = try_on(weights, name, size)
        except ConfigurationError:  # timm is not there
            continue
        wrong = len(account.missing) + len(account.unexpected) + len(account.misshapen)
        if account.loaded and (best is None or wrong < best[0]):
            best = (wrong, name, account)
        if not wrong:
            break
    return best and best[1:]


def _candidates(weights: Weights) -> tuple[str, ...]:
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    clip = next((shape for name, shape in shapes.items() if name.endswith("class_embedding")), None)
    if clip is not None:
        filters = next((shape for name, shape in shapes.items() if name.endswith("conv1.weight")), (0, 0, 0))
        size = SIZES_OF_TRANSFORMERS.get(clip[0], "base")
        vit = f"timm:vit_{size}_patch{filters[2]}_clip"
        return (f"{vit}_quickgelu_224.openai", f"{vit}_224")
    for name, shape in shapes.items():
        if name.endswith("patch_embed.proj.weight") and len(shape) == 4:
            size = SIZES_OF_TRANSFORMERS.get(shape[0], "base")
            return (f"timm:vit_{size}_patch{shape[2]}_224", f"vit_{size}_ics")
    return EFFICIENTNETS if any(name.endswith("_conv_stem.weight") for name in shapes) else CONVOLUTIONAL
