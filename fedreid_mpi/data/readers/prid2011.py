"""PRID 2011: two cameras, single shots and frames of many people that only one of them saw.

Hirzer et al., Person Re-Identification by Descriptive and Discriminative Classification, SCIA 2011. Numbers
up to 200 that both cameras have are shared people; above, the same number in the other camera is somebody
else. The split is the federated benchmark's: half of the shared people are probes with one image a camera;
the other half, and those that only camera A saw, are trained on, with up to ten frames a camera; those that
only camera B saw fill the gallery.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Reader, Record, client_counts, match_folder
from fedreid_mpi.data.splits import generator, sample, sample_half

PERSON = re.compile(r"person_(?P<pid>\d{4})\.png", re.ASCII)
FRAME = re.compile(r"\d{4}\.png", re.ASCII)

CAMERAS = ("cam_a", "cam_b")
LAST_SHARED = 200
FRAMES = 10
CAMERA_B_ONLY = 10_000
"""Added to the numbers of people that only camera B saw."""


def read(root: Path, seed: int) -> list[Record]:
    """Read the single shots of the test people and frames of the training people."""
    single = [
        {int(match["pid"]): path for path, match in match_folder(root, f"single_shot/{camera}", PERSON)}
        for camera in CAMERAS
    ]
    shared = {pid for pid in single[0] if pid in single[1] and pid <= LAST_SHARED}
    training = sample_half(shared, generator(seed, "prid2011", "identities"))
    records: list[Record] = []
    for camid, shots in enumerate(single):
        for pid, path in shots.items():
            if pid in training or (camid == 0 and pid not in shared):
                records += _frames(root, pid, camid, seed)
            else:
                role = SplitRole.QUERY if camid == 0 else SplitRole.GALLERY
                records.append(Record(path, pid if pid in shared else CAMERA_B_ONLY + pid, camid, role))
    return records


def _frames(root: Path, pid: int, camid: int, seed: int) -> list[Record]:
    folder = f"multi_shot/{CAMERAS[camid]}/person_{pid:04d}"
    frames = [path for path, _ in match_folder(root, folder, FRAME)]
    drawn = sample(frames, FRAMES, generator(seed, "prid2011", folder))
    return [Record(path, pid, camid, SplitRole.TRAIN) for path in drawn]


READER = Reader(
    name="prid2011",
    folder="prid_2011",
    layout="original",
    expected=client_counts(cameras=2, train=(285, 3_744), query=(100, 100), gallery=649),
    read=read,
    seeded=frozenset({"train_images"}),
)
