"""Copies of archives on each node's own disk: made once per node, used only if equal to the originals.

Others may write to such a disk as well. So copies lie in a folder that belongs to this user and is closed to
all others, no link is followed there, and what a copy holds is compared with the original's digests.
"""

import math
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.archive.verify import find_damaged_images
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.atomic import atomic_write, make_folder
from fedreid_mpi.storage.lock import take_lock
from fedreid_mpi.storage.regular import open_regular

BLOCK = 1 << 24
"""Bytes copied between two signs of life."""

_MARK = 4096
"""Bytes that the mark in a lock file may have."""


def open_staged(
    archive: DatasetArchive, stage: str, waiting: Callable[[], object] = lambda: None
) -> DatasetArchive:
    """Open an archive where a node reads it fastest.

    The first rank of a node that comes copies the file and compares the copy with the original's digests; the
    others wait for it. A copy that is there is used if it holds the same, and else made anew.

    Parameters
    ----------
    archive
        The archive's own place.
    stage
        ``data.stage``: a folder on the node's own disk, in which ``$VARIABLES`` are filled in; empty: the
        archive is used where it is.
    waiting
        Is called again and again while this rank copies, compares or waits.

    Raises
    ------
    DataError
        The archive does not hold what its digests say.
    ConfigurationError
        A variable is not set on this node, or the folder cannot hold the copy, or others can get at it.
    """
    if not stage:
        return archive
    place = Path(os.path.expandvars(os.path.expanduser(stage)))  # noqa: PTH111 (which leaves what is unknown)
    if "$" in str(place) or (stage.startswith("~") and str(place) == stage):
        raise ConfigurationError(f'data.stage is "{stage}", of which {socket.gethostname()} knows no value')
    folder = place / f"fedreid_mpi-{os.geteuid()}"
    path, copy = archive.path, folder / f"{archive.path.stem}-{archive.content_digest[:16]}.h5"
    try:
        make_folder(folder, 0o700)
        _require_own(folder)
        handle, _ = take_lock(copy.with_suffix(".lock"), math.inf, waiting)
        try:
            if not _is_known(copy, handle):
                if not copy.exists() or _fault(copy, archive, waiting):
                    _copy(archive, copy, waiting)
                _mark(copy, handle)
            return DatasetArchive.open(copy)
        finally:
            os.close(handle)
    except OSError as error:
        size = path.stat().st_size / 1e9
        raise ConfigurationError(
            f"data.stage: {place} on {socket.gethostname()} cannot hold the {size:.1f} GB of {path}: "
            f"{error.strerror or error}"
        ) from error


def _require_own(folder: Path) -> None:
    """Refuse a folder that others could put files or links into, or read."""
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or mode & 0o077:
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no folder"
        raise ConfigurationError(
            f"data.stage: {folder} on {socket.gethostname()} is {kind}, of user {found.st_uid} with "
            f"permissions {mode:o}, expected one of user {os.geteuid()} with 700; remove it, or name another "
            "place"
        )


def _state(copy: Path) -> bytes:
    """Return what tells whether a file was touched: any change of it changes its ctime."""
    found = copy.lstat()
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}".encode()


def _is_known(copy: Path, handle: int) -> bool:
    """Return whether a copy is as it was when it was compared; its lock file remembers."""
    try:
        return _state(copy) == os.pread(handle, _MARK, 0)
    except FileNotFoundError:
        return False


def _mark(copy: Path, handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, _state(copy), 0)


def _fault(copy: Path, archive: DatasetArchive, waiting: Callable[[], object]) -> str:
    """Describe in what a file differs from an archive; empty: it holds the same, to the last pixel."""
    if copy.is_symlink():
        return "it is a link"
    try:
        if DatasetArchive.open(copy).content_digest != archive.content_digest:
            return "it holds another dataset"
        return next(find_damaged_images(copy, lambda _: waiting()), "")
    except DataError as error:
        return str(error)


def _copy(archive: DatasetArchive, target: Path, waiting: Callable[[], object]) -> None:
    """Copy an archive, readable to its owner alone; the copy gets its name once it is known to be good."""
    with atomic_write(target) as temporary:
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open_regular(archive.path) as source, os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            while block := source.read(BLOCK):
                file.write(block)
                waiting()
        if fault := _fault(temporary, archive, waiting):
            raise DataError(f"{archive.path}: its copy on {socket.gethostname()} cannot be used: {fault}")
