"""Models on disk: safetensors with the settings that rebuild the network."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fedreid_mpi import config
from fedreid_mpi.errors import DataError
from fedreid_mpi.model.flat_model import FlatModel
from fedreid_mpi.model.foreign import what_it_is
from fedreid_mpi.model.network import ReIDNetwork, build_network
from fedreid_mpi.records import ParamSpec, Role
from fedreid_mpi.records.pixels import read_pixel_scale
from fedreid_mpi.storage.atomic import atomic_write, require_regular, write_errors

FORMAT = "fedreid_mpi model 2"

ABOUT = "fedreid_mpi"
"""Name of the file's one entry of metadata: JSON with the format, settings, image size and round."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model read from disk, without classifier.

    Attributes
    ----------
    network
        In evaluation mode, on the CPU.
    settings
        The ``[model]`` section it was trained with.
    height, width
        Image size in pixels that it was trained on.
    round
        Round after which it was written.
    digest
        SHA-256 of the description and all tensors, in hexadecimal.
    """

    network: ReIDNetwork
    settings: config.Model
    height: int
    width: int
    round: int = 0
    digest: str = ""


def save_model(
    path: Path, model: FlatModel, settings: config.Model, height: int, width: int, round: int
) -> None:
    """Write the shared part of a model; the classifier is left out, since it belongs to one client.

    Parameters
    ----------
    path
        Replaced when the new file is whole.
    model
        The model whose shared part is written.
    settings
        The experiment's ``[model]`` section.
    height, width
        Image size in pixels.
    round
        Round after which the model is as it is.

    Raises
    ------
    FedReIDError
        As `save_tensors` does.
    """
    about = {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json", exclude={"weights"}),
        "height": height,
        "width": width,
        "round": round,
        "mean": model.network.pixel_scale.mean,
        "deviation": model.network.pixel_scale.deviation,
    }
    save_tensors(path, {spec.name: model.view(spec) for spec in shared_specs(model)}, about)


@torch.no_grad()
def load_shared(path: Path, model: FlatModel) -> None:
    """Set the shared part of a model, in place, to what `save_model` wrote.

    Raises
    ------
    DataError
        As `load_tensors` does.
    """
    specs = shared_specs(model)
    tensors = load_tensors(path, {spec.name: spec.shape for spec in specs})
    for spec in specs:
        model.view(spec).copy_(tensors[spec.name])


def shared_specs(model: FlatModel) -> tuple[ParamSpec, ...]:
    """Return the tensors of a model's shared part: what `save_model` writes."""
    return tuple(spec for spec in model.specs if spec.role is not Role.CLASSIFIER)


