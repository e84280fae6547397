"""Telling which variant of a dataset a folder is, and finding the folders under a common root."""

from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.data.readers.base import Choices, Reader, Variant
from fedreid_mpi.data.readers.names import is_there
from fedreid_mpi.errors import ConfigurationError, DataError


@dataclass(frozen=True, slots=True)
class Recognised:
    """A variant of a dataset, found.

    Attributes
    ----------
    variant
        That the folder is.
    folder
        Where it lies: the given folder, or one below it.
    reason
        Why this variant was taken, for the user.
    """

    variant: Variant
    folder: Path
    reason: str


def recognise(reader: Reader, root: Path, wanted: str | None = None) -> Recognised:
    """Tell which variant of a dataset a folder, or a file, is.

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
        When there is nothing, or no variant recognises it.
    ConfigurationError
        When the dataset has no variant of that name.
    """
    if not is_there(root):
        raise DataError(f"{root}: no such file or folder")
    variants = [variant for variant in reader.variants if wanted in (None, variant.name)]
    if not variants:
        names = ", ".join(variant.name for variant in reader.variants)
        raise ConfigurationError(f"--variant {wanted}: {reader.name} has no such variant, expected {names}")
    for variant in variants:
        for level in variant.levels:
            folder = root / level
            if reason := variant.recognise(folder):
                return Recognised(variant, folder, reason)
    if wanted is not None:
        return Recognised(variants[0], root, "it was asked for")
    known = "; ".join(f"{variant.name} ({variant.looks_for})" for variant in reader.variants)
    raise DataError(f"{root}: not recognised as {reader.name}, expected {known}")


def find_dataset(reader: Reader, root: Path) -> Path | None:
    """Find a dataset's folder under a root that holds several; prefer one that is recognised."""
    folders = [root / folder for folder in reader.folders if is_there(root / folder)]
    for folder in folders:
        if any(variant.recognise(folder / level) for variant in reader.variants for level in variant.levels):
            return folder
    return folders[0] if folders else None


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
