"""From a dataset's folder to its archive: survey it, refuse what is not right, convert the rest."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive import ArchiveContents, write_archive
from fedreid_mpi.data.checks import (
    Count,
    check_split,
    compare_counts,
    count,
    describe_duplicates,
    find_duplicates,
    unmatched_queries,
)
from fedreid_mpi.data.decoding import BrokenImagesError, decode_images
from fedreid_mpi.data.readers import (
    READERS,
    Choices,
    Listing,
    Recognised,
    Record,
    find_dataset,
    is_known_as,
    recognise,
    require_sense,
)
from fedreid_mpi.data.readers.base import BENCHMARK
from fedreid_mpi.data.readers.names import few, folders_in
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import Advance
from fedreid_mpi.storage.regular import read_bytes
from fedreid_mpi.wording import counted


@dataclass(frozen=True, slots=True)
class Options:
    """How archives are made.

    Attributes
    ----------
    height, width
        Size of every image in the archive, in pixels.
    allow_subset
        Accept counts that are not the expected ones, and queries without a match.
    skip_broken
        Leave out images that cannot be decoded.
    jobs
        Number of threads that decode; the archive does not depend on it.
    """

    height: int = 256
    width: int = 128
    allow_subset: bool = False
    skip_broken: bool = False
    jobs: int = 1


class Image(NamedTuple):
    """An image of any split: path relative to the dataset's folder, person and camera."""

    path: str
    pid: int
    camid: int


