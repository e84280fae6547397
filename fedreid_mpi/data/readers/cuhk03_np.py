"""CUHK03 in the new protocol, detected boxes: two cameras, the split in the folders.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. The labelled half of
the dataset tests other people and has a split of its own.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Reader, Record, client_counts, read_folders

# Copies of the folders with JPEG files are about as well.
NAME = re.compile(r"(?P<pid>\d{4})_c(?P<cam>[12])_\d+\.(png|jpg)", re.ASCII)

FOLDERS = (
    ("bounding_box_train", SplitRole.TRAIN, NAME),
    ("query", SplitRole.QUERY, NAME),
    ("bounding_box_test", SplitRole.GALLERY, NAME),
)


def read(root: Path, seed: int) -> list[Record]:
    """Read the three folders."""
    return read_folders(root, FOLDERS)


READER = Reader(
    name="cuhk03-np",
    folder="cuhk03-np/detected",
    layout="detected",
    expected=client_counts(cameras=2, train=(767, 7_365), query=(700, 1_400), gallery=5_332),
    read=read,
)
