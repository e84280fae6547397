"""What makes an HDF5 file one of ours: its kind and version, and opening it with one-line errors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.atomic import require_regular
from fedreid_mpi.storage.hdf5.checksum import require_unbroken
from fedreid_mpi.wording import counted

KIND_PREFIX = "fedreid_mpi "
"""Every archive of this program has a ``kind`` that starts so."""

DAMAGE = (
    *(OSError, LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError),
    AttributeError,  # names that are no UTF-8 come as bytes
)
"""What h5py raises, or makes its callers raise, on damaged files, depending on the place of the damage."""

HDF5_VERSION = str(h5py.version.hdf5_version)
"""Of the HDF5 library in use."""


@contextmanager
def open_archive(path: Path) -> Iterator[h5py.File]:
    """Open any archive of this program for reading, without a lock.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    h5py.File
        Closed when the block ends.

    Raises
    ------
    DataError
        When the file is missing, is no HDF5 file, is truncated, or was not written by this program.
    """
    with open_part(path, "/") as file:
        yield file


@contextmanager
def open_part(path: Path, group: str) -> Iterator[h5py.File]:
    """Open an archive of which only one group will be read: the rest is not looked at, as it may be large.

    Parameters
    ----------
    path
        The file.
    group
        Name of the group, which need not be there.

    Yields
    ------
    h5py.File
        Closed when the block ends.

    Raises
    ------
    DataError
        As `open_archive`.
    """
    try:
        _require_file(path)
        if not h5py.is_hdf5(path):
            raise DataError(f"{path}: not an HDF5 file")
        sealed = is_sealed(path)
        with h5py.File(path, "r", locking=False) as file:
            kind = plain(file.attrs.get("kind"))
            if not (isinstance(kind, str) and kind.startswith(KIND_PREFIX)):
                raise DataError(f"{path}: not an archive of fedreid_mpi, but another HDF5 file")
            here = group == "/" or file.get(group, getclass=True, getlink=True) is h5py.HardLink
            if here and not sealed:
                _require_room(path, file[group])
            yield file
    except DAMAGE as error:
        raise DataError(f"{path}: {_fault(error)}") from error


def why_unavailable(error: Exception) -> str:
    """Return why HDF5 or the system did not open a file, which may be whole; empty: it is the file's content.

    What the system says has a number, which HDF5 passes on; but for that of a wrong argument, a place in the
    file for instance.
    """
    if "already open for" in str(error):
        return "still open for writing, or its writer was killed"
    number = error.errno if isinstance(error, OSError) else None
    if number in (None, errno.EINVAL):
        return ""
    if "lock" in str(error):
        return (
            "locked by another program, or on a file system without locks (HDF5_USE_FILE_LOCKING=FALSE helps)"
        )
    return f"cannot be read: {os.strerror(number)}"


def _fault(error: Exception) -> str:
    """Describe what is wrong with a file."""
    return why_unavailable(error) or f"damaged or truncated HDF5 file ({str(error).strip(chr(39))})"


def is_sealed(path: Path) -> bool:
    """Return whether a file has a seal that holds, which vouches for all that is in it.

    Raises
    ------
    DataError
        When it has one that does not hold.
    OSError
        When it cannot be read.
    """
    status = path.stat()
    return _is_sealed(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _is_sealed(path: Path, *version: int) -> bool:
    """Look once at each version of a file, as that is to read it all."""
    return require_unbroken(path)


def _require_file(path: Path) -> None:
    try:
        require_regular(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, expected an archive") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _require_room(path: Path, group: h5py.Group) -> None:
    """Refuse a damaged file that says it holds more than its bytes: to read it would fill the memory."""
    room = path.stat().st_size

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.size * item.dtype.itemsize > room:
            raise DataError(
                f"{path}: damaged: /{name} would be {counted(item.size, 'value')} in {counted(room, 'byte')}"
            )

    group.visititems(look)


def require_kind(
    path: Path, archive: h5py.Group, kind: str, version: int, remedy: str = "", oldest: int | None = None
) -> None:
    """Refuse an archive of another kind, or of a format version other than this or those from the oldest on.

    Raises
    ------
    DataError
        Naming what was found and what was expected, and where the version is wrong the remedy.
    """
    found, found_version = plain(archive.attrs.get("kind")), plain(archive.attrs.get("format_version"))
    if found != kind:
        raise DataError(f"{path}: an archive of kind '{found}', expected '{kind}'")
    first = version if oldest is None else oldest
    if found_version not in range(first, version + 1):
        expected = f"{version}{remedy}" if first == version else f"{first} to {version}"
        raise DataError(f"{path}: format version {found_version}, expected {expected}")


def plain(value: object) -> object:
    """Turn a NumPy scalar into the Python value it holds, and fixed-length text into a string."""
    if isinstance(value, np.bytes_):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
