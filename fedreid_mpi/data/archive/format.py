"""What makes an HDF5 file one of ours: its kind and version, and opening it with one-line errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import h5py

from fedreid_mpi.errors import DataError

KIND = "fedreid_mpi dataset"
"""Root attribute ``kind`` of a dataset archive."""

FORMAT_VERSION = 1
"""Root attribute ``format_version``; another one is refused."""

KIND_PREFIX = "fedreid_mpi "
"""Every archive of this program has a ``kind`` that starts so."""


class SplitRole(StrEnum):
    """What an image is for. The public dataset has one unlabelled split, `PUBLIC`."""

    TRAIN = "train"
    QUERY = "query"
    GALLERY = "gallery"
    PUBLIC = "public"


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
    try:
        if path.is_dir():
            raise DataError(f"{path}: a folder, expected an archive")
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if not h5py.is_hdf5(path):
            raise DataError(f"{path}: not an HDF5 file")
        with h5py.File(path, "r", locking=False) as file:
            kind = file.attrs.get("kind")
            if not (isinstance(kind, str) and kind.startswith(KIND_PREFIX)):
                raise DataError(f"{path}: an HDF5 file of something else, expected an archive of fedreid_mpi")
            yield file
    except (OSError, KeyError) as error:
        # h5py reports damage as OSError, or as KeyError where an object's header cannot be read.
        raise DataError(f"{path}: damaged or truncated HDF5 file ({str(error).strip(chr(39))})") from error


def require_dataset(path: Path, file: h5py.File) -> None:
    """Refuse an archive that is no dataset archive, or is one of another format version.

    Raises
    ------
    DataError
        Naming what was found and what was expected.
    """
    kind, version = file.attrs["kind"], file.attrs.get("format_version")
    if kind != KIND:
        raise DataError(f"{path}: an archive of kind '{kind}', expected '{KIND}'")
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: format version {version}, expected {FORMAT_VERSION}: prepare it again")
