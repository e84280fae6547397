"""Pre-trained weights of others: what a file is, and what becomes of each of its tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_mpi.errors import DataError
from fedreid_mpi.model.foreign import STATE_DICT, what_it_is
from fedreid_mpi.model.layouts import Layout, layout_of
from fedreid_mpi.model.network import ReIDNetwork
from fedreid_mpi.storage.atomic import require_regular
from fedreid_mpi.wording import counted

WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "teacher",
    "state_dict",
    "model",
    "student",
    "net",
    "network",
    "module",
)
"""Entries that hold the tensors, the preferred first: averages of a training before its last state."""

PREFIXES = (
    *("module.", "_orig_mod.", "model.", "backbone.", "base.", "encoder_q."),
    *("visual.", "image_encoder.", "teacher.", "student."),
)
"""Prefixes of the names of a backbone's tensors, one or several of them."""

LEFT_OUT = {
    **dict.fromkeys(
        ("fc", "classifier", "heads", "head", "head_dist", "bottleneck", "fc1", "fc2", "proj"), "head"
    ),
    **dict.fromkeys(("encoder_k", "queue", "queue_ptr"), "other half of a contrastive training"),
    "sie_embed": "cameras of another dataset",
    "mask_token": "only for pre-training",
}
"""First part of a name that is no part of a backbone, to what it is."""

COUNTER = "num_batches_tracked"
POSITIONS = "pos_embed"


