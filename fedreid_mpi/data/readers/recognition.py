"""Telling which variant of a dataset a folder is, and finding the folders under a common root."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.data.readers.base import Choices, Reader, Variant
from fedreid_mpi.data.readers.names import folders_in, is_there
from fedreid_mpi.errors import ConfigurationError, DataError

NESTED = 2
"""How often a dataset's folder may be nested in one of the same name, as unpacking makes it."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A variant of a dataset, found.

    Attributes
    ----------
    variant
        That the folder is.
    folder
        Where it is: the given folder, or one below it.
    reason
        Why this variant was taken, for the user.
    """

    variant: Variant
    folder: Path
    reason: str


def recognise(reader: Reader, root: Path, wanted: str | None = None) -> Recognised:
    """Recognise which variant of a dataset a folder, or a file, is.

    Parameters
    ----------
    reader
        Of the dataset.
    root
        The folder, or the one above it; or the file.
    wanted
        Name of the variant to take, whatever the folder looks like.

    Raises
    ------
    DataError
        When there is nothing, no variant recognises it, or it holds the dataset twice.
    ConfigurationError
        When the dataset has no variant of that name.
    """
    if not is_there(root):
        raise DataError(f"{root}: no such file or folder")
    variants = [variant for variant in reader.variants if wanted in (None, variant.name)]
    if not variants:
        names = ", ".join(variant.name for variant in reader.variants)
        raise ConfigurationError(f"--variant {wanted}: {reader.name} has no such variant, expected {names}")
    if places := _places(reader, variants, root):
        return _choose(reader, places)
    if wanted is not None:
        return Recognised(variants[0], root, "it was asked for")
    known = "; ".join(f"{variant.name} ({variant.looks_for})" for variant in reader.variants)
    raise DataError(f"{root}: not recognised as {reader.name}, expected {known}")


def find_dataset(reader: Reader, root: Path) -> Path | None:
    """Find a dataset's folder under a root that holds several: one that is recognised, else by its name.

    Raises
    ------
    DataError
        When several are recognised.
    """
    named = _known_folders(reader, root)
    places = [place for folder in named for place in _places(reader, reader.variants, folder)]
    if places:
        return root / _choose(reader, places).folder.relative_to(root).parts[0]
    return named[0] if named else None


def is_known_as(reader: Reader, name: str) -> bool:
    """Whether a dataset is known to come in a folder of that name, however it is written."""
    return _plain(name) in {_plain(folder.split("/")[0]) for folder in reader.folders}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _known_folders(reader: Reader, root: Path) -> list[Path]:
    return [folder for folder in folders_in(root) if is_known_as(reader, folder.name)]


def _places(reader: Reader, variants: Sequence[Variant], root: Path, depth: int = NESTED) -> list[Recognised]:
    """List the variants that a folder is, or those below it that have one of the dataset's names, are."""
    found: list[Recognised] = []
    for variant in variants:
        folders = (root / level for level in variant.levels)
        reasons = ((folder, variant.recognise(folder)) for folder in folders)
        found += [Recognised(variant, folder, reason) for folder, reason in reasons if reason][:1]
    if found or depth == 0:
        return found
    inner = _known_folders(reader, root)
    return [place for folder in inner for place in _places(reader, variants, folder, depth - 1)]


def _choose(reader: Reader, places: Sequence[Recognised]) -> Recognised:
    """Take the first variant of those found, unless another is next to it: one inside the other is its copy.

    Raises
    ------
    DataError
        Saying where they lie and how to choose.
    """
    ranked = sorted(places, key=lambda place: (place.variant.if_alone, reader.variants.index(place.variant)))
    first = ranked[0]
    for other in ranked[1:]:
        one, two = first.folder.resolve(), other.folder.resolve()
        nested = one == two or one in two.parents or two in one.parents
        if other.variant.if_alone == first.variant.if_alone and not nested:
            raise DataError(
                f"{reader.name} is there twice: {first.folder} is variant {first.variant.name}, "
                f"{other.folder} variant {other.variant.name}; name the right folder with --dataset "
                f"{reader.name}, or move the other away"
            )
    return first


def require_sense(name: str, variant: Variant, choices: Choices) -> None:
    """Refuse choices that mean nothing for a variant.

    Raises
    ------
    ConfigurationError
        Naming the choice and what there is to choose.
    """
    what = f"{name}, variant {variant.name}"
    if choices.splits not in variant.splits:
        offered = ", ".join(variant.splits)
        raise ConfigurationError(f"--splits {choices.splits}: not offered for {what}, expected {offered}")
    if choices.training == "train" and variant.train_only is None:
        raise ConfigurationError(f"--training train: {what}, sets no validation images apart")
    if choices.split_file is not None and not variant.split_file:
        raise ConfigurationError(f"--split-file {choices.split_file}: {what}, takes no file of splits")
