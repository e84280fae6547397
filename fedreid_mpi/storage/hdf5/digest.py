"""The digest of an archive: over everything in it but pixels, which have digests of their own."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.hdf5.container import plain
from fedreid_mpi.storage.hdf5.tree import read_attributes, type_name

CONTENT_DIGEST = "content_digest"
"""Root attribute with the digest of everything else."""

_PIXELS = "/images"


def content_digest(archive: h5py.Group) -> str:
    """Compute the digest of an archive, of any kind, as ``docs/format.md`` defines it.

    Parameters
    ----------
    archive
        An open file, or the group of a larger file that is laid out as one; complete but for its attribute
        `CONTENT_DIGEST`, which is ignored.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    items: list[tuple[str, h5py.Group | h5py.Dataset]] = []
    archive.visititems(lambda name, item: items.append((f"/{name}", item)))
    digest = hashlib.sha256()
    for path, item in [("/", archive), *sorted(items, key=lambda found: found[0].encode())]:
        _update(digest, [path])
        for name, value in read_attributes(item).items():
            if (path, name) != ("/", CONTENT_DIGEST):
                _update(digest, [name, as_text(value)])
        if isinstance(item, h5py.Dataset):
            _update(digest, [type_name(item.dtype), as_text(item.shape)])
            if path != _PIXELS:
                _update_values(digest, item)
    return digest.hexdigest()


def require_intact(path: Path, archive: h5py.Group) -> None:
    """Refuse an archive whose content is not what was written; pixels are left to `verify_dataset`.

    Raises
    ------
    DataError
        When the content digest is missing or another.
    """
    if plain(archive.attrs.get(CONTENT_DIGEST)) != content_digest(archive):
        raise DataError(f"{path}: damaged or changed: {CONTENT_DIGEST} is not that of the content")


def source_digest(paths: Iterable[str], digests: Iterable[NDArray[np.uint8]]) -> str:
    """Compute the digest of a dataset as it came: over each image's path and its source's SHA-256, in order.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for path, source in zip(paths, digests, strict=True):
        digest.update(path.encode() + b"\0" + source.tobytes())
    return digest.hexdigest()


def as_text(value: object) -> str:
    """Write a value as the digest takes it: text as it is, numbers in decimal, lists comma-separated."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | np.ndarray):
        return ",".join(as_text(plain(each)) for each in value)
    return str(value)


def _update(digest: "hashlib._Hash", words: Iterable[str]) -> None:
    """Add words, each followed by a zero byte."""
    for word in words:
        digest.update(word.encode() + b"\0")


def _update_values(digest: "hashlib._Hash", dataset: h5py.Dataset) -> None:
    """Add the elements of a dataset: numbers as little-endian bytes, text and lists as words."""
    values = dataset[()]
    if h5py.check_string_dtype(dataset.dtype):
        for value in values:
            digest.update(bytes(value) + b"\0")
    elif h5py.check_vlen_dtype(dataset.dtype):
        _update(digest, map(as_text, values))
    else:
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