@dataclass(frozen=True, slots=True)
class Account:
    """What becomes of each tensor of a file that is loaded into a backbone.

    Attributes
    ----------
    way
        From the file to the tensors: entries that hold them, then the prefix of their names.
    layout
        Words for the way its tensors are named, where it is not the one used here.
    loaded
        Name here to name in the file.
    left_out
        Name in the file to why it is left out on purpose.
    beside
        Entries of the file that are passed over.
    resized
        Position embeddings that are interpolated: from how many patches to how many.
    missing, unexpected, misshapen
        What does not fit: names here, names in the file, and names here with both shapes.
    unlike
        What the backbone does otherwise than the one whose tensors these are; empty: nothing that is known.
    """

    way: tuple[str, ...]
    layout: str
    loaded: Mapping[str, str]
    left_out: Mapping[str, str]
    beside: tuple[str, ...]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    unlike: str

    @property
    def faults(self) -> tuple[str, ...]:
        """What does not fit, in words, the first of each kind; empty where the file can be loaded."""
        kinds = (
            (self.missing, "missing"),
            (self.unexpected, "unexpected"),
            (self.misshapen, "of another shape or kind"),
        )
        counts = (
            f"{counted(len(names), 'tensor is', 'tensors are')} {words} ({names[0]}"
            f"{', …' if len(names) > 1 else ''})"
            for names, words in kinds
            if names
        )
        return (*counts, *([self.unlike] if self.unlike else []))

    @property
    def summary(self) -> str:
        """What is done, in one line."""
        parts = [f"{counted(len(self.loaded), 'tensor')} loaded"]
        if self.way:
            parts[0] += f" from {' '.join(self.way)}"
        if self.layout:
            parts.append(self.layout)
        parts += [f"{positions} interpolated" for positions in self.resized]
        if self.left_out:
            first = dict.fromkeys(name.partition(".")[0] for name in self.left_out)
            parts.append(
                f"{len(self.left_out)} left out ({', '.join(list(first)[:4])}{', …' * (len(first) > 4)})"
            )
        if self.beside:
            shown = ", ".join(self.beside[:4])
            parts.append(f"ignored: {shown}{', …' * (len(self.beside) > 4)}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a file.

    Attributes
    ----------
    path
        The file.
    tensors
        By their names in the file, below the entries that hold them.
    entries
        Names of those entries, the outermost first.
    beside
        Names of all other entries.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    entries: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def read_weights(path: Path) -> Weights:
    """Read the tensors of a file; nothing else in it is ever unpickled.

    Raises
    ------
    DataError
        The file is missing or unreadable, or holds objects that are no tensors, numbers, texts or collections
        of them, or no tensors with names.
    """
    try:
        require_regular(path)
        if path.suffix.lower() == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: not a readable file of weights: {reason}") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        found = f"{path}: not a readable file of weights: it is {what_it_is(path, error)}"
        raise DataError(f"{found}; {STATE_DICT}") from error
    return _unwrap(path, content)


def _unwrap(path: Path, content: object) -> Weights:
    """Go down to the mapping of names to tensors."""
    entries: tuple[str, ...] = ()
    beside: list[str] = []
    while isinstance(content, Mapping):
        names = [str(name) for name in content]
        tensors = {str(name): leaf for name, leaf in content.items() if isinstance(leaf, Tensor)}
        inside = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inside is None and tensors:
            beside += [name for name in names if name not in tensors]
            return Weights(path, tensors, entries, tuple(beside))
        if inside is None:
            break
        beside += [name for name in names if name != inside]
        entries, content = (*entries, inside), content[inside]
    where = f" under {'.'.join(entries)}" if entries else ""
    found = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        found = f"entries {', '.join(map(str, list(content)[:3]))}" if content else "nothing"
    raise DataError(
        f"{path}: expected a mapping of names to tensors (a state_dict), or one under "
        f"{', '.join(WRAPPERS)}, found {found}{where}"
    )


def account_for(weights: Weights, backbone: nn.Module) -> tuple[Account, dict[str, Tensor]]:
    """Describe what becomes of each tensor of a file that is to be loaded into a backbone.

    Parameters
    ----------
    weights
        The file's tensors.
    backbone
        On any device; stays as it is.

    Returns
    -------
    tuple of Account and dict
        And the tensors that fit, by their names in the backbone, float32, counters as they are.
    """
    own = backbone.state_dict()
    prefix = _best_prefix(weights.tensors, own)
    named, layout = _below(weights.tensors, prefix)
    outside = [name for name in weights.tensors if not name.startswith(prefix)]
    left_out = {name: LEFT_OUT.get(_first_part(name, prefix), "not the backbone") for name in outside}
    loaded, unexpected, misshapen, resized, fitting = {}, [], [], [], {}
    for name, (origin, tensor) in named.items():
        if name not in own:
            if name.endswith(COUNTER):
                left_out[origin] = "counter"
            elif why := LEFT_OUT.get(name.partition(".")[0]):
                left_out[origin] = why
            else:
                unexpected.append(origin)
            continue
        shape, counter = own[name].shape, name.endswith(COUNTER)
        if name == POSITIONS and tensor.shape != shape and (found := _resize(tensor, backbone)) is not None:
            resized.append(f"position embeddings of {tensor.shape[1]} places for {shape[1]}")
            tensor = found
        if tensor.shape != shape:
            misshapen.append(f"{name}: {list(tensor.shape)}, expected {list(shape)}")
        elif not counter and not tensor.is_floating_point():
            misshapen.append(f"{name}: {tensor.dtype}, expected floating point")
        elif tensor.layout is not torch.strided:
            misshapen.append(f"{name}: {tensor.layout}, expected torch.strided")
        else:
            loaded[name] = origin
            fitting[name] = tensor if counter else tensor.float()
    # Files from before torch 0.4.1 have no counters; no result depends on them.
    missing = [name for name in own if name not in named and not name.endswith(COUNTER)]
    return Account(
        way=(*(f"{entry} >" for entry in weights.entries), *([f"{prefix}*"] if prefix else [])),
        layout=layout.words if layout else "",
        loaded=loaded,
        left_out=left_out,
        beside=weights.beside,
        resized=tuple(resized),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        misshapen=tuple(misshapen),
        unlike=layout.unlike(backbone) if layout else "",
    ), fitting


def load_backbone_weights(path: Path, network: ReIDNetwork, architecture: str) -> Account:
    """Copy pre-trained weights into a network's backbone, in place.

    Parameters
    ----------
    path
        A file of one of the kinds that docs/backbones.md lists, ``.safetensors`` or what torch saves.
    network
        Receives the weights.
    architecture
        Name of the backbone, for the message.

    Returns
    -------
    Account
        What became of each tensor.

    Raises
    ------
    DataError
        If the file is unreadable, or is of another architecture: the first tensor of each kind that does not
        fit is named.
    """
    try:
        weights = read_weights(path)
    except DataError as error:
        raise DataError(f"model.weights: {error}") from error
    account, tensors = account_for(weights, network.backbone)
    if account.faults:
        raise DataError(f"model.weights: {path}: does not fit {architecture}: {'; '.join(account.faults)}")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DataError(f"model.weights: {path}: tensor {name} holds values that are not finite")
    network.backbone.load_state_dict({**network.backbone.state_dict(), **tensors})
    return account


def _best_prefix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return the prefix of a backbone's tensors: the one under which most of them are found."""
    candidates = dict.fromkeys(prefix for name in tensors for prefix in _prefixes(name))

    def found(prefix: str) -> tuple[int, bool]:
        named, _ = _below(tensors, prefix)
        return sum(name in own for name in named), "teacher." in prefix  # an average before its last state

    return max(candidates, key=found, default="")


def _prefixes(name: str) -> Iterator[str]:
    """Yield every possible prefix of a name, the shortest first."""
    prefix = ""
    while True:
        yield prefix
        added = next((each for each in PREFIXES if name.startswith(each, len(prefix))), None)
        if added is None:
            return
        prefix += added


def _first_part(name: str, prefix: str) -> str:
    """Return the first part of a name in which it differs from a prefix."""
    while prefix and not name.startswith(prefix):
        prefix = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return name.removeprefix(prefix).partition(".")[0]


def _below(tensors: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, tuple[str, Tensor]], Layout | None]:
    """Return the tensors under a prefix by name here, each with its name in the file, and their layout."""
    here = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    layout = layout_of(here)
    if layout is None:
        return {name: (prefix + name, tensor) for name, tensor in here.items()}, None
    converted = layout.convert(here)
    return {name: (prefix + origin, tensor) for name, (origin, tensor) in converted.items()}, layout


def _resize(positions: Tensor, backbone: Any) -> Tensor | None:  # noqa: ANN401 (a transformer of timm)
    """Interpolate position embeddings, (1, tokens + patches, width), to a transformer's own grid of patches.

    The grid that they come from is a square, or twice as high as wide, as images of persons are. None where
    it is neither, or the backbone has none.
    """
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    own: Tensor = backbone.pos_embed
    if grid is None or positions.dim() != 3 or positions.shape[2] != own.shape[2]:
        return None
    tokens = own.shape[1] - grid[0] * grid[1]
    patches = positions.shape[1] - tokens
    side, narrow = isqrt(max(patches, 0)), isqrt(max(patches, 0) // 2)
    if patches > 0 and side * side == patches:
        height, width = side, side
    elif patches > 0 and 2 * narrow * narrow == patches:
        height, width = 2 * narrow, narrow
    else:
        return None
    maps = positions[:, tokens:].float().reshape(1, height, width, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, tuple(grid), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([positions[:, :tokens].float(), maps.permute(0, 2, 3, 1).flatten(1, 2)], 1)
