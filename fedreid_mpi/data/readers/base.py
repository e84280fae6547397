"""What all readers share: what a reader is, what it lists, and how it recognises a folder."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.names import image_names, is_there, match_folder, match_name, words

BENCHMARK = "benchmark"
"""Name of the split that the federated benchmark uses."""


class About(int):
    """A published count that depends on a random draw: another draw gives another count."""


Load = Callable[[str], bytes | NDArray[np.uint8]]
"""From the path of an image to the bytes of its file, or its pixels: shape (rows, columns, 3), RGB.

Called from several threads at once. Raises `DataError` if the image cannot be read.
"""


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One image of a dataset.

    Attributes
    ----------
    path
        Relative to the dataset's folder, with forward slashes.
    pid
        Person. The same number in training and test never means the same person, except for junk (-1) and
        distractors (0) in Market-1501.
    camid
        Camera, real or simulated.
    role
        What the image is for.
    """

    path: str
    pid: int
    camid: int
    role: SplitRole


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user may choose about how a dataset is split.

    Attributes
    ----------
    seed
        Of the splits and simulated cameras that are drawn.
    training
        Whether validation images, if a dataset has some, are trained on as well.
    splits
        Name of the splits: ``"benchmark"``, the single split of the federated benchmark, or another that the
        variant offers. A variant without a benchmark split uses its first splits instead.
    split_file
        A file of splits that the user has.
    """

    seed: int = 0
    training: Literal["trainval", "train"] = "trainval"
    splits: str = BENCHMARK
    split_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reader returns.

    Attributes
    ----------
    splits
        The images of each split, in any order. An image has the same person and camera in all of them.
    drawn
        Whether anything depended on the seed.
    notes
        What the user should know.
    load
        Loads an image by its path, if images are not files in the dataset's folder.
    whole
        Counts of everything in the folder, whatever is drawn from it, by the keys of `Variant.whole`.
    reach
        For each count that depends on a draw, the smallest and the largest value that these images allow.
    """

    splits: tuple[tuple[Record, ...], ...]
    drawn: bool = False
    notes: tuple[str, ...] = ()
    load: Load | None = None
    whole: Mapping[str, int] = field(default_factory=dict)
    reach: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """One form in which a dataset is distributed.

    Attributes
    ----------
    name
        As stored in the archive, and accepted by ``--variant``.
    looks_for
        What the variant is recognised by, for the message if no variant fits.
    recognise
        Returns why a folder is of this variant, or None. It looks at names only, and must not fail.
    read
        Lists the images of a folder.
    splits
        Name accepted by ``--splits`` to the published counts of its first split, by the keys of
        `fedreid_mpi.data.checks.count`; ``"benchmark"`` comes first if it is offered. Counts that depend on a
        draw are `About`.
    whole
        Published counts of everything in the folder, by any keys.
    levels
        Folders below the given one in which this variant may be found as well; tried in order.
    train_only
        Counts that replace those above with ``--training train``; None for unpublished ones. Itself None if
        the variant has no such choice.
    split_file
        What ``--split-file`` may name, e.g. ``"split.json"``; empty if it takes none.
    if_alone
        Whether it is chosen only if no other variant fits, or if it is asked for.
    """

    name: str
    looks_for: str
    recognise: Callable[[Path], str | None]
    read: Callable[[Path, Choices], Listing]
    splits: Mapping[str, Mapping[str, int]]
    whole: Mapping[str, int] = field(default_factory=dict)
    levels: tuple[str, ...] = (".",)
    train_only: Mapping[str, int | None] | None = None
    split_file: str = ""
    if_alone: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """How one dataset is read.

    Attributes
    ----------
    name
        Name of the dataset on the command line and in its archive.
    folders
        Names by which its folder is known, that of the original release first. Capitals, hyphens and the like
        do not matter.
    variants
        Tried in order; the first that recognises a folder is used.
    """

    name: str
    folders: tuple[str, ...]
    variants: tuple[Variant, ...]


def holds(*names: str) -> Callable[[Path], str | None]:
    """Return a `Variant.recognise` that requires all of these files or folders."""

    def recognise(root: Path) -> str | None:
        return f"it holds {words(names)}" if all(is_there(root / name) for name in names) else None

    return recognise


def holds_names(pattern: re.Pattern[str], folder: str = ".") -> Callable[[Path], str | None]:
    """Return a `Variant.recognise` that requires an image whose name matches."""

    def recognise(root: Path) -> str | None:
        names = image_names(root / folder)
        found = next((name for name in names if match_name(name, pattern)), None)
        return None if found is None else f"it holds images with names like {found}"

    return recognise


def client_counts(
    *,
    cameras: int,
    train: tuple[int, int],
    query: tuple[int, int],
    gallery: int,
) -> dict[str, int]:
    """Return the published counts of a client's dataset, by name.

    Parameters
    ----------
    cameras
        Number of cameras.
    train, query
        Number of identities, and of images.
    gallery
        Number of images.
    """
    return {
        "cameras": cameras,
        "train_identities": train[0],
        "train_images": train[1],
        "query_identities": query[0],
        "query_images": query[1],
        "gallery_images": gallery,
    }


def about(counts: Mapping[str, int], *keys: str) -> dict[str, int]:
    """Mark the counts under ``keys`` as depending on a draw."""
    return {key: About(number) if key in keys else number for key, number in counts.items()}


def read_folders(root: Path, folders: Iterable[tuple[str, SplitRole, re.Pattern[str]]]) -> list[Record]:
    """Read a dataset whose folders are the split, and whose image names contain ``pid`` and ``cam``.

    Parameters
    ----------
    root
        The dataset's folder.
    folders
        Folder relative to ``root``, what its images are for, and the pattern of their names.
    """
    return [
        Record(path, int(match["pid"]), int(match["cam"]), role)
        for folder, role, pattern in folders
        for path, match in match_folder(root, folder, pattern)
    ]


def separate_people(records: Iterable[Record]) -> list[Record]:
    """Renumber the people of the test set above those of training, if both are numbered from the start."""
    records = list(records)
    first = 1 + max((record.pid for record in records if record.role == SplitRole.TRAIN), default=-1)
    return [
        record if record.role == SplitRole.TRAIN else replace(record, pid=first + record.pid)
        for record in records
    ]


def for_queries(images: Iterable[Record], records: Iterable[Record]) -> list[Record]:
    """Return those multi-query ``images`` that show a query's person in the query's camera.

    The others, such as those of people who are trained on, belong to no query.
    """
    asked = {(record.pid, record.camid) for record in records if record.role == SplitRole.QUERY}
    return [image for image in images if (image.pid, image.camid) in asked]
