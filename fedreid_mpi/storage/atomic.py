"""Writing files so that a reader finds the old one or the new one; reading none but regular ones."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedreid_mpi.errors import FedReIDError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write ``path`` anew: give a temporary name beside it, then move that into place.

    The temporary file is flushed to the disk before it is renamed, and the folder after, so that a power cut
    leaves either file whole. On any error, an interrupt included, the temporary file is removed.

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


def flush(path: Path) -> None:
    """Force a file or folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
