"""CUHK01: two cameras with two images of each person, no official split.

Li et al., Human Reidentification with Transferred Metric Learning, ACCV 2012. Images 1 and 2 are from one
camera, 3 and 4 from the other. Half of the people are trained on.
"""

import re
from pathlib import Path

from fedreid_mpi.data.readers.base import Reader, Record, client_counts, match_folder
from fedreid_mpi.data.splits import generator, role_of, sample_half

NAME = re.compile(r"(?P<pid>\d{4})(?P<image>00[1-4])\.png", re.ASCII)


def read(root: Path, seed: int) -> list[Record]:
    """Read the one folder and draw the split."""
    images = [
        (path, int(match["pid"]), (int(match["image"]) - 1) // 2)
        for path, match in match_folder(root, ".", NAME)
    ]
    training = sample_half((pid for _, pid, _ in images), generator(seed, "cuhk01", "identities"))
    return [Record(path, pid, camid, role_of(pid, camid, training)) for path, pid, camid in images]


READER = Reader(
    name="cuhk01",
    folder="CUHK01/campus",
    layout="original",
    expected=client_counts(cameras=2, train=(485, 1_940), query=(486, 972), gallery=972),
    read=read,
)
