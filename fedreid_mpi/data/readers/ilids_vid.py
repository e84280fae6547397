"""iLIDS-VID, the video set (not the still images i-LIDS): two cameras, a track of each person in either.

Wang et al., Person Re-Identification by Video Ranking, ECCV 2014. The ten published splits come with it as
``ls_set``, whose rows number the people from 1 in the order of their folders: the first half is tested,
queries from camera 1, and the second half trained on. It is no client of the federated benchmark, whose
"iLIDS-VID" is i-LIDS.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Choices, Listing, Reader, Record, Variant, client_counts, holds
from fedreid_mpi.data.readers.mat import read_mat
from fedreid_mpi.data.readers.names import few, list_folder, match_folder, match_names
from fedreid_mpi.data.readers.split_files import cite, read_people_lists
from fedreid_mpi.data.splits import draw_training
from fedreid_mpi.errors import DataError
from fedreid_mpi.wording import counted

FOLDER = re.compile(r"person(?P<pid>\d{3})", re.ASCII)
NAME = re.compile(r"cam(?P<cam>[12])_person(?P<pid>\d{3})(?:_\d{5})?\.png", re.ASCII)

CAMERAS = (1, 2)
PUBLISHED_SPLITS = Path("train-test people splits", "train_test_splits_ilidsvid.mat")
"""Next to the folder of images in the original release."""


def read(kind: str, root: Path, choices: Choices) -> Listing:
    """Read the tracks (``kind`` is ``"sequences"``) or their one image each (``"images"``)."""
    folders = [_list_people(root, f"{kind}/cam{camera}") for camera in CAMERAS]
    people = folders[0]
    if people != folders[1]:
        odd = sorted(set(people) ^ set(folders[1]))
        raise DataError(
            f"{root / kind}: {counted(len(odd), 'person is', 'people are')} in one camera only: {few(odd)}"
        )
    images = {(pid, camera): _read_track(root, kind, pid, camera) for camera in CAMERAS for pid in people}
    path, splits = _split_people(root, people, choices)
    notes = [] if path is None else [cite(path)]
    if kind == "sequences":
        notes.append("every frame is an image of its own: scores rank frames, not tracks")
    return Listing(
        tuple(_assign(images, training, tested) for training, tested in splits),
        drawn=path is None,
        notes=tuple(notes),
    )


def _list_people(root: Path, folder: str) -> list[int]:
    """List the people of a camera by their folders; files beside these do not count."""
    names = [entry.name for entry in list_folder(root, folder) if entry.is_dir()]
    return [int(match["pid"]) for _, match in match_names(root / folder, names, FOLDER)]


def _read_track(root: Path, kind: str, pid: int, camera: int) -> list[str]:
    folder = f"{kind}/cam{camera}/person{pid:03d}"
    matches = match_folder(root, folder, NAME)
    if strangers := [path for path, name in matches if (int(name["pid"]), int(name["cam"])) != (pid, camera)]:
        raise DataError(f"{root / folder}: holds images of another folder: {few(strangers)}")
    return [path for path, _ in matches]


def _assign(
    images: Mapping[tuple[int, int], Sequence[str]], training: Collection[int], tested: Collection[int]
) -> tuple[Record, ...]:
    records: list[Record] = []
    for (pid, camera), paths in images.items():
        if pid in training:
            records += [Record(path, pid, camera, SplitRole.TRAIN) for path in paths]
        elif pid in tested:
            role = SplitRole.QUERY if camera == 1 else SplitRole.GALLERY
            records += [Record(path, pid, camera, role) for path in paths]
    return tuple(records)


def _split_people(
    root: Path, people: Sequence[int], choices: Choices
) -> tuple[Path | None, list[tuple[frozenset[int], frozenset[int]]]]:
    """Return who is trained on and who is tested: as in the user's or the published file, or drawn."""
    published = [folder / PUBLISHED_SPLITS for folder in (root, root.parent)]
    path = choices.split_file or next((file for file in published if file.is_file()), None)
    if path is None:
        draws = draw_training(people, len(people) // 2, choices.seed, "ilids-vid", choices.splits)
        return None, [(frozenset(training), frozenset(people) - training) for training in draws]
    if path.suffix == ".json":
        return path, list(read_people_lists(path, people, root))
    return path, _read_ls_set(path, people)


def _read_ls_set(path: Path, people: Sequence[int]) -> list[tuple[frozenset[int], frozenset[int]]]:
    rows = read_mat(path, "ls_set")
    everybody = np.arange(1, len(people) + 1)
    whole = rows.ndim == 2 and rows.dtype.kind in "iuf"
    if not whole or not all(np.array_equal(np.sort(row), everybody) for row in rows):
        raise DataError(
            f"{path}: ls_set of {rows.dtype} and shape {rows.shape}, expected each of the numbers 1 to "
            f"{len(people)} once per row, as there are so many folders of people"
        )
    half = len(people) // 2
    splits: list[tuple[frozenset[int], frozenset[int]]] = []
    for row in rows:
        pids = [people[int(number) - 1] for number in row]
        splits.append((frozenset(pids[half:]), frozenset(pids[:half])))
    return splits


STANDARD = {"cameras": 2, "train_identities": 150, "query_identities": 150}

READER = Reader(
    name="ilids-vid",
    folders=("i-LIDS-VID",),
    variants=(
        Variant(
            name="sequences",
            looks_for="sequences/cam1, sequences/cam2",
            recognise=holds("sequences/cam1", "sequences/cam2"),
            read=partial(read, "sequences"),
            splits={"standard": STANDARD},
            split_file="train_test_splits_ilidsvid.mat or splits.json",
        ),
        Variant(
            name="images",
            looks_for="images/cam1, images/cam2",
            recognise=holds("images/cam1", "images/cam2"),
            read=partial(read, "images"),
            splits={"standard": client_counts(cameras=2, train=(150, 300), query=(150, 150), gallery=150)},
            split_file="train_test_splits_ilidsvid.mat or splits.json",
        ),
    ),
)