def tensors_of(specs: Sequence[ParamSpec], values: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name the tensors in a vector that `FlatModel.read` returned: views of it."""
    start = 0
    for spec in specs:
        yield spec.name, torch.as_strided(values, spec.shape, spec.stride, start)
        start += spec.size


def values_of(specs: Sequence[ParamSpec], tensors: Sequence[Tensor]) -> Tensor:
    """Put tensors one after the other as `FlatModel.write` takes them; what `tensors_of` undoes."""
    values = torch.empty(sum(spec.size for spec in specs))
    for (_, view), tensor in zip(tensors_of(specs, values), tensors, strict=True):
        view.copy_(tensor)
    return values


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write named tensors.

    Parameters
    ----------
    path
        Replaced when the new file is whole.
    tensors
        On any device.
    about
        What the file is, for its metadata, which gets a digest as well.

    Raises
    ------
    FedReIDError
        If the file cannot be written; one that was there is untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    entry = json.dumps({**about, "digest": _digest(about, tensors)})
    # One entry: safetensors writes several in random order, and the same model must be the same bytes.
    content = save(tensors, metadata={ABOUT: entry})
    with write_errors(path), atomic_write(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Read some of the tensors that `save_tensors` wrote.

    Parameters
    ----------
    path
        The file.
    shapes
        Name to shape of those that are wanted; others in the file are not read.

    Raises
    ------
    DataError
        If the file is missing or damaged, or lacks one of them.
    """
    tensors = _read(path, lambda name: name in shapes)
    _check_leaves(path, shapes, tensors)
    return tensors


def load_vectors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read all vectors that `save_tensors` wrote under names with a common prefix, which is cut off.

    Raises
    ------
    DataError
        If the file is missing or damaged, or holds a tensor of another shape or type under such a name.
    """
    tensors = _read(path, lambda name: name.startswith(prefix))
    _check_leaves(path, {name: (tensor.numel(),) for name, tensor in tensors.items()}, tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def is_own_model(path: Path) -> bool:
    """Whether a file is a model that `save_model` wrote, as far as can be seen."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            return ABOUT in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def image_size(path: Path) -> tuple[int, int] | None:
    """Return height and width of the images that a model of ours was trained on; None of any other file."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
        return int(about["height"]), int(about["width"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def load_model(path: Path) -> StoredModel:
    """Read a model that `save_model` wrote.

    Raises
    ------
    DataError
        If the file is missing, of another kind or damaged, or does not fit its own settings.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(ABOUT, "{}")
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such model file") from error
    except (SafetensorError, OSError) as error:
        raise DataError(_not_safetensors(path, error)) from error
    try:
        about = json.loads(entry)
        if about.get("format") != FORMAT:
            raise DataError(f"{path}: format is {about.get('format')!r}, expected {FORMAT!r}")
        digest = _digest({key: value for key, value in about.items() if key != "digest"}, tensors)
        if about.get("digest") != digest:
            raise DataError(f"{path}: damaged or changed: its digest is not that of the model in it")
        settings = config.Model.model_validate(about["settings"])
        height, width, round = int(about["height"]), int(about["width"]), int(about["round"])
        scale = read_pixel_scale(about)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the model's description is damaged: {entry[:80]!r}") from error
    network = build_network(settings, None, 0, size=(height, width))
    network.pixel_scale = scale
    own = network.state_dict()
    expected = {
        name: tensor.shape for name, tensor in own.items() if not name.endswith("num_batches_tracked")
    }
    _check_leaves(path, expected, tensors)
    _require_finite(path, tensors)
    network.load_state_dict({**own, **tensors})
    return StoredModel(network.eval(), settings, height, width, round, digest)


def _read(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Read the tensors whose names are wanted, and no others."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys()) if wanted(name)}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such model file") from error
    except (SafetensorError, OSError) as error:
        raise DataError(_not_safetensors(path, error)) from error


def _not_safetensors(path: Path, error: Exception) -> str:
    """Describe what is wrong with a file that should hold a model."""
    reason = (
        error.strerror or error
        if isinstance(error, OSError)
        else f"it is {what_it_is(path, error)} ({error})"
    )
    return f"{path}: not a readable safetensors file: {reason}"


def _require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, leaf in tensors.items():
        if not leaf.isfinite().all():
            raise DataError(f"{path}: tensor {name} holds values that are not finite")


def _digest(about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a model and its description, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_leaves(path: Path, expected: Mapping[str, Sequence[int]], found: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and kinds, and name the first leaf that differs."""
    for name, shape in expected.items():
        if name not in found:
            raise DataError(f"{path}: has no tensor {name}, expected one of shape {list(shape)}")
        if tuple(found[name].shape) != tuple(shape):
            shapes = f"{list(found[name].shape)}, expected {list(shape)}"
            raise DataError(f"{path}: tensor {name} has shape {shapes}")
        if not found[name].is_floating_point():
            raise DataError(f"{path}: tensor {name} is {found[name].dtype}, expected floating point")
    surplus = [name for name in found if name not in expected]
    if surplus:
        raise DataError(f"{path}: tensor {surplus[0]} is not part of the model")
