"""Checkpoints: all that the future of a run depends on, whole or not there at all.

A checkpoint is a folder ``checkpoints/round_<n>``. Each rank writes its clients' files, the server those of
the shared models, and last of all a manifest that names every file with its size and digest. A folder without
a manifest is none. No file of a checkpoint is ever changed.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedreid_mpi.config import Experiment
from fedreid_mpi.errors import ConfigurationError, DataError, FedReIDError
from fedreid_mpi.federated.client import Client
from fedreid_mpi.model import FlatModel, load_tensors, save_model, save_tensors, shared_specs
from fedreid_mpi.records import ParamSpec, Role
from fedreid_mpi.storage.atomic import atomic_write, flush, write_errors

FOLDER = "checkpoints"
MANIFEST = "manifest.json"

VERSION = 1
CLIENT_FORMAT = "fedreid_mpi client 1"

_NAME = re.compile(r"round_(\d{6,})")
_FOR_NOW = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, order=True)
class StoredFile:
    """A file of a checkpoint: its name, its size in bytes, and the SHA-256 of its content."""

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a checkpoint holds.

    Attributes
    ----------
    format, version
        Of the checkpoint.
    round
        The last round that it holds.
    groups
        Members of each group of clients that share a model.
    untrained
        Ids of the clients that have not trained yet, ascending.
    configuration
        The resolved experiment.
    clients
        Names of the clients, in id order.
    datasets
        Content digests of the archives, the public one last.
    models
        Those of the files that are models as `save_model` writes them; ``models/`` shows them.
    files
        All files, in order of their names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fedreid_mpi checkpoint"] = "fedreid_mpi checkpoint"
    version: Literal[1] = 1
    round: int
    groups: tuple[tuple[int, ...], ...]
    untrained: tuple[int, ...]
    configuration: dict[str, Any]
    clients: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    files: tuple[StoredFile, ...]


def folder_of(run_dir: Path, round: int) -> Path:
    """Return the folder of a round's checkpoint."""
    return run_dir / FOLDER / f"round_{round:06d}"


def group_files(groups: int) -> list[str]:
    """Name the files of the groups' models."""
    return [f"group_{n}.safetensors" for n in range(groups)] if groups > 1 else ["global.safetensors"]


def begin_checkpoint(folder: Path) -> None:
    """Make a checkpoint's folder, empty; what an attempt that was killed left there is removed."""
    with write_errors(folder):
        folder.parent.mkdir(exist_ok=True)
        flush(folder.parent.parent)
        if folder.exists():
            _remove(folder)
        folder.mkdir()
        flush(folder.parent)


def save_group(folder: Path, name: str, model: FlatModel, experiment: Experiment, *size: int) -> StoredFile:
    """Write the model of a group of clients; ``size`` is height, width and round."""
    save_model(folder / name, model, experiment.model, *size)
    return _stored(folder / name)


def save_client(folder: Path, client: Client, experiment: Experiment, *size: int) -> list[StoredFile]:
    """Write what a client keeps to itself; ``size`` is height, width and round.

    That is its classifier; BatchNorm with ``aggregation.bn = "local"``; and where nothing is shared its whole
    model, in a file of its own that can be evaluated.
    """
    path = folder / f"client_{client.spec.id}.safetensors"
    about = {"format": CLIENT_FORMAT, "client": client.spec.id, "round": size[-1]}
    save_tensors(path, client.model, _private(client.model, experiment), about)
    files = [_stored(path)]
    if experiment.federation.mode == "local":
        files.append(save_group(folder, _own_model(client), client.model, experiment, *size))
    return files


def load_client(folder: Path, client: Client, experiment: Experiment) -> None:
    """Give a client back what `save_client` wrote; the shared part must be there already.

    Raises
    ------
    DataError
        A file is missing or damaged.
    """
    if experiment.federation.mode == "local":
        load_tensors(folder / _own_model(client), client.model, shared_specs(client.model))
    path = folder / f"client_{client.spec.id}.safetensors"
    load_tensors(path, client.model, _private(client.model, experiment))


