"""Copies of archives on each node's own disk: made once a node, checked by digest."""

import fcntl
import hashlib
import os
import shutil
import socket
from pathlib import Path

from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.atomic import atomic_write


def open_staged(archive: DatasetArchive, stage: str) -> DatasetArchive:
    """Open an archive where a node reads it fastest.

    The first rank of a node that comes copies the file and compares the digests of both; the others wait for
    it. A copy is named after the archive's content, so that one that is there is used and a stale one is not.

    Parameters
    ----------
    archive
        The archive where it lies.
    stage
        ``data.stage``: a folder on the node's own disk, in which ``$VARIABLES`` are filled in; empty: the
        archive is used where it lies.

    Raises
    ------
    DataError
        The archive cannot be read as one.
    ConfigurationError
        A variable is not set on this node, or the folder cannot hold the copy.
    """
    if not stage:
        return archive
    folder = Path(os.path.expandvars(os.path.expanduser(stage)))  # noqa: PTH111 (which leaves what is unknown)
    if "$" in str(folder) or (stage.startswith("~") and str(folder) == stage):
        raise ConfigurationError(f'data.stage is "{stage}", of which {socket.gethostname()} knows no value')
    path = archive.path
    copy = folder / f"{path.stem}-{str(archive.attributes['content_digest'])[:16]}.h5"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with copy.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                _copy(path, copy)
    except OSError as error:
        size = path.stat().st_size / 1e9
        raise ConfigurationError(
            f"data.stage: {folder} on {socket.gethostname()} cannot hold the {size:.1f} GB of {path}: "
            f"{error.strerror or error}"
        ) from error
    return DatasetArchive.open(copy)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, readable to its owner alone, and compare the two."""
    with atomic_write(target) as temporary:
        temporary.touch(mode=0o600)
        shutil.copyfile(source, temporary)
        if _digest(source) != _digest(temporary):
            raise OSError(f"the copy differs from {source}")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
