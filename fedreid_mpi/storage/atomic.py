"""Writing files so that a reader finds the old one or the new one; reading none but regular ones."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.storage.access import permissions

CANNOT_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)
"""What is said of folders that cannot be flushed: unreadable ones, or any by file systems without such."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write ``path`` anew: give a temporary name beside it, then move that into place.

    The temporary file is flushed to the disk before it is renamed, and the folder after, so that a power cut
    leaves either file whole. On any error, an interrupt included, the temporary file is removed. Whoever may
    read the file that is replaced, the new one has the `permissions` of this process.

    Parameters
    ----------
    path
        The file to make or to replace.

    Yields
    ------
    Path
        The name to write to.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(permissions())
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Let what goes wrong while a file or folder is written be told as an error that names it and the cause.

    Raises
    ------
    FedReIDError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be written: {error.strerror or error}") from error


def require_regular(path: Path) -> None:
    """Refuse to read what is no regular file: a pipe would keep its reader waiting, a device never end.

    Raises
    ------
    OSError
        When there is nothing, or something else.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing, each of them on the disk when this returns.

    Raises
    ------
    OSError
        One cannot be made, or is no folder.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing or [path]):
        folder.mkdir(mode, exist_ok=True)
        flush(folder.parent)


def flush(path: Path) -> bool:
    """Force a file or folder onto the disk.

    Returns
    -------
    bool
        False for a folder that cannot be flushed: new names in it may not outlive a power cut.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in CANNOT_FLUSH and path.is_dir():
            return False
        raise
    return True
