"""Writing files so that a reader finds the old one or the new one; reading none but regular ones."""

import contextlib
import errno
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.storage.access import permissions

CANNOT_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)
"""What is said of folders that cannot be flushed: unreadable ones, or any by file systems without such."""

ABANDONED_AFTER = 3600.0
"""Seconds without a change until a temporary file of another host counts as left by a killed process."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write ``path`` anew: yield a temporary name next to it, then move that into place.

    The temporary file is flushed to the disk before it is renamed, and the folder after, so that a power cut
    leaves either file whole. On any error, an interrupt included, the temporary file is removed; and so is
    what an earlier writer of the same file left that was killed. Whoever may read the file that is replaced,
    the new one has the `permissions` of this process.

    Parameters
    ----------
    path
        The file to make or to replace.

    Yields
    ------
    Path
        The name to write to.
    """
    temporary = _temporary_name(path)
    remove_leftovers(path)
    try:
        yield temporary
        temporary.chmod(permissions())
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder next to ``path``, and remove it with its content when the block ends.

    What an earlier process left for the same path that was killed is removed as well.

    Yields
    ------
    Path
        The folder.
    """
    temporary = _temporary_name(path)
    remove_leftovers(path)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders of writers of ``path`` that are gone.

    A process of this host is looked for. One of another host is taken for gone when it has written nothing
    for `ABANDONED_AFTER` seconds.
    """
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            if left.name.startswith(f".{path.name}.") and left.suffix == ".tmp" and _is_abandoned(path, left):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _is_abandoned(path: Path, left: Path) -> bool:
    """Return whether what is named as by `_temporary_name` has no writer any more."""
    host, _, number = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp").rpartition(".")
    if not number.isdecimal():
        return False
    if host != socket.gethostname():
        return time.time() - left.lstat().st_mtime > ABANDONED_AFTER
    if int(number) == os.getpid():
        return True  # of an earlier process with this number, as in containers
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file or folder is written into an error that names it and the cause.

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
        If there is nothing, or something else.
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
