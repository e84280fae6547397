"""What must hold of a dataset before it is worth an archive: its counts, its matches, its splits."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers import Choices, Listing, Record, Variant
from fedreid_mpi.data.readers.base import About
from fedreid_mpi.data.readers.names import few
from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.regular import read_text
from fedreid_mpi.wording import counted

TESTED = frozenset({SplitRole.QUERY, SplitRole.GALLERY, SplitRole.MULTI_QUERY})
"""Roles whose people must not be trained on."""

IMAGES = ("train_images", "query_images", "gallery_images")
"""Keys of the counts that add up to all images, where a split leaves none out."""

COUNTS_FILE = "counts.json"
"""A dataset's folder may hold a file of its own counts, which then replace the published ones."""


@dataclass(frozen=True, slots=True)
class Count:
    """One count of a dataset, found and expected.

    Attributes
    ----------
    key
        What is counted.
    found
        In the folder.
    expected
        None where nothing is said of it.
    reach
        Where ``expected`` holds for one draw only: the least and the most that a draw from these images can
        give.
    """

    key: str
    found: int
    expected: int | None
    reach: tuple[int, int] | None = None

    @property
    def differs(self) -> bool:
        """Whether this is not the dataset that was expected."""
        least, most = self.reach or (self.found, self.found)
        return self.expected is not None and not least <= self.expected <= most

    def __str__(self) -> str:
        """Describe what was found and what was expected."""
        if self.reach is None:
            return f"{self.found} {self.key} instead of {self.expected}"
        least, most = self.reach
        return f"{self.found} {self.key}, by any draw {least} to {most}, instead of about {self.expected}"


def count(records: Sequence[Record]) -> dict[str, int]:
    """Count a dataset.

    Parameters
    ----------
    records
        All its images.

    Returns
    -------
    dict
        ``cameras``, ``train_identities``, ``train_images``, ``query_identities``, ``query_images``,
        ``gallery_images`` and, where there are any, ``multi_query_images``; or of the public dataset
        ``cameras``, ``identities`` and ``images``.
    """
    images = Counter(record.role for record in records)
    cameras = len({record.camid for record in records})

    def identities(role: SplitRole) -> int:
        return len({record.pid for record in records if record.role == role})

    if SplitRole.PUBLIC in images:
        return {
            "cameras": cameras,
            "identities": identities(SplitRole.PUBLIC),
            "images": images[SplitRole.PUBLIC],
        }
    multi_query = {"multi_query_images": images[SplitRole.MULTI_QUERY]}
    return {
        "cameras": cameras,
        "train_identities": identities(SplitRole.TRAIN),
        "train_images": images[SplitRole.TRAIN],
        "query_identities": identities(SplitRole.QUERY),
        "query_images": images[SplitRole.QUERY],
        "gallery_images": images[SplitRole.GALLERY],
        **(multi_query if SplitRole.MULTI_QUERY in images else {}),
    }


def compare_counts(
    variant: Variant, choices: Choices, root: Path, listing: Listing
) -> tuple[tuple[Count, ...], tuple[Count, ...]]:
    """Compare a dataset's counts with those of its `COUNTS_FILE`, or with the published ones.

    Of its first split the file speaks only as far as that is the one taken by default, the benchmark's where
    there is one, with the whole training set; everything in the folder is compared whatever was chosen.

    Returns
    -------
    tuple of tuple of Count
        Those of the first split, and those that no draw changes.

    Raises
    ------
    DataError
        When the file of counts cannot be understood.
    """
    published: Mapping[str, int | None] = variant.splits[choices.splits]
    whole: Mapping[str, int | None] = variant.whole
    path = root / COUNTS_FILE
    if path.exists():
        declared = _read_counts(
            path, {key for counts in variant.splits.values() for key in counts} | {*whole}
        )
        whole = {key: declared.get(key) for key in whole}
        if "images" in whole and whole["images"] is None and {*IMAGES} <= {*declared}:
            whole = {**whole, "images": sum(declared[key] for key in IMAGES)}
        default = choices.splits == next(iter(variant.splits)) and choices.training == "trainval"
        expected: Mapping[str, int | None] = declared if default else {}
    else:
        other = (variant.train_only or {}) if choices.training == "train" else {}
        expected = {**published, **other}
    return (
        tuple(
            Count(key, found, expected.get(key), _reach(key, published, listing))
            for key, found in count(listing.splits[0]).items()
        ),
        tuple(Count(key, found, whole.get(key)) for key, found in listing.whole.items()),
    )


