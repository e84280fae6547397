"""3DPeS, the snapshots: eight cameras that names do not tell, no agreed split.

Baltieri et al., 3DPeS: 3D People Dataset for Surveillance and Forensics, J-HGBU 2011. Names tell the
sequence. As in the DGD scripts, a random half of a person's sequences makes pseudo camera 0, the rest pseudo
camera 1.
"""

import re
from collections import defaultdict
from pathlib import Path

from fedreid_mpi.data.readers.base import Reader, Record, client_counts, match_folder
from fedreid_mpi.data.splits import generator, role_of, sample, sample_half

NAME = re.compile(r"(?P<pid>\d+)_(?P<sequence>\d+)_FRAME_\d+_RGB\.bmp", re.ASCII)


def read(root: Path, seed: int) -> list[Record]:
    """Read the one folder; draw pseudo cameras and the split."""
    people: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for path, match in match_folder(root, ".", NAME):
        people[int(match["pid"])].append((path, int(match["sequence"])))
    pids = sorted(people)
    training = set(sample(pids, training_share(len(pids)), generator(seed, "3dpes", "identities")))
    records: list[Record] = []
    for pid, views in people.items():
        first = sample_half(
            (sequence for _, sequence in views), generator(seed, "3dpes", f"cameras of {pid}")
        )
        for path, sequence in views:
            camid = 0 if sequence in first else 1
            records.append(Record(path, pid, camid, role_of(pid, camid, training)))
    return records


def training_share(people: int) -> int:
    """Return how many people to train on: the published share, 93 of 193."""
    return round(people * 93 / 193)


READER = Reader(
    name="3dpes",
    folder="3DPeS/RGB",
    layout="original",
    expected=client_counts(cameras=2, train=(93, 450), query=(86, 246), gallery=316),
    read=read,
    seeded=frozenset({"train_images", "query_identities", "query_images", "gallery_images"}),
)
