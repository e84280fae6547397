"""i-LIDS, the still images (not the video set iLIDS-VID): no cameras, no official split.

Zheng et al., Associating Groups of People, BMVC 2009. The federated benchmark's client "iLIDS-VID" is this
set: 119 people, 476 images. As in the DGD scripts, a random half of a person's images makes pseudo camera 0,
the rest pseudo camera 1.
"""

import re
from collections import defaultdict
from pathlib import Path

from fedreid_mpi.data.readers.base import Reader, Record, client_counts, match_folder
from fedreid_mpi.data.splits import generator, role_of, sample_half

NAME = re.compile(r"(?P<pid>\d{4})\d{3}\.jpg", re.ASCII)


def read(root: Path, seed: int) -> list[Record]:
    """Read the one folder; draw pseudo cameras and the split."""
    people: defaultdict[int, list[str]] = defaultdict(list)
    for path, match in match_folder(root, ".", NAME):
        people[int(match["pid"])].append(path)
    training = sample_half(people, generator(seed, "ilids", "identities"))
    records: list[Record] = []
    for pid, paths in people.items():
        first = sample_half(paths, generator(seed, "ilids", f"cameras of {pid}"))
        for path in paths:
            camid = 0 if path in first else 1
            records.append(Record(path, pid, camid, role_of(pid, camid, training)))
    return records


READER = Reader(
    name="ilids",
    folder="i-LIDS_Pedestrian/Persons",
    layout="original",
    expected=client_counts(cameras=2, train=(59, 248), query=(60, 98), gallery=130),
    read=read,
    seeded=frozenset({"train_images", "query_images", "gallery_images"}),
)
