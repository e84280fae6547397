"""Reading a dataset archive: arrays in memory, images mapped from the file, no open HDF5 handle."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive.format import FORMAT_VERSION, KIND, SplitRole, is_plain
from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.hdf5.container import open_archive, plain, require_kind
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, require_intact


class DatasetArchive:
    """One dataset, opened for reading; make it with `open`.

    Attributes
    ----------
    path
        The file.
    name
        Name of the dataset, e.g. ``market1501``.
    images
        Shape (N, height, width, 3), uint8, RGB, memory-mapped read-only: pages are read when touched and
        can be dropped again.
    pids, camids
        Shape (N,), int64: person and camera of each image.
    attributes
        Root attributes: format, counts, creation parameters.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.attributes: Mapping[str, object] = MappingProxyType(
            {key: plain(value) for key, value in sorted(file.attrs.items())}
        )
        self.name = str(self.attributes["name"])
        if not is_plain(self.name):
            raise DataError(
                f"{path}: its dataset's name is {self.name!r}, which cannot be part of a file's name"
            )
        self.pids: NDArray[np.int64] = file["pid"][...].astype(np.int64)
        self.camids: NDArray[np.int64] = file["camid"][...].astype(np.int64)
        self._splits: list[dict[str, NDArray[np.int64]]] = [
            {role: indices[...] for role, indices in file["splits"][str(number)].items()}
            for number in range(len(file["splits"]))
        ]
        images, stored = file["images"], file["pixel_sha256"][...]
        self.images: np.memmap[Any, np.dtype[np.uint8]] = np.memmap(
            path, np.uint8, mode="r", offset=images.id.get_offset(), shape=images.shape
        )
        # All but the pixels is compared with its digest; that they lie where they should, two images tell.
        for number in {0, len(stored) - 1} if len(stored) else ():
            if hashlib.sha256(self.images[number].tobytes()).digest() != stored[number].tobytes():
                raise DataError(f"{path}: damaged: image {number} has other pixels than were written")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an archive; nothing is locked and no HDF5 handle stays open.

        Raises
        ------
        DataError
            When the file is missing, foreign, damaged, of another kind or of another format version. Of the
            pixels only the first and the last image are compared with their digests.
        """
        path = Path(path)
        with open_archive(path) as file:
            require_kind(path, file, KIND, FORMAT_VERSION, ": prepare it again")
            require_intact(path, file)
            return cls(path, file)

    @property
    def height(self) -> int:
        """Rows of an image."""
        return int(self.images.shape[1])

    @property
    def width(self) -> int:
        """Columns of an image."""
        return int(self.images.shape[2])

    @property
    def digest(self) -> str:
        """SHA-256 of the source images' paths and bytes."""
        return str(self.attributes["source_digest"])

    @property
    def content_digest(self) -> str:
        """SHA-256 of everything in the archive, as ``docs/format.md`` defines it."""
        return str(self.attributes[CONTENT_DIGEST])

    @property
    def splits(self) -> int:
        """Number of splits."""
        return len(self._splits)

    def roles(self, index: int = 0) -> tuple[str, ...]:
        """Name the roles that split ``index`` has images for, in the order of `SplitRole`."""
        return tuple(role.value for role in SplitRole if self.has(role, index))

    def has(self, role: str, index: int = 0) -> bool:
        """Whether split ``index`` has images for ``role``."""
        return index < self.splits and role in self._splits[index]

    def split(self, role: str, index: int = 0) -> NDArray[np.int64]:
        """Return the images of one role.

        Parameters
        ----------
        role
            One of `SplitRole`, e.g. ``train``.
        index
            Number of the split.

        Returns
        -------
        ndarray
            Sorted indices into ``images``, int64.

        Raises
        ------
        DataError
            When the archive has no such split.
        """
        if not self.has(role, index):
            held = "; ".join(f"{number}: {', '.join(self.roles(number))}" for number in range(self.splits))
            raise DataError(f"{self.path}: no split {index} for {role}, found {held}")
        return self._splits[index][role]

    @cached_property
    def paths(self) -> list[str]:
        """Original path of each image, relative to the dataset's folder."""
        return self._text("path")

    @cached_property
    def skipped(self) -> list[str]:
        """Original paths of images that were left out because they could not be decoded."""
        return self._text("skipped")

    @cached_property
    def notes(self) -> list[str]:
        """What was noticed when the archive was made."""
        return self._text("notes")

    def _text(self, name: str) -> list[str]:
        with open_archive(self.path) as file:
            return [value.decode() for value in file[name][...]]
