"""Market-1501: six cameras, the split in the folders.

Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015. The gallery holds junk (pid -1:
neither right nor wrong for any query) and distractors (pid 0: wrong for every query), which are kept as such.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Reader, Record, client_counts, read_folders

_REST = r"_c(?P<cam>[1-6])s[1-6]_\d{6}_\d{2}\.jpg"
PERSON = re.compile(r"(?P<pid>(?!0000)\d{4})" + _REST, re.ASCII)
ANYTHING = re.compile(r"(?P<pid>-1|\d{4})" + _REST, re.ASCII)

FOLDERS = (
    ("bounding_box_train", SplitRole.TRAIN, PERSON),
    ("query", SplitRole.QUERY, PERSON),
    ("bounding_box_test", SplitRole.GALLERY, ANYTHING),
)


def read(root: Path, seed: int) -> list[Record]:
    """Read the three folders."""
    return read_folders(root, FOLDERS)


READER = Reader(
    name="market1501",
    folder="Market-1501-v15.09.15",
    layout="original",
    expected=client_counts(cameras=6, train=(751, 12_936), query=(750, 3_368), gallery=19_732),
    read=read,
)
