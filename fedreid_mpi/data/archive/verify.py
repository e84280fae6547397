"""Verification of a dataset archive against ``docs/format.md``: layout, rules, digests, every image."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive.format import SplitRole
from fedreid_mpi.data.archive.layout import DATASET
from fedreid_mpi.records import Advance
from fedreid_mpi.storage.hdf5.container import open_archive, plain, require_kind
from fedreid_mpi.storage.hdf5.digest import source_digest
from fedreid_mpi.storage.hdf5.schema import find_faults
from fedreid_mpi.wording import counted

BLOCK = 64
"""Images read at once: 6 MB at 256x128."""

_TESTED = (SplitRole.QUERY, SplitRole.GALLERY, SplitRole.MULTI_QUERY)

_Splits = dict[str, dict[str, NDArray[np.int64]]]


def verify_dataset(path: Path, advance: Advance) -> tuple[str, ...]:
    """Check a dataset archive against its specification, and every image against its digest.

    Parameters
    ----------
    path
        The archive.
    advance
        Called with the number of images just checked.

    Returns
    -------
    tuple of str
        What is wrong, each in a few words; empty for a good archive.

    Raises
    ------
    DataError
        When the file cannot be read as an archive at all.
    """
    with open_archive(path) as file:
        require_kind(path, file, DATASET.kind, DATASET.version, ": prepare it again")
        faults = tuple(find_faults(file, DATASET))
        # The rules below assume the layout.
        return faults or (*_rule_faults(file), *_pixel_faults(file, advance))


def find_damaged_images(path: Path, advance: Callable[[int], object]) -> Iterator[str]:
    """Yield what is wrong with each image that is not as its digest says.

    Parameters
    ----------
    path
        A dataset archive.
    advance
        Called with the number of images just checked.

    Raises
    ------
    DataError
        When the file cannot be read as an archive at all.
    """
    with open_archive(path) as file:
        yield from _pixel_faults(file, advance)


def _rule_faults(file: h5py.File) -> Iterator[str]:
    images, pids, camids = file["images"], file["pid"][...], file["camid"][...]
    paths = [value.decode() for value in file["path"][...]]
    splits: _Splits = {
        number: {role: indices[...] for role, indices in group.items()}
        for number, group in file.get("splits", {}).items()
    }
    if images.id.get_offset() is None:
        yield "/images is not in one piece"
    if images.shape[1:3] != (file.attrs["image_height"], file.attrs["image_width"]):
        yield f"/images has shape {images.shape}, other than image_height and image_width"
    if not len(set(paths)) == len(paths) > 0:
        yield "/path is empty, or names an image twice"
    if (pids < -1).any() or (camids < 0).any():
        yield "/pid holds numbers below -1, or /camid below 0"
    if source_digest(paths, file["source_sha256"][...]) != plain(file.attrs["source_digest"]):
        yield "source_digest is not that of /path and /source_sha256"
    if file.attrs.get("skipped_files", len(file["skipped"])) != len(file["skipped"]):
        yield "skipped_files is not the length of /skipped"
    if set(splits) != {str(number) for number in range(max(1, len(splits)))}:
        yield f"/splits holds {sorted(splits)}, expected 0, 1, …"
        return
    yield from tuple(_split_faults(splits, pids)) or _count_faults(file, splits["0"], pids, camids)


def _split_faults(splits: _Splits, pids: NDArray[np.int32]) -> Iterator[str]:
    used = np.zeros(len(pids), np.bool_)
    for number, split in splits.items():
        for role, indices in split.items():
            name = f"/splits/{number}/{role}"
            if len(indices) and not 0 <= indices.min() <= indices.max() < len(pids):
                yield f"{name} points outside of the {counted(len(pids), 'image')}"
                return
            if (np.diff(indices) <= 0).any():
                yield f"{name} is not sorted, or names an image twice"
            used[indices] = True
        for one, other in combinations(split, 2):
            if len(np.intersect1d(split[one], split[other])):
                yield f"/splits/{number}: {one} and {other} share images"
        tested = [split[role] for role in _TESTED if role in split]
        if SplitRole.TRAIN in split and tested:
            shared = np.intersect1d(pids[split[SplitRole.TRAIN]], pids[np.concatenate(tested)])
            if len(shared):
                yield (
                    f"/splits/{number}: {counted(len(shared), 'person is', 'people are')} both in "
                    "training and in test"
                )
    if not used.all():
        yield f"{counted(int((~used).sum()), 'image is', 'images are')} in no split"


def _count_faults(
    file: h5py.File, split: dict[str, NDArray[np.int64]], pids: NDArray[np.int32], camids: NDArray[np.int32]
) -> Iterator[str]:
    """Compare those counts that the attributes hold with the first split."""
    counts = {"cameras": len(np.unique(camids[np.concatenate(list(split.values()))]))}
    for role, indices in split.items():
        prefix = "" if role == SplitRole.PUBLIC else f"{role}_"
        counts[f"{prefix}images"] = len(indices)
        counts[f"{prefix}identities"] = len(np.unique(pids[indices]))
    for name, found in counts.items():
        if file.attrs.get(name, found) != found:
            yield f"attribute {name} is {file.attrs[name]}, but split 0 has {found}"


def _pixel_faults(file: h5py.File, advance: Callable[[int], object]) -> Iterator[str]:
    images, expected = file["images"], file["pixel_sha256"][...]
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        for index, image in enumerate(block, start):
            if hashlib.sha256(image.tobytes()).digest() != expected[index].tobytes():
                yield f"image {index} ({file['path'][index].decode()}) has other pixels than were written"
        advance(len(block))
