"""Writing a dataset archive: in one stream, atomically, the same bytes for the same images."""

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedreid_mpi import __version__
from fedreid_mpi.data.archive.format import FORMAT_VERSION, KIND
from fedreid_mpi.data.archive.layout import DATASET
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.atomic import atomic_write
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest, source_digest
from fedreid_mpi.storage.hdf5.disk import create_hdf5

PAGE = 4096
"""Bytes; ``/images`` starts on a multiple of it, so that it can be mapped or read straight to a device."""


@dataclass(frozen=True, slots=True)
class ArchiveContents:
    """All of a dataset archive but its pixels.

    Attributes
    ----------
    name, layout
        Of the dataset, and of the folder tree that it came in.
    height, width
        Of every image, in pixels.
    paths
        Path of each image relative to the dataset's folder, in archive order.
    pids, camids
        Person and camera of each image; lengths equal ``paths``'s.
    splits
        For each split, role to the indices of its images.
    attributes
        Counts and creation parameters, stored as root attributes.
    skipped
        Paths of images that were left out because they could not be decoded.
    notes
        What a user should know. It is read after the last image was taken, so what is noticed on the way can
        still be added.
    """

    name: str
    layout: str
    height: int
    width: int
    paths: Sequence[str]
    pids: Sequence[int]
    camids: Sequence[int]
    splits: Sequence[Mapping[str, Sequence[int]]]
    attributes: Mapping[str, str | int | bool]
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        if not len(self.paths) == len(self.pids) == len(self.camids):
            raise ValueError(f"{len(self.paths)} paths, {len(self.pids)} pids, {len(self.camids)} camids")


def write_archive(
    path: Path,
    contents: ArchiveContents,
    images: Iterable[tuple[NDArray[np.uint8], bytes]],
) -> None:
    """Write a dataset archive under a temporary name and put it in place when it is whole.

    Parameters
    ----------
    path
        The archive; one that exists is replaced.
    contents
        What the images are.
    images
        For each path in order, its pixels, shape (height, width, 3), and the SHA-256 of its source.
        Taken one by one, so that memory does not grow with the dataset.

    Raises
    ------
    ConfigurationError
        When the file cannot be written. Whatever is raised, an archive that was there is untouched and no
        temporary file is left.
    """
    with _writing(path) as (file, check):
        pixels = _create_images(file, (len(contents.paths), contents.height, contents.width, 3))
        sources, stored = (np.empty((len(contents.paths), 32), np.uint8) for _ in range(2))
        for index, (_, (image, source)) in enumerate(zip(contents.paths, images, strict=True)):
            pixels[index] = image
            check()
            sources[index] = np.frombuffer(source, np.uint8)
            stored[index] = np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8)
        _write_columns(file, contents, sources, stored)
        _set_attributes(
            file,
            {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "name": contents.name,
                "layout": contents.layout,
                "software": f"fedreid_mpi {__version__}",
                "source_digest": source_digest(contents.paths, sources),
                "image_height": contents.height,
                "image_width": contents.width,
                **contents.attributes,
            },
        )
        _set_attributes(file, {CONTENT_DIGEST: content_digest(file)})


@contextmanager
def _writing(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Create a temporary file, as `create_hdf5` does; it takes the place of ``path`` when all ends well."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        # Small objects stay packed; only those of a megabyte or more, the images, start on a page.
        aligned = {"alignment_threshold": 1 << 20, "alignment_interval": PAGE}
        with atomic_write(path) as temporary, create_hdf5(temporary, **aligned) as opened:
            yield opened
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _create_images(file: h5py.File, shape: tuple[int, ...]) -> h5py.Dataset:
    """Create ``/images`` contiguous and allocated at once: only so it has one offset in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, properties))
    _describe(dataset)
    return dataset


def _write_columns(
    file: h5py.File, contents: ArchiveContents, sources: NDArray[np.uint8], stored: NDArray[np.uint8]
) -> None:
    """Write everything that is not pixels."""
    _put(file, "pid", np.asarray(contents.pids, np.int32))
    _put(file, "camid", np.asarray(contents.camids, np.int32))
    _put(file, "path", _text(contents.paths))
    _put(file, "source_sha256", sources)
    _put(file, "pixel_sha256", stored)
    _put(file, "notes", _text(contents.notes))
    _put(file, "skipped", _text(contents.skipped))
    for number, split in enumerate(contents.splits):
        for role, indices in split.items():
            _put(file, f"splits/{number}/{role}", np.sort(np.asarray(indices, np.int64)))


def _put(file: h5py.File, name: str, values: ArrayLike) -> None:
    _describe(file.create_dataset(name, data=values, track_times=False))


def _describe(dataset: h5py.Dataset) -> None:
    """Let a dataset say what it holds, so that the file alone is enough to read it."""
    column = DATASET.column(dataset.name)
    assert column is not None
    words = {"description": column.description, "units": column.units}
    _set_attributes(dataset, {name: text for name, text in words.items() if text})


def _set_attributes(item: h5py.Group | h5py.Dataset, values: Mapping[str, str | int | bool]) -> None:
    """Set attributes, text at a fixed length: HDF5 can crash on damaged text of variable length."""
    for name, value in values.items():
        data = _text([value]).reshape(()) if isinstance(value, str) else value
        item.attrs.create(name, data, dtype=getattr(data, "dtype", None))


def _text(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Encode as fixed-length UTF-8: unlike variable-length text it is stored in one piece."""
    encoded = [value.encode() for value in values]
    length = max(map(len, encoded), default=0) or 1
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))