@dataclass(frozen=True, slots=True)
class Survey:
    """A dataset as listed, before any image is opened.

    Attributes
    ----------
    name
        Of the dataset.
    found
        Its variant, and where it is.
    choices
        What was chosen about its splits.
    listing
        Its images, split by split.
    images
        Those of all splits, each once, sorted by path: the order of the archive.
    counts
        Of the first split, found and expected.
    complaints
        Why this is not the whole dataset; empty where it is.
    """

    name: str
    found: Recognised
    choices: Choices
    listing: Listing
    images: tuple[Image, ...]
    counts: tuple[Count, ...]
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What there is to say about an archive when it is written.

    Attributes
    ----------
    skipped
        Paths of the broken images that were left out.
    notes
        The reader's, and what was noticed in the images.
    """

    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def find_datasets(root: Path) -> dict[str, Path]:
    """Find the datasets that lie under ``root``.

    Returns
    -------
    dict
        Name to folder, in the order of `READERS`.

    Raises
    ------
    DataError
        When there is none, or one is there twice.
    """
    places = {name: find_dataset(reader, root) for name, reader in READERS.items()}
    found = {name: folder for name, folder in places.items() if folder is not None}
    if not found:
        folders = ", ".join(reader.folders[0] for reader in READERS.values() if reader.folders)
        raise DataError(
            f"{root}: {'' if root.is_dir() else 'no such folder, '}expected one of {folders} in it"
        )
    return found


def passed_over(root: Path, found: Mapping[str, Path]) -> dict[Path, str]:
    """Describe which folders under ``root`` are not among those that `find_datasets` found, and why."""
    reasons: dict[Path, str] = {}
    for folder in folders_in(root):
        if folder in found.values():
            continue
        known = [name for name, reader in READERS.items() if is_known_as(reader, folder.name)]
        reasons[folder] = (
            f"{known[0]} is taken from {found[known[0]]}"
            if known
            else "datasets are not known under this name (--dataset prepares any folder)"
        )
    return reasons


def survey(name: str, root: Path, choices: Choices, variant: str | None = None) -> Survey:
    """List a dataset and compare it with what it should be.

    Parameters
    ----------
    name
        Of the dataset.
    root
        Its folder.
    choices
        How it is split.
    variant
        Name of the variant to take; by default it is recognised.

    Raises
    ------
    DataError
        When the folder does not hold the dataset at all, or its training and test sets touch.
    ConfigurationError
        When a choice means nothing for the variant.
    """
    found = recognise(READERS[name], root, variant)
    if choices.splits == BENCHMARK and BENCHMARK not in found.variant.splits:
        choices = replace(choices, splits=next(iter(found.variant.splits)))
    require_sense(name, found.variant, choices)
    listing = found.variant.read(found.folder, choices)
    images = _union(found.folder, listing)
    complaints: list[str] = []
    counts, whole = compare_counts(found.variant, choices, found.folder, listing)
    complaints += [str(each) for each in (*counts, *whole) if each.differs]
    for number, records in enumerate(listing.splits):
        check_split(found.folder, records)
        if unmatched := unmatched_queries(records):
            where = f" of split {number}" if len(listing.splits) > 1 else ""
            complaints.append(
                f"{counted(len(unmatched), 'query', 'queries')}{where} without a match in another "
                f"camera: {few(unmatched)}"
            )
    return Survey(name, found, choices, listing, images, counts, tuple(complaints))


def _union(root: Path, listing: Listing) -> tuple[Image, ...]:
    """Return the images of all splits.

    Raises
    ------
    DataError
        When an image has not the same person and camera everywhere.
    """
    images = {Image(record.path, record.pid, record.camid) for split in listing.splits for record in split}
    ordered = sorted(images)
    if torn := [one.path for one, other in pairwise(ordered) if one.path == other.path]:
        raise DataError(
            f"{root}: {counted(len(torn), 'image is', 'images are')} of several people or "
            f"cameras: {few(torn)}"
        )
    return tuple(ordered)


def require_whole(survey: Survey, options: Options) -> None:
    """Refuse a dataset that is not whole, unless that is allowed.

    Raises
    ------
    DataError
        Naming what was found and what was expected.
    """
    if survey.complaints and not options.allow_subset:
        raise DataError(
            f"{survey.found.folder}: not the whole of {survey.name}: {'; '.join(survey.complaints)} "
            "(--allow-subset accepts it)"
        )


def prepare(survey: Survey, output: Path, options: Options, advance: Advance) -> Written:
    """Write the archive of a surveyed dataset.

    Parameters
    ----------
    survey
        The dataset.
    output
        The archive; one that exists is replaced when the new one is whole.
    options
        How it is made.
    advance
        Called with the number of images just decoded; with a negative one where it starts again.

    Raises
    ------
    DataError
        When the dataset is not whole, or images are broken, and that is not allowed.
    ConfigurationError
        When the archive cannot be written.
    """
    require_whole(survey, options)
    try:
        return _write(survey, (), output, options, advance)
    except BrokenImagesError as error:
        if not options.skip_broken or len(error.paths) == len(survey.images):
            raise
        # The archive's length is fixed before the first image is decoded, so damaged datasets take two turns.
        advance(-len(survey.images))
        return _write(survey, error.paths, output, options, advance)


def _write(
    survey: Survey, skipped: Sequence[str], output: Path, options: Options, advance: Advance
) -> Written:
    broken = set(skipped)
    images = [image for image in survey.images if image.path not in broken]
    paths = [image.path for image in images]
    splits = [[record for record in split if record.path not in broken] for split in survey.listing.splits]
    attributes: dict[str, str | int | bool] = {
        **count(splits[0]),
        "resampling": "bicubic",
        "split_rule": survey.choices.splits,
        "training": survey.choices.training,
        "subset_allowed": options.allow_subset,
        "skipped_files": len(skipped),
    }
    if survey.listing.drawn:
        attributes["split_seed"] = survey.choices.seed
    notes = [*survey.listing.notes, *_notes_of_choices(survey)]
    contents = ArchiveContents(
        name=survey.name,
        layout=survey.found.variant.name,
        height=options.height,
        width=options.width,
        paths=paths,
        pids=[image.pid for image in images],
        camids=[image.camid for image in images],
        splits=[_indices(split, paths) for split in splits],
        attributes=attributes,
        skipped=skipped,
        notes=notes,
    )
    root, load = survey.found.folder, survey.listing.load
    decoded = decode_images(root, paths, options.height, options.width, options.jobs, advance, load, notes)

    def images_then_duplicates() -> Iterator[tuple[NDArray[np.uint8], bytes]]:
        digests: dict[str, bytes] = {}
        for path, (pixels, digest) in zip(paths, decoded, strict=True):
            digests[path] = digest
            yield pixels, digest
        groups = find_duplicates(digests, splits)
        attributes["duplicate_files"] = sum(len(group) - 1 for group in groups)
        notes.extend(describe_duplicates(groups, splits))

    write_archive(output, contents, images_then_duplicates())
    return Written(tuple(skipped), tuple(notes))


def _notes_of_choices(survey: Survey) -> list[str]:
    """Describe what the user accepted, and which file the splits are from."""
    notes = [f"not the whole: {'; '.join(survey.complaints)}"] if survey.complaints else []
    if (file := survey.choices.split_file) is not None:
        notes.append(f"splits from {file.name}, SHA-256 {hashlib.sha256(read_bytes(file)).hexdigest()}")
    return notes


def _indices(records: Iterable[Record], paths: Sequence[str]) -> dict[str, list[int]]:
    """Return the images of each role by their place in the archive."""
    places = {path: index for index, path in enumerate(paths)}
    split: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        split[record.role.value].append(places[record.path])
    return dict(split)
