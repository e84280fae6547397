"""VIPeR: two cameras with one image of each person, no official split.

Gray and Tao, Viewpoint Invariant Pedestrian Recognition with an Ensemble of Localized Features, ECCV 2008.
Half of the people are trained on.
"""

import re
from pathlib import Path

from fedreid_mpi.data.readers.base import Reader, Record, client_counts, match_folder
from fedreid_mpi.data.splits import generator, role_of, sample_half

NAME = re.compile(r"(?P<pid>\d{3})_(0|45|90|135|180)\.bmp", re.ASCII)


def read(root: Path, seed: int) -> list[Record]:
    """Read the two folders and draw the split."""
    images = [
        (path, int(match["pid"]), camid)
        for camid, folder in enumerate(("cam_a", "cam_b"))
        for path, match in match_folder(root, folder, NAME)
    ]
    training = sample_half((pid for _, pid, _ in images), generator(seed, "viper", "identities"))
    return [Record(path, pid, camid, role_of(pid, camid, training)) for path, pid, camid in images]


READER = Reader(
    name="viper",
    folder="VIPeR",
    layout="original",
    expected=client_counts(cameras=2, train=(316, 632), query=(316, 316), gallery=316),
    read=read,
)
