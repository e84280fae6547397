"""Listing folders and matching names in full: nothing is skipped silently."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedreid_mpi.errors import DataError
from fedreid_mpi.wording import counted

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
"""What counts as an image file; compared in lower case."""


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; False, not an error, below a folder without permission."""
    try:
        return path.exists()
    except OSError:
        return False


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
        If there is no such folder, it cannot be read, a link in it is broken, or a name is not UTF-8.
    """
    path = root / folder
    try:
        with os.scandir(path) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
            dangling = sorted(
                each.name for each in kept if each.is_symlink() and not Path(each.path).exists()
            )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such folder") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if dangling:
        raise DataError(
            f"{path}: {counted(len(dangling), 'link leads', 'links lead')} nowhere: {few(dangling)}"
        )
    names = sorted(entry.name for entry in kept)
    # Bytes that are not UTF-8 reach Python as lone surrogates.
    if foreign := [name for name in names if any("\ud800" <= letter <= "\udfff" for letter in name)]:
        raise DataError(f"{path}: {counted(len(foreign), 'name is', 'names are')} not UTF-8: {few(foreign)}")
    return [path / name for name in names]


def list_images(root: Path, folder: str) -> list[str]:
    """List the names of the image files in a folder, sorted.

    Raises
    ------
    DataError
        As `list_folder`, or if there is no image in the folder.
    """
    entries = list_folder(root, folder)
    try:
        names = [entry.name for entry in entries if _is_image(entry)]
    except OSError as error:
        raise DataError(f"{root / folder}: cannot be read: {error.strerror}") from error
    if not names:
        raise DataError(f"{root / folder}: holds no images, expected {', '.join(sorted(EXTENSIONS))} files")
    return names


def image_names(folder: Path) -> list[str]:
    """List the names of the image files in a folder, sorted; none if there is no such folder.

    Unlike `list_images` it never fails, as `Variant.recognise` requires.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if _is_image(entry))
    except OSError:
        return []


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted, without hidden ones and macOS archive litter; it never fails."""
    try:
        found = [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []
    return sorted(entry for entry in found if not entry.name.startswith(".") and entry.name != "__MACOSX")


def _is_image(entry: Path) -> bool:
    return entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".") and entry.is_file()


def match_name(name: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """Match a name in full, with its extension in lower case."""
    stem, dot, extension = name.rpartition(".")
    return pattern.fullmatch(stem + dot + extension.lower())


def match_names(
    where: Path, names: Iterable[str], pattern: re.Pattern[str]
) -> list[tuple[str, re.Match[str]]]:
    """Match every name as `match_name` does.

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
        match = match_name(name, pattern)
        if match is None:
            strangers.append(name)
        else:
            matches.append((name, match))
    if strangers:
        raise DataError(
            f"{where}: {len(strangers)} of {counted(len(strangers) + len(matches), 'image')} "
            f"{'is' if len(strangers) == 1 else 'are'} named otherwise: "
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


def few(names: Iterable[object], limit: int = 3) -> str:
    """Quote the first few names, for a message."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:limit]) + (", …" if len(quoted) > limit else "")


def words(names: Sequence[str]) -> str:
    """Join names for a sentence: ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
