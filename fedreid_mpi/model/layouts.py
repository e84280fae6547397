"""Networks whose tensors are published under several names: from a file's names to those used here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to name a network's tensors.

    Attributes
    ----------
    words
        What it is called.
    mark
        Name of a tensor that only files of this layout have.
    names
        Pairs of a regular expression and its replacement; the first that matches a whole name renames it.
    reshaped
        Name of a tensor, as it is here, to what brings it into shape.
    blocks
        The text before the number of a block, if a file numbers blocks throughout and here each stage
        begins anew: ``<blocks><number>.`` becomes ``<blocks><stage>.<number>.`` before a tensor is renamed.
    last
        Regular expression of the layers at a block's end: a stage begins where their width changes.
    pads
        Whether its network pads images at the far side first, as TensorFlow does and torch's layers do not:
        tensors of networks that pad otherwise have the same names and shapes, and see other edges.
    """

    words: str
    mark: str
    names: tuple[tuple[str, str], ...]
    reshaped: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    blocks: str = ""
    last: str = ""
    pads: bool = False

    def rename(self, name: str, places: Mapping[int, str]) -> str:
        """Return the name that a tensor has here, from the place of each block in its stage."""
        if found := re.fullmatch(rf"{self.blocks}(\d+)\.(.*)", name):
            name = f"{self.blocks}{places.get(int(found[1]), found[1])}.{found[2]}"
        for pattern, replacement in self.names:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement)
        return name

    def convert(self, tensors: Tensors) -> dict[str, tuple[str, Tensor]]:
        """Return the tensors by the names that they have here, each with its name in the file."""
        places = self.places(tensors)
        renamed = {self.rename(name, places): (name, tensor) for name, tensor in tensors.items()}
        for name, reshape in self.reshaped.items():
            if name in renamed:
                renamed[name] = (renamed[name][0], reshape(renamed[name][1]))
        return renamed

    def unlike(self, network: nn.Module) -> str:
        """Describe what sets a network apart from the one whose tensors these are, though all may fit."""
        if self.pads and not any(type(layer).__name__ == "Conv2dSame" for layer in network.modules()):
            return "its network pads as TensorFlow does, this one does not (timm's tf_efficientnet_… do)"
        return ""

    def places(self, tensors: Tensors) -> dict[int, str]:
        """Return the place of each block, ``<stage>.<number>``; none where blocks are counted as here."""
        widths = {
            int(found[1]): len(tensor)
            for name, tensor in tensors.items()
            if self.blocks and (found := re.fullmatch(rf"{self.blocks}(\d+)\.{self.last}", name))
        }
        stages = [list(stage) for _, stage in groupby(sorted(widths), widths.__getitem__)]
        return {
            block: f"{stage}.{number}"
            for stage, blocks in enumerate(stages)
            for number, block in enumerate(blocks)
        }


LAYOUTS = (
    Layout(
        "a vision transformer as CLIP names its tensors",
        "transformer.resblocks.0.attn.in_proj_weight",
        (
            ("class_embedding", "cls_token"),
            ("positional_embedding", "pos_embed"),
            (r"conv1\.weight", "patch_embed.proj.weight"),
            (r"ln_pre\.(.*)", r"norm_pre.\1"),
            (r"ln_post\.(.*)", r"norm.\1"),
            (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.*)", r"blocks.\1.norm\2.\3"),
            (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
            (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
            (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
            (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        ),
        {
            "cls_token": lambda tensor: tensor.reshape(1, 1, -1),
            "pos_embed": lambda tensor: tensor.reshape(1, *tensor.shape[-2:]),
        },
    ),
    Layout(
        "a MobileNetV2 whose blocks are flat, as before torchvision had one",
        "features.1.conv.4.weight",
        (
            (r"features\.1\.conv\.([01])\.(.*)", r"features.1.conv.0.\1.\2"),
            (r"features\.1\.conv\.3\.(.*)", r"features.1.conv.1.\1"),
            (r"features\.1\.conv\.4\.(.*)", r"features.1.conv.2.\1"),
            (r"features\.(\d+)\.conv\.([01])\.(.*)", r"features.\1.conv.0.\2.\3"),
            (r"features\.(\d+)\.conv\.3\.(.*)", r"features.\1.conv.1.0.\2"),
            (r"features\.(\d+)\.conv\.4\.(.*)", r"features.\1.conv.1.1.\2"),
            (r"features\.(\d+)\.conv\.6\.(.*)", r"features.\1.conv.2.\2"),
            (r"features\.(\d+)\.conv\.7\.(.*)", r"features.\1.conv.3.\2"),
        ),
    ),
    Layout(
        "an EfficientNet as the package efficientnet_pytorch names its tensors",
        "_blocks.0._depthwise_conv.weight",
        (
            (r"_conv_(stem|head)\.(.*)", r"conv_\1.\2"),
            (r"_bn0\.(.*)", r"bn1.\1"),
            (r"_bn1\.(.*)", r"bn2.\1"),
            (r"_fc\.(.*)", r"classifier.\1"),
            (r"_blocks\.(.*)\._se_(reduce|expand)\.(.*)", r"blocks.\1.se.conv_\2.\3"),
            (r"_blocks\.(.*)\._depthwise_conv\.(.*)", r"blocks.\1.conv_dw.\2"),
            (r"_blocks\.0\.(\d+)\._project_conv\.(.*)", r"blocks.0.\1.conv_pw.\2"),  # nothing expands there
            (r"_blocks\.0\.(\d+)\._bn(.*)", r"blocks.0.\1.bn\2"),
            (r"_blocks\.(.*)\._expand_conv\.(.*)", r"blocks.\1.conv_pw.\2"),
            (r"_blocks\.(.*)\._project_conv\.(.*)", r"blocks.\1.conv_pwl.\2"),
            *((rf"_blocks\.(.*)\._bn{n}\.(.*)", rf"blocks.\1.bn{n + 1}.\2") for n in range(3)),
        ),
        blocks="_blocks.",
        last=r"(?:_project_conv|_bn2)\.weight",
        pads=True,
    ),
)
"""Layouts that differ from the names used here, which are those of torchvision, timm and the authors."""


def layout_of(tensors: Tensors) -> Layout | None:
    """Recognise the layout of a file's tensors; None: they have the names used here, as far as is known."""
    return next((layout for layout in LAYOUTS if layout.mark in tensors), None)
