"""MSMT17, version 1: fifteen cameras, the split in four list files.

Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-identification, CVPR 2018. The lists name
every image and its person. The training set is the lists of training and validation together, as in the
federated benchmark. Numbers of people start again at 0 in the test set, which is why those are moved up here.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    Reader,
    Record,
    client_counts,
    few,
    list_folder,
    list_images,
    match_names,
)
from fedreid_mpi.errors import DataError

PATH = re.compile(
    r"\d{4}/\d{4}_\d{3,}_(?P<cam>0[1-9]|1[0-5])_\d{4}(morning|noon|afternoon)_\d+_\d+(_ex)?\.jpg", re.ASCII
)
LINE = re.compile(r"(?P<path>\S+) (?P<pid>\d+)", re.ASCII)

LISTS = (
    ("list_train.txt", "train", SplitRole.TRAIN),
    ("list_val.txt", "train", SplitRole.TRAIN),
    ("list_query.txt", "test", SplitRole.QUERY),
    ("list_gallery.txt", "test", SplitRole.GALLERY),
)


def read(root: Path, seed: int) -> list[Record]:
    """Read the four lists, and compare them with what is in the folders."""
    records = [record for name, folder, role in LISTS for record in _read_list(root, name, folder, role)]
    for folder in ("train", "test"):
        _compare(root, folder, {record.path for record in records if record.path.startswith(folder + "/")})
    first = 1 + max(record.pid for record in records if record.role == SplitRole.TRAIN)
    return [
        record
        if record.role == SplitRole.TRAIN
        else Record(record.path, first + record.pid, record.camid, record.role)
        for record in records
    ]


def _read_list(root: Path, name: str, folder: str, role: SplitRole) -> list[Record]:
    path = root / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file: {error}") from error
    pids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = LINE.fullmatch(line.strip())
        if entry is None or entry["path"] in pids:
            fault = "not 'PATH PERSON'" if entry is None else "a path for the second time"
            raise DataError(f"{path}: line {number} is {line!r}, {fault}")
        pids[entry["path"]] = int(entry["pid"])
    if not pids:
        raise DataError(f"{path}: names no images")
    return [
        Record(f"{folder}/{image}", pids[image], int(match["cam"]), role)
        for image, match in match_names(path, pids, PATH)
    ]


def _compare(root: Path, folder: str, listed: set[str]) -> None:
    """Refuse images that a list names and the folder lacks, or the other way round."""
    people = [entry.name for entry in list_folder(root, folder) if entry.is_dir()]
    found = [
        f"{folder}/{person}/{image}" for person in people for image in list_images(root, f"{folder}/{person}")
    ]
    if unlisted := [path for path in found if path not in listed]:
        raise DataError(f"{root}: {len(unlisted)} images are in no list file: {few(unlisted)}")
    if missing := sorted(listed.difference(found)):
        raise DataError(f"{root}: {len(missing)} listed images are missing: {few(missing)}")


READER = Reader(
    name="msmt17",
    folder="MSMT17_V1",
    layout="V1",
    expected=client_counts(cameras=15, train=(1_041, 32_621), query=(3_060, 11_659), gallery=82_161),
    read=read,
)
