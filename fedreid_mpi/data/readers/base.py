"""What the readers share: the record of an image, listing a folder, and matching names in full."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
"""What counts as an image file; compared in lower case."""


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
class Reader:
    """How one dataset is read.

    Attributes
    ----------
    name
        Name of the dataset on the command line and in its archive.
    folder
        Where the original layout lies under a root that holds several datasets.
    layout
        Variant of the layout that is read.
    expected
        Published counts, by the keys of `fedreid_mpi.data.checks.count`.
    read
        Lists the images of a folder, given the seed of its split; in any order.
    seeded
        Keys of ``expected`` that depend on the seed of the split, and so can only hold about.
    """

    name: str
    folder: str
    layout: str
    expected: Mapping[str, int]
    read: Callable[[Path, int], list[Record]]
    seeded: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Keep the table of counts from being changed."""
        object.__setattr__(self, "expected", MappingProxyType(dict(self.expected)))


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


def list_folder(root: Path, folder: str) -> list[Path]:
    """List what is in a folder, sorted by name, without hidden files and macOS archive litter.

    Parameters
    ----------
    root
        The dataset's folder.
    folder
        Relative to ``root``; ``"."`` for itself.

    Raises
    ------
    DataError
        When there is no such folder, or it cannot be read.
    """
    path = root / folder
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]


def list_images(root: Path, folder: str) -> list[str]:
    """List the names of the image files in a folder, sorted.

    Raises
    ------
    DataError
        When there is no such folder, or no image in it.
    """
    names = [
        entry.name
        for entry in list_folder(root, folder)
        if entry.suffix.lower() in EXTENSIONS and entry.is_file()
    ]
    if not names:
        raise DataError(f"{root / folder}: holds no images, expected {', '.join(sorted(EXTENSIONS))} files")
    return names


def match_names(
    where: Path, names: Iterable[str], pattern: re.Pattern[str]
) -> list[tuple[str, re.Match[str]]]:
    """Match every name in full; the extension in any case, the rest as written.

    Parameters
    ----------
    where
        Folder or list file that the names come from, for the message.
    names
        File names or relative paths.
    pattern
        With named groups, for names with a lower-case extension.

    Returns
    -------
    list of (str, re.Match)
        Each name as written, and its match; in the order of ``names``.

    Raises
    ------
    DataError
        Naming the first few names that do not match, their number, and the pattern.
    """
    matches: list[tuple[str, re.Match[str]]] = []
    strangers: list[str] = []
    for name in names:
        stem, dot, extension = name.rpartition(".")
        match = pattern.fullmatch(stem + dot + extension.lower())
        if match is None:
            strangers.append(name)
        else:
            matches.append((name, match))
    if strangers:
        raise DataError(
            f"{where}: {len(strangers)} of {len(strangers) + len(matches)} images are named otherwise: "
            f"{few(strangers)}; expected {pattern.pattern}"
        )
    return matches


def match_folder(root: Path, folder: str, pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    """List a folder's images and match their names; see `list_images` and `match_names`.

    Returns
    -------
    list of (str, re.Match)
        Each image's path relative to ``root``, and its match; sorted.
    """
    prefix = "" if folder == "." else folder + "/"
    matches = match_names(root / folder, list_images(root, folder), pattern)
    return [(prefix + name, match) for name, match in matches]


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


def few(names: Iterable[object], limit: int = 3) -> str:
    """Quote the first few names, for a message."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:limit]) + (", …" if len(quoted) > limit else "")