def _reach(key: str, published: Mapping[str, int | None], listing: Listing) -> tuple[int, int] | None:
    return listing.reach.get(key) if isinstance(published.get(key), About) else None


def _read_counts(path: Path, known: Iterable[str]) -> Mapping[str, int]:
    try:
        counts = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    keys = sorted(known)
    if not isinstance(counts, dict) or not all(
        key in keys and type(value) is int for key, value in counts.items()
    ):
        raise DataError(
            f"{path}: found {str(counts)[:80]}, expected whole numbers for some of {', '.join(keys)}"
        )
    return counts


def check_split(root: Path, records: Sequence[Record]) -> None:
    """Refuse a split whose training and test sets touch.

    Raises
    ------
    DataError
        When a file is used twice, or a person is trained on and tested.
    """
    uses = Counter(record.path for record in records)
    if repeated := sorted(path for path, number in uses.items() if number > 1):
        raise DataError(
            f"{root}: {counted(len(repeated), 'image is', 'images are')} in more than one split: "
            f"{few(repeated)}"
        )
    trained = {record.pid for record in records if record.role == SplitRole.TRAIN}
    tested = {record.pid for record in records if record.role in TESTED}
    if both := sorted(trained & tested):
        raise DataError(
            f"{root}: {counted(len(both), 'person is', 'people are')} both in training and in "
            f"test: {few(both)}"
        )


def find_duplicates(digests: Mapping[str, bytes], splits: Iterable[Sequence[Record]]) -> list[list[str]]:
    """Find images whose files have the same content.

    Boxes for multi-query scoring repeat queries by design, and so do not count.

    Parameters
    ----------
    digests
        Path to the digest of the file.
    splits
        What the images are for.

    Returns
    -------
    list of list of str
        Paths of the same content, sorted; at least two in each list.
    """
    same: defaultdict[bytes, list[str]] = defaultdict(list)
    used = {r.path for records in splits for r in records if r.role != SplitRole.MULTI_QUERY}
    for path in sorted(used.intersection(digests)):
        same[digests[path]].append(path)
    return [paths for paths in same.values() if len(paths) > 1]


def describe_duplicates(groups: Sequence[Sequence[str]], splits: Iterable[Sequence[Record]]) -> list[str]:
    """Describe in a note which images repeat others, and in another how many are trained on and tested."""
    if not groups:
        return []
    repeats = sum(len(paths) - 1 for paths in groups)
    notes = [
        f"{counted(repeats, 'image repeats', 'images repeat')} the content of others: "
        f"{few([' = '.join(paths) for paths in groups])}"
    ]
    uses = [{record.path: record.role == SplitRole.TRAIN for record in records} for records in splits]
    leaks = [paths for paths in groups if any(len({use[p] for p in paths if p in use}) > 1 for use in uses)]
    if leaks:
        notes.append(
            f"{counted(len(leaks), 'content is', 'contents are')} in training and in test: "
            f"{few(paths[0] for paths in leaks)}"
        )
    return notes


def unmatched_queries(records: Sequence[Record]) -> list[str]:
    """Return the paths of queries whose person no other camera shows in the gallery."""
    seen: defaultdict[int, set[int]] = defaultdict(set)
    for record in records:
        if record.role == SplitRole.GALLERY:
            seen[record.pid].add(record.camid)
    return [
        record.path
        for record in records
        if record.role == SplitRole.QUERY and not seen.get(record.pid, set()) - {record.camid}
    ]
