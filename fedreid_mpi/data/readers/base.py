"""What the readers share: what a reader is, what it lists, and how it recognises a folder."""

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
    """A count that is right for one draw; others give others."""


Load = Callable[[str], bytes | NDArray[np.uint8]]
"""Takes the path of an image; returns the bytes of its file, or its pixels (rows, columns, 3) as RGB.

Called in several threads at once. Raises `DataError` where nothing can be read.
"""


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One image of a dataset.

    Attributes
    ----------
    path
        Relative to the dataset's folder, with forward slashes.
    pid
        Person. The same number in training and test never means the same person, except where it says junk
        (-1) or distractor (0) in Market-1501.
    camid
        Camera, real or pseudo.
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
        Of splits and pseudo cameras that are drawn.
    training
        Whether validation images, where a dataset sets some apart, are trained on as well.
    splits
        Name of the splits: ``"benchmark"``, the federated benchmark's one split, or another that the variant
        offers. Where a variant has nothing to do with the benchmark, its first are taken instead.
    split_file
        A file of splits that the user holds.
    """

    seed: int = 0
    training: Literal["trainval", "train"] = "trainval"
    splits: str = BENCHMARK
    split_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reader lists.

    Attributes
    ----------
    splits
        The images of each split, in any order. An image has the same person and camera in all of them.
    drawn
        Whether the seed decided anything.
    notes
        What the user should know.
    load
        Gets an image by its path, where images are no files in the dataset's folder.
    whole
        Counts of all that lies in the folder, whatever is drawn from it, by the keys of `Variant.whole`.
    reach
        The least and the most that a draw from these images can give, for each count that is drawn.
    """

    splits: tuple[tuple[Record, ...], ...]
    drawn: bool = False
    notes: tuple[str, ...] = ()
    load: Load | None = None
    whole: Mapping[str, int] = field(default_factory=dict)
    reach: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way in which a dataset comes.

    Attributes
    ----------
    name
        As stored in the archive and accepted by ``--variant``.
    looks_for
        What tells the variant, for the message when no variant fits.
    recognise
        Says why a folder is of this variant, or returns None. It looks at names only, and must not fail.
    read
        Lists the images of a folder.
    splits
        Names accepted by ``--splits``, ``"benchmark"`` first where it is offered, to the published counts of
        the first such split, by the keys of `fedreid_mpi.data.checks.count`; those that are drawn as `About`.
    whole
        Published counts of all that lies in the folder, by any keys.
    levels
        Folders below the given one in which this variant may lie as well; tried in order.
    train_only
        Counts that hold instead with ``--training train``, None for those that nobody published. Itself None
        where the choice means nothing.
    split_file
        What ``--split-file`` may name, e.g. ``"split.json"``; empty where that means nothing.
    if_alone
        Whether it is taken only where no other variant is beside it, or where it is asked for.
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
        Names by which its folder is known, the original's place first. How they are written does not matter:
        capitals, hyphens and the like are passed over.
    variants
        Tried in order; the first that recognises a folder is taken.
    """

    name: str
    folders: tuple[str, ...]
    variants: tuple[Variant, ...]


def holds(*names: str) -> Callable[[Path], str | None]:
    """Return a `Variant.recognise` that wants all of these files or folders, and says so."""

    def recognise(root: Path) -> str | None:
        return f"it holds {words(names)}" if all(is_there(root / name) for name in names) else None

    return recognise


def holds_names(pattern: re.Pattern[str], folder: str = ".") -> Callable[[Path], str | None]:
    """Return a `Variant.recognise` that wants an image named so, and says which."""

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
    """Name the published counts of a client's dataset.

    Parameters
    ----------
    cameras
        Number of cameras.
    train, query
        Identities and images.
    gallery
        Images.
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
    """Mark the counts under ``keys`` as drawn."""
    return {key: About(number) if key in keys else number for key, number in counts.items()}


def read_folders(root: Path, folders: Iterable[tuple[str, SplitRole, re.Pattern[str]]]) -> list[Record]:
    """Read a dataset whose split is in its folders and whose names tell ``pid`` and ``cam``.

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
    """Give the people of the test set numbers above those of training, where both start at the same."""
    records = list(records)
    first = 1 + max((record.pid for record in records if record.role == SplitRole.TRAIN), default=-1)
    return [
        record if record.role == SplitRole.TRAIN else replace(record, pid=first + record.pid)
        for record in records
    ]


def for_queries(images: Iterable[Record], records: Iterable[Record]) -> list[Record]:
    """Return those of the multi-query ``images`` that show the person of a query in the query's camera.

    The others, such as people who are trained on, serve no query.
    """
    asked = {(record.pid, record.camid) for record in records if record.role == SplitRole.QUERY}
    return [image for image in images if (image.pid, image.camid) in asked]