def _private(model: FlatModel, experiment: Experiment) -> list[ParamSpec]:
    own = model.normalisation if experiment.aggregation.bn == "local" else ()
    return [spec for spec in model.specs if spec.role is Role.CLASSIFIER or spec in own]


def _own_model(client: Client) -> str:
    return f"{client.spec.id}_{client.spec.name}.safetensors"


def conclude_checkpoint(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: when this returns, the checkpoint is on disk and counts."""
    content = manifest.model_dump(mode="json")
    text = json.dumps({**content, "digest": _digest(content)}, indent=1)
    with write_errors(folder / MANIFEST), atomic_write(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


def newest_whole(run_dir: Path) -> tuple[Manifest | None, tuple[str, ...]]:
    """Find the newest checkpoint with every file as it was written.

    Returns
    -------
    manifest : Manifest or None
        None where there is no checkpoint at all.
    damage : tuple of str
        What is wrong with each newer one.

    Raises
    ------
    DataError
        There are checkpoints, and none is whole.
    ConfigurationError
        A file cannot be opened for now, and may be whole: to pass over its checkpoint would give it up.
    """
    damage: list[str] = []
    for folder in reversed(list_checkpoints(run_dir)):
        try:
            manifest = read_manifest(folder)
            _verify(folder, manifest)
        except DataError as error:
            damage.append(str(error))
        else:
            return manifest, tuple(damage)
    if damage:
        raise DataError(f"{damage[0]}; no other checkpoint is whole")
    return None, ()


def list_checkpoints(run_dir: Path) -> list[Path]:
    """List the folders of checkpoints, oldest first."""
    return [folder for folder in _rounds(run_dir) if (folder / MANIFEST).exists()]


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises
    ------
    DataError
        It is missing, damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop("digest", None)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: is damaged: no JSON object with a digest") from error
    if digest != _digest(content):
        raise DataError(f"{path}: is damaged: its digest is {digest!r}, expected {_digest(content)!r}")
    if content.get("version") != VERSION:
        raise DataError(f"{path}: has version {content.get('version')}, this program reads {VERSION}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: is no manifest of a checkpoint: {error.errors()[0]['msg']}") from error


def _verify(folder: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        path = folder / file.name
        try:
            found = _stored(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if found.size != file.size:
            raise DataError(f"{path}: has {found.size} bytes, expected {file.size}")
        if found != file:
            raise DataError(f"{path}: is damaged: its SHA-256 is not the manifest's")


def _unreadable(path: Path, error: OSError) -> FedReIDError:
    """Tell a file that is gone or on a broken disk from one that this process cannot open for now."""
    kind = ConfigurationError if error.errno in _FOR_NOW else DataError
    return kind(f"{path}: cannot be read: {error.strerror}")


def retire_checkpoints(run_dir: Path, newest: int, keep: int) -> None:
    """Remove the checkpoints but the ``keep`` last ones up to a round, which has just been committed.

    Newer ones are damaged ones that a resume has passed over: their rounds are played again.
    """
    kept = [folder for folder in list_checkpoints(run_dir) if _round(folder) <= newest][-keep:]
    for folder in _rounds(run_dir):
        if folder not in kept:
            _remove(folder)


def publish_models(run_dir: Path, manifest: Manifest) -> None:
    """Show a checkpoint's models, and no others, in ``models/``: as hard links where there are such."""
    folder = run_dir / "models"
    folder.mkdir(exist_ok=True)
    for name in manifest.models:
        source = folder_of(run_dir, manifest.round) / name
        with write_errors(folder / name), atomic_write(folder / name) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in manifest.models:  # groups of an earlier round
            path.unlink()


def _stored(path: Path) -> StoredFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(path.name, os.fstat(file.fileno()).st_size, digest)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _rounds(run_dir: Path) -> Sequence[Path]:
    folder = run_dir / FOLDER
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_round)


def _round(folder: Path) -> int:
    return int(folder.name.removeprefix("round_"))


def _remove(folder: Path) -> None:
    """Remove a checkpoint, the manifest first: what is left of it is none any more."""
    (folder / MANIFEST).unlink(missing_ok=True)
    flush(folder)
    shutil.rmtree(folder)
