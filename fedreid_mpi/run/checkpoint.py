"""Checkpoints: all that the future of a run depends on, whole or not there at all.

A checkpoint is a folder ``checkpoints/round_<n>``. Each rank writes one file with what its clients keep
to themselves and remember, the server those of the shared models and of what it remembers itself, and
last of all a manifest that names every file with its size and digest. A folder without a manifest is
none. No file of a checkpoint is ever changed.
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
from torch import Tensor

from fedreid_mpi.errors import ConfigurationError, DataError, FedReIDError
from fedreid_mpi.federated.client import private_specs
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.turn import Vectors
from fedreid_mpi.model import load_tensors, load_vectors, save_model, save_tensors, tensors_of, values_of
from fedreid_mpi.records import ClientSpec
from fedreid_mpi.storage.atomic import atomic_write, flush, make_folder, write_errors
from fedreid_mpi.storage.regular import open_regular, read_bytes
from fedreid_mpi.wording import counted

FOLDER = "checkpoints"
MANIFEST = "manifest.json"

VERSION = 2

MEANING = 1
"""To be increased whenever the same configuration computes something else from then on."""

PRIVATE_FORMAT = "fedreid_mpi private 1"
SERVER_FORMAT = "fedreid_mpi server 1"

SERVER_FILE = "server.safetensors"
"""Of what the server remembers between two rounds; not there where it remembers nothing."""

_NAME = re.compile(r"round_(\d{6,})")
_FILE = re.compile(r"(local/)?[^/\0]*[^/\0.][^/\0]*")  # in the checkpoint's own folder
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
    meaning
        Of the configuration, for the program that did the rounds; see `MEANING`.
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
    private
        The file that holds what each client keeps to itself and remembers, in id order.
    files
        All files, in order of their names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fedreid_mpi checkpoint"] = "fedreid_mpi checkpoint"
    version: Literal[2] = 2
    meaning: int = 1
    round: int
    groups: tuple[tuple[int, ...], ...]
    untrained: tuple[int, ...]
    configuration: dict[str, Any]
    clients: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    private: tuple[str, ...]
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


def save_shared(folder: Path, name: str, state: RankState, shared: Tensor, round: int) -> StoredFile:
    """Write the shared model of a group of clients."""
    state.model.shared.copy_(shared)
    return save_loaded(folder, name, state, round)


def save_loaded(folder: Path, name: str, state: RankState, round: int) -> StoredFile:
    """Write the model that is loaded, without its classifier: a model that can be evaluated."""
    path, archive = folder / name, state.archives[0]
    with write_errors(path):
        make_folder(path.parent)
    save_model(path, state.model, state.experiment.model, archive.height, archive.width, round)
    return _stored(folder, path)


def local_file(spec: ClientSpec) -> str:
    """Name the file of a client's own model."""
    return f"local/{spec.id}_{spec.name}.safetensors"


def private_file(rank: int) -> str:
    """Name the file of what the clients of a rank keep to themselves."""
    return f"rank_{rank}.safetensors"


def save_private(folder: Path, state: RankState, round: int) -> StoredFile:
    """Write what this rank's clients keep to themselves (`client.private_specs`), and remember."""
    path, progress = folder / private_file(state.comm.rank), state.progress
    tensors = {
        f"{id}/{name}": tensor
        for id, values in sorted(progress.private.items())
        for name, tensor in tensors_of(private_specs(state.model, state.specs[id], state.experiment), values)
    }
    for id, memory in sorted(progress.memory.items()):
        tensors.update({f"{_memory_of(id)}{name}": vector for name, vector in memory.items()})
    save_tensors(path, tensors, {"format": PRIVATE_FORMAT, "round": round})
    return _stored(folder, path)


def save_server(folder: Path, vectors: Vectors, round: int) -> StoredFile:
    """Write what the server remembers."""
    save_tensors(folder / SERVER_FILE, vectors, {"format": SERVER_FORMAT, "round": round})
    return _stored(folder, folder / SERVER_FILE)


