"""What must hold of a dataset before it is worth an archive: its counts, its matches, its splits."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers import Reader, Record
from fedreid_mpi.data.readers.base import few
from fedreid_mpi.errors import DataError

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
    about
        Whether ``expected`` depends on the seed of the split, and so holds only about.
    """

    key: str
    found: int
    expected: int | None
    about: bool

    @property
    def differs(self) -> bool:
        """Whether this is not the dataset that was expected."""
        return not self.about and self.expected is not None and self.found != self.expected


def count(records: Sequence[Record]) -> dict[str, int]:
    """Count a dataset.

    Parameters
    ----------
    records
        All its images.

    Returns
    -------
    dict
        ``cameras``, ``train_identities``, ``train_images``, ``query_identities``, ``query_images`` and
        ``gallery_images``; or of the public dataset ``cameras``, ``identities`` and ``images``.
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
    return {
        "cameras": cameras,
        "train_identities": identities(SplitRole.TRAIN),
        "train_images": images[SplitRole.TRAIN],
        "query_identities": identities(SplitRole.QUERY),
        "query_images": images[SplitRole.QUERY],
        "gallery_images": images[SplitRole.GALLERY],
    }


def compare_counts(reader: Reader, root: Path, records: Sequence[Record]) -> tuple[Count, ...]:
    """Compare a dataset's counts with those of its own `COUNTS_FILE`, else with the published ones.

    Raises
    ------
    DataError
        When the file of counts cannot be understood.
    """
    path = root / COUNTS_FILE
    expected = _read_counts(path, reader.expected) if path.exists() else reader.expected
    return tuple(
        Count(key, found, expected.get(key), key in reader.seeded) for key, found in count(records).items()
    )


def _read_counts(path: Path, known: Iterable[str]) -> Mapping[str, int]:
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    keys = sorted(known)
    if not isinstance(counts, dict) or not all(
        key in keys and type(value) is int for key, value in counts.items()
    ):
        raise DataError(
            f"{path}: found {str(counts)[:80]}, expected whole numbers for some of {', '.join(keys)}"
        )
    return counts


def check_splits(root: Path, records: Sequence[Record]) -> None:
    """Refuse a dataset whose training and test sets touch.

    Raises
    ------
    DataError
        When a file is used twice, or a person is trained on and tested.
    """
    uses = Counter(record.path for record in records)
    if repeated := sorted(path for path, number in uses.items() if number > 1):
        raise DataError(f"{root}: {len(repeated)} images are in more than one split: {few(repeated)}")
    trained = {record.pid for record in records if record.role == SplitRole.TRAIN}
    tested = {record.pid for record in records if record.role in (SplitRole.QUERY, SplitRole.GALLERY)}
    if both := sorted(trained & tested):
        raise DataError(f"{root}: {len(both)} people are both in training and in test: {few(both)}")


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
