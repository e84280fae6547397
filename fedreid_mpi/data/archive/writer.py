"""Writing a dataset archive: in one stream, atomically, the same bytes for the same images."""

import errno
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedreid_mpi import __version__
from fedreid_mpi.data.archive.format import FORMAT_VERSION, KIND
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.files import replacing

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

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        if not len(self.paths) == len(self.pids) == len(self.camids):
            raise ValueError(f"{len(self.paths)} paths, {len(self.pids)} pids, {len(self.camids)} camids")


def write_archive(
    path: Path,
    contents: ArchiveContents,
    images: Iterable[tuple[NDArray[np.uint8], bytes]],
) -> str:
    """Write a dataset archive under a temporary name and put it in place when it is whole.

    Parameters
    ----------
    path
        The archive; one that exists is replaced.
    contents
        What the images are.
    images
        For each path in order, its pixels, shape (height, width, 3), and a digest of its file's bytes.
        Taken one by one, so that memory does not grow with the dataset.

    Returns
    -------
    str
        The source digest: SHA-256, in hexadecimal, over the paths and file digests in order.

    Raises
    ------
    ConfigurationError
        When the file cannot be written. Whatever is raised, an archive that was there is untouched and no
        temporary file is left.
    """
    digest = hashlib.sha256()
    with _writing(path) as file:
        pixels = _create_images(file, (len(contents.paths), contents.height, contents.width, 3))
        for index, (name, (image, file_digest)) in enumerate(zip(contents.paths, images, strict=True)):
            pixels[index] = image
            digest.update(name.encode() + b"\0" + file_digest)
        _write_columns(file, contents)
        file.attrs.update(
            {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "name": contents.name,
                "layout": contents.layout,
                "software": f"fedreid_mpi {__version__}",
                "source_digest": digest.hexdigest(),
                "image_height": contents.height,
                "image_width": contents.width,
                **contents.attributes,
            }
        )
    return digest.hexdigest()


@contextmanager
def _writing(path: Path) -> Iterator[h5py.File]:
    """Open a temporary file that takes the place of ``path`` when the block ends well."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        with replacing(path) as temporary:
            temporary.touch()  # fails with a clearer reason than HDF5's
            # Small objects stay packed; only those of a megabyte or more, the images, start on a page.
            with h5py.File(
                temporary, "w", locking=False, alignment_threshold=1 << 20, alignment_interval=PAGE
            ) as file:
                yield file
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
    dataset.attrs["description"] = "Images as RGB: image, row, column, channel"
    dataset.attrs["units"] = "intensity, 0 to 255"
    return dataset


def _write_columns(file: h5py.File, contents: ArchiveContents) -> None:
    """Write everything that is not pixels."""
    _put(file, "pid", np.asarray(contents.pids, np.int32), "Person in each image; -1 is junk")
    _put(file, "camid", np.asarray(contents.camids, np.int32), "Camera that took each image")
    _put(file, "path", _text(contents.paths), "Original file of each image, relative to the dataset's folder")
    _put(file, "skipped", _text(contents.skipped), "Original files left out, as they could not be decoded")
    for number, split in enumerate(contents.splits):
        for role, indices in split.items():
            values = np.sort(np.asarray(indices, np.int64))
            _put(file, f"splits/{number}/{role}", values, f"Images of split {number} used as {role}: indices")


def _put(file: h5py.File, name: str, values: ArrayLike, description: str) -> None:
    file.create_dataset(name, data=values, track_times=False).attrs["description"] = description


def _text(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Encode as fixed-length UTF-8: unlike variable-length text it is stored in one piece."""
    encoded = [value.encode() for value in values]
    length = max(map(len, encoded), default=0) or 1
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))