def load_server(folder: Path) -> Vectors:
    """Read what the server remembered.

    Raises
    ------
    DataError
        The file is damaged.
    """
    return load_vectors(folder / SERVER_FILE) if (folder / SERVER_FILE).exists() else {}


def load_memory(folder: Path, files: Sequence[str], state: RankState) -> dict[int, Vectors]:
    """Read what the clients of this rank remembered, whichever ranks hosted them before.

    Raises
    ------
    DataError
        A file is missing or damaged.
    """
    ids = [client.spec.id for client in state.clients]
    found = {id: load_vectors(folder / files[id], _memory_of(id)) for id in ids}
    return {id: memory for id, memory in found.items() if memory}


def _memory_of(client: int) -> str:
    """Return what the names of the vectors begin with that a client remembers."""
    return f"{client}/memory/"


def load_private(folder: Path, files: Sequence[str], state: RankState) -> dict[int, Tensor]:
    """Read what the clients of this rank kept to themselves, whichever ranks hosted them before.

    Returns
    -------
    dict
        Client to values as `client.take_private` returns them.

    Raises
    ------
    DataError
        A file is missing or damaged.
    """
    loaded = {}
    for client in state.clients:
        id = client.spec.id
        specs = private_specs(state.model, client.spec, state.experiment)
        tensors = load_tensors(folder / files[id], {f"{id}/{spec.name}": spec.shape for spec in specs})
        loaded[id] = values_of(specs, [tensors[f"{id}/{spec.name}"] for spec in specs])
    return loaded


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
        content = json.loads(read_bytes(path))
        digest = content.pop("digest", None)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: is damaged: no JSON object with a digest") from error
    if digest != _digest(content):
        raise DataError(f"{path}: is damaged: its digest is {digest!r}, expected {_digest(content)!r}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: a checkpoint of version {content.get('version')}, expected {VERSION}: "
            "only the version of this program that began the run can resume it"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: is not a manifest of a checkpoint: {error.errors()[0]['msg']}") from error
    names = [file.name for file in manifest.files]
    for name in (*names, *manifest.models):
        if name not in names or not _FILE.fullmatch(name):
            raise DataError(f"{path}: names the file {name!r}, expected one in its own folder")
    return manifest


def _verify(folder: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        path = folder / file.name
        try:
            found = _stored(folder, path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if found.size != file.size:
            raise DataError(f"{path}: has {counted(found.size, 'byte')}, expected {file.size}")
        if found != file:
            raise DataError(f"{path}: is damaged: its SHA-256 is not the manifest's")


def _unreadable(path: Path, error: OSError) -> FedReIDError:
    """Distinguish a file that is gone or on a broken disk from one that this process cannot open for now."""
    kind = ConfigurationError if error.errno in _FOR_NOW else DataError
    return kind(f"{path}: cannot be read: {error.strerror}")


def retire_checkpoints(run_dir: Path, newest: int, keep: int) -> None:
    """Remove the checkpoints but the ``keep`` last ones up to a round, which has just been committed.

    Newer ones are damaged ones that a resume skipped: their rounds are done again.
    """
    kept = [folder for folder in list_checkpoints(run_dir) if _round(folder) <= newest][-keep:]
    for folder in _rounds(run_dir):
        if folder not in kept:
            _remove(folder)


def publish_models(run_dir: Path, manifest: Manifest) -> None:
    """Show a checkpoint's models, and no others, in ``models/``: as hard links where there are such."""
    folder = run_dir / "models"
    with write_errors(folder):
        make_folder(folder)
    for name in manifest.models:
        source = folder_of(run_dir, manifest.round) / name
        make_folder((folder / name).parent)
        with write_errors(folder / name), atomic_write(folder / name) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
    for path in sorted(folder.rglob("*.safetensors")):
        if str(path.relative_to(folder)) not in manifest.models:  # of an earlier round
            path.unlink()


def _stored(folder: Path, path: Path) -> StoredFile:
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(str(path.relative_to(folder)), os.fstat(file.fileno()).st_size, digest)


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
