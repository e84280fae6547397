"""The kernel's locks on files (``flock``): taken without blocking, and released however their holder dies."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that know no flock."""

NAP = 0.05
"""Seconds between two tries."""


def open_lock(path: Path) -> int:
    """Open a lock file, or make it; what it holds is left as it is, and no link is followed.

    Returns
    -------
    int
        The file's descriptor, for reading and writing.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return handle


def take_lock(path: Path, patience: float, waiting: Callable[[], object]) -> tuple[int, bool]:
    """Take the lock of a file.

    Parameters
    ----------
    path
        The lock file; made where there is none.
    patience
        Seconds that the lock is waited for.
    waiting
        Is called again and again meanwhile.

    Returns
    -------
    handle : int
        The lock's; to close it is to release the lock.
    works : bool
        Whether the lock is now held, so that no other process can take it; False where the file system has no
        such locks, or only pretends to.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        The file cannot be opened.
    """
    end = time.monotonic() + patience
    while True:
        handle = open_lock(path)
        try:
            if not _lock(handle):
                return handle, False
            if _is_at(path, handle):
                return handle, not _can_be_taken(path)
            # Else it was removed meanwhile, and means nothing any more.
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(handle)
                raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        waiting()
        time.sleep(NAP)


def _lock(handle: int) -> bool:
    """Lock an open file; tell whether there are such locks. Raises BlockingIOError where it is held."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in NO_FLOCK:
            return False
        raise
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        found, own = path.stat(follow_symlinks=False), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _can_be_taken(path: Path) -> bool:
    """Return whether a lock can be taken that this process holds."""
    handle = open_lock(path)
    try:
        return _lock(handle)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
