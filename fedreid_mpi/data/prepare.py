"""From a dataset's folder to its archive: survey it, refuse what is not right, convert the rest."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.data.archive import ArchiveContents, write_archive
from fedreid_mpi.data.checks import Count, check_splits, compare_counts, count, unmatched_queries
from fedreid_mpi.data.decoding import BrokenImagesError, decode_images
from fedreid_mpi.data.readers import READERS, Reader, Record
from fedreid_mpi.data.readers.base import few
from fedreid_mpi.errors import DataError
from fedreid_mpi.types import Advance


@dataclass(frozen=True, slots=True)
class Options:
    """How archives are made.

    Attributes
    ----------
    height, width
        Size of every image in the archive, in pixels.
    split_seed
        Of splits and pseudo cameras, where the original has none.
    allow_subset
        Accept counts that are not the expected ones, and queries without a match.
    skip_broken
        Leave out images that cannot be decoded.
    jobs
        Number of threads that decode; the archive does not depend on it.
    """

    height: int = 256
    width: int = 128
    split_seed: int = 0
    allow_subset: bool = False
    skip_broken: bool = False
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class Survey:
    """A dataset as listed, before any image is opened.

    Attributes
    ----------
    reader
        That listed it.
    root
        The dataset's folder.
    records
        All images, sorted by path: the order of the archive.
    counts
        Found and expected.
    complaints
        Why this is not the whole dataset; empty where it is.
    """

    reader: Reader
    root: Path
    records: tuple[Record, ...]
    counts: tuple[Count, ...]
    complaints: tuple[str, ...]


def find_datasets(root: Path) -> dict[str, Path]:
    """Find the datasets whose original folder lies under ``root``.

    Returns
    -------
    dict
        Name to folder, in the order of `READERS`.

    Raises
    ------
    DataError
        When there is none.
    """
    found = {
        name: root / reader.folder for name, reader in READERS.items() if (root / reader.folder).is_dir()
    }
    if not found:
        folders = ", ".join(reader.folder for reader in READERS.values())
        raise DataError(
            f"{root}: {'' if root.is_dir() else 'no such folder, '}expected one of {folders} in it"
        )
    return found


def survey(name: str, root: Path, split_seed: int) -> Survey:
    """List a dataset and compare it with what it should be.

    Raises
    ------
    DataError
        When the folder does not hold the dataset at all, or its training and test sets touch.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    reader = READERS[name]
    records = tuple(sorted(reader.read(root, split_seed)))
    check_splits(root, records)
    counts = compare_counts(reader, root, records)
    complaints = [f"{c.found} {c.key} instead of {c.expected}" for c in counts if c.differs]
    if unmatched := unmatched_queries(records):
        complaints.append(f"{len(unmatched)} queries without a match in another camera: {few(unmatched)}")
    return Survey(reader, root, records, counts, tuple(complaints))


def require_whole(survey: Survey, options: Options) -> None:
    """Refuse a dataset that is not whole, unless that is allowed.

    Raises
    ------
    DataError
        Naming what was found and what was expected.
    """
    if survey.complaints and not options.allow_subset:
        raise DataError(
            f"{survey.root}: not the whole of {survey.reader.name}: {'; '.join(survey.complaints)} "
            "(--allow-subset accepts it)"
        )


def prepare(survey: Survey, output: Path, options: Options, advance: Advance) -> tuple[str, ...]:
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

    Returns
    -------
    tuple of str
        Paths of the broken images that were left out.

    Raises
    ------
    DataError
        When the dataset is not whole, or images are broken, and that is not allowed.
    ConfigurationError
        When the archive cannot be written.
    """
    require_whole(survey, options)
    try:
        _write(survey, survey.records, (), output, options, advance)
    except BrokenImagesError as error:
        good = [record for record in survey.records if record.path not in set(error.paths)]
        if not options.skip_broken or not good:
            raise
        # The archive's length is fixed before the first image is decoded, so damaged datasets take two turns.
        advance(-len(survey.records))
        _write(survey, good, error.paths, output, options, advance)
        return error.paths
    return ()


def _write(
    survey: Survey,
    records: Sequence[Record],
    skipped: Sequence[str],
    output: Path,
    options: Options,
    advance: Advance,
) -> None:
    split: defaultdict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        split[record.role.value].append(index)
    paths = [record.path for record in records]
    contents = ArchiveContents(
        name=survey.reader.name,
        layout=survey.reader.layout,
        height=options.height,
        width=options.width,
        paths=paths,
        pids=[record.pid for record in records],
        camids=[record.camid for record in records],
        splits=[split],
        attributes={
            **count(records),
            "resampling": "bicubic",
            "split_seed": options.split_seed,
            "subset_allowed": options.allow_subset,
            "skipped_files": len(skipped),
        },
        skipped=skipped,
    )
    images = decode_images(survey.root, paths, options.height, options.width, options.jobs, advance)
    write_archive(output, contents, images)
