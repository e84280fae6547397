"""QMUL GRID: people in an underground station, by eight cameras; for testing alone, or with half to train on.

Loy, Xiang and Gong, Time-Delayed Correlation Analysis for Multi-Camera Activity Understanding, IJCV 2010.
Each of 250 people has an image in ``probe`` and one in ``gallery``, which also shows strangers, all numbered
0: they match nobody, and are no junk. The ten published folds, whom to train on in each, come with it as
``trainIdxAll``.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Choices, Listing, Reader, Record, Variant, client_counts, holds
from fedreid_mpi.data.readers.mat import read_struct_cells, require_integers
from fedreid_mpi.data.readers.names import few, match_folder
from fedreid_mpi.data.readers.split_files import cite
from fedreid_mpi.data.readers.views import View
from fedreid_mpi.errors import DataError
from fedreid_mpi.wording import counted

PROBE = re.compile(r"(?P<pid>(?!0000)\d{4})_(?P<cam>[1-8])(_-?\d+)+\.jpe?g", re.ASCII)
GALLERY = re.compile(r"(?P<pid>\d{4})_(?P<cam>[1-8])(_-?\d+)+\.jpe?g", re.ASCII)

FOLDERS = (("probe", SplitRole.QUERY, PROBE), ("gallery", SplitRole.GALLERY, GALLERY))

PUBLISHED_FOLDS = "features_and_partitions.mat"
FOLDS = "trainIdxAll"
PEOPLE = 2
"""Field of a fold that lists the people to train on, from 0."""


def read(root: Path, choices: Choices) -> Listing:
    """Read the two folders, and split them by the published folds unless all are tested."""
    images = [
        (View(path, int(match["pid"]), int(match["cam"])), role)
        for folder, role, pattern in FOLDERS
        for path, match in match_folder(root, folder, pattern)
    ]
    if choices.splits == "all":
        return Listing((tuple(Record(*view, role) for view, role in images),))
    path = choices.split_file or root / PUBLISHED_FOLDS
    known = {view.pid for view, role in images if role == SplitRole.QUERY}
    folds = tuple(
        tuple(Record(*view, SplitRole.TRAIN if view.pid in training else role) for view, role in images)
        for training in _read_folds(path, known, root)
    )
    return Listing(folds, notes=(cite(path),))


def _read_folds(path: Path, known: set[int], root: Path) -> list[frozenset[int]]:
    """Read whom to train on in each fold.

    Raises
    ------
    DataError
        When the file is of another form, or lists somebody who is not there, or folds are of different sizes.
    """
    folds: list[frozenset[int]] = []
    for number, fields in enumerate(read_struct_cells(path, FOLDS), start=1):
        where = f"{path}: {FOLDS}{{{number}}}"
        if len(fields) <= PEOPLE:
            raise DataError(f"{where} has {len(fields)} fields, expected the people in the third")
        people = require_integers(where, fields[PEOPLE]).ravel().tolist()
        if strangers := sorted(set(people) - known):
            raise DataError(
                f"{where} lists {counted(len(strangers), 'person', 'people')} that {root}/probe "
                f"lacks: {few(strangers)}"
            )
        folds.append(frozenset(people))
        if len(folds[-1]) != len(people) or len(people) != len(folds[0]):
            raise DataError(
                f"{where} lists {counted(len(people), 'person', 'people')}, {len(folds[-1])} of "
                "them different, expected "
                f"{len(folds[0])}, each once, as in the first"
            )
    if not folds:
        raise DataError(f"{path}: {FOLDS} holds no folds")
    return folds


READER = Reader(
    name="grid",
    folders=("underground_reid", "GRID", "QMUL-GRID"),
    variants=(
        Variant(
            name="original",
            looks_for="probe, gallery",
            recognise=holds("probe", "gallery"),
            read=read,
            splits={
                "standard": client_counts(cameras=8, train=(125, 250), query=(125, 125), gallery=900),
                "all": client_counts(cameras=8, train=(0, 0), query=(250, 250), gallery=1_025),
            },
            split_file=PUBLISHED_FOLDS,
        ),
    ),
)
