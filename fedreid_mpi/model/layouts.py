"""Networks whose tensors are published under several names: from a file's names to those used here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

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
    """

    words: str
    mark: str
    names: tuple[tuple[str, str], ...]
    reshaped: Mapping[str, Callable[[Tensor], Tensor]]

    def rename(self, name: str) -> str:
        """Return the name that a tensor has here."""
        for pattern, replacement in self.names:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement)
        return name

    def convert(self, tensors: Tensors) -> dict[str, tuple[str, Tensor]]:
        """Return the tensors by the names that they have here, each with its name in the file."""
        renamed = {self.rename(name): (name, tensor) for name, tensor in tensors.items()}
        for name, reshape in self.reshaped.items():
            if name in renamed:
                renamed[name] = (renamed[name][0], reshape(renamed[name][1]))
        return renamed


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
        {},
    ),
)
"""Layouts that differ from the names used here, which are those of torchvision, timm and the authors."""


def layout_of(tensors: Tensors) -> Layout | None:
    """Recognise the layout of a file's tensors; None: they have the names used here, as far as is known."""
    return next((layout for layout in LAYOUTS if layout.mark in tensors), None)
