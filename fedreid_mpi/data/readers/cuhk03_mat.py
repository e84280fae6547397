"""CUHK03 from ``cuhk-03.mat``: images in cells of a MATLAB file, in the new protocol or the classic one.

Both ``detected`` and ``labeled`` are cell arrays of five pairs of cameras; each is a cell array of one row a
person and ten columns, five a camera, some empty. The new protocol is in
``cuhk03_new_protocol_config_{detected,labeled}.mat``, which lie beside the folder of the release: a list of
file names, for which images are called here as everywhere: pair, person, camera, column. The classic
protocol's 20 splits are in ``cuhk-03.mat`` itself; camera 1's images of the 100 people are asked for, camera
2's looked at.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import BENCHMARK, Choices, Listing, Record, Variant, holds
from fedreid_mpi.data.readers.mat import (
    Cell,
    ImageCells,
    open_image_cells,
    read_mat,
    require_integers,
    require_texts,
)
from fedreid_mpi.data.readers.names import few, match_names
from fedreid_mpi.data.readers.views import whole_counts
from fedreid_mpi.errors import ConfigurationError, DataError

RELEASE = "cuhk-03.mat"
CLASSIC = "classic"
NAME = re.compile(r"(?P<pair>[1-5])_(?P<person>\d{3})_(?P<cam>[12])_(?P<column>\d{2})\.png", re.ASCII)
COLUMNS = 5
"""Images of a person in one camera, at most."""

ROLES = {"train_idx": SplitRole.TRAIN, "query_idx": SplitRole.QUERY, "gallery_idx": SplitRole.GALLERY}


@dataclass(frozen=True, slots=True)
class Shot:
    """An image of a person, numbered through all pairs, in camera 1 or 2 of the pair."""

    cell: Cell
    pid: int
    camid: int

    @property
    def name(self) -> str:
        """Its usual file name."""
        pair, person, column = self.cell
        return f"{pair + 1}_{person + 1:03d}_{self.camid}_{column + 1:02d}.png"


def mat_variant(half: str, counts: Mapping[str, int]) -> Variant:
    """Return the variant of one half of ``cuhk-03.mat``, all of whose images the new protocol uses."""
    images = counts["train_images"] + counts["query_images"] + counts["gallery_images"]
    return Variant(
        name=f"mat-{half}",
        looks_for=RELEASE,
        recognise=holds(RELEASE),
        read=partial(read, half),
        splits={
            BENCHMARK: counts,
            CLASSIC: {"cameras": 2, "train_identities": 1_367, "query_identities": 100},
        },
        whole=whole_counts(people=counts["train_identities"] + counts["query_identities"], images=images),
        if_alone=half != "detected",
        split_file=_config_name(half),
    )


def read(half: str, root: Path, choices: Choices) -> Listing:
    """Read one half of the file and the splits of the protocol that was chosen."""
    images = open_image_cells(root / RELEASE, half)
    shots = {shot.name: shot for shot in _shots(images)}
    if choices.splits == CLASSIC:
        if choices.split_file is not None:
            raise ConfigurationError(f"--split-file {choices.split_file}: {RELEASE} has the classic splits")
        splits = _classic(root / RELEASE, half, shots, images.rows)
    else:
        path = choices.split_file or _find_config(root, half)
        splits = ((*_new_protocol(path, root / RELEASE, half, shots),),)
    cells = {_path(half, shot): shot.cell for shot in shots.values()}
    note = f"{RELEASE} holds both halves, detected and labeled: the {half} one is taken"

    def load(path: str) -> NDArray[np.uint8]:
        return images.read(cells[path])

    whole = whole_counts(sum(images.rows), len(images.filled))
    return Listing(splits, notes=(note,), load=load, whole=whole)


def _shots(images: ImageCells) -> list[Shot]:
    before = [0, *accumulate(images.rows)]
    return [
        Shot((pair, person, column), before[pair] + person + 1, 1 + column // COLUMNS)
        for pair, person, column in images.filled
    ]


def _path(half: str, shot: Shot) -> str:
    return f"{RELEASE}/{half}/{shot.name}"


def _classic(
    path: Path, half: str, shots: Mapping[str, Shot], rows: tuple[int, ...]
) -> tuple[tuple[Record, ...], ...]:
    """Read the 20 splits, each a list of 100 people to test, by pair and number in the pair."""
    before = [0, *accumulate(rows)]
    known = {
        (pair + 1, row + 1): before[pair] + row + 1 for pair, size in enumerate(rows) for row in range(size)
    }
    splits: list[tuple[Record, ...]] = []
    for number, people in enumerate(read_mat(path, "testsets").ravel()):
        where = f"{path}: testsets{{{number + 1}}}"
        numbers = require_integers(where, np.asarray(people))
        if numbers.ndim != 2 or numbers.shape[1] != 2:
            raise DataError(f"{where} is of shape {numbers.shape}, expected pairs and people in two columns")
        listed = [(pair, person) for pair, person in numbers.tolist()]
        if strangers := [person for person in listed if person not in known]:
            raise DataError(f"{where} lists people who are not there: {few(strangers)}")
        tested = {known[person] for person in listed}
        splits.append(
            tuple(
                Record(_path(half, shot), shot.pid, shot.camid, _classic_role(shot, tested))
                for shot in shots.values()
            )
        )
    return tuple(splits)


def _classic_role(shot: Shot, tested: set[int]) -> SplitRole:
    if shot.pid not in tested:
        return SplitRole.TRAIN
    return SplitRole.QUERY if shot.camid == 1 else SplitRole.GALLERY


def _config_name(half: str) -> str:
    return f"cuhk03_new_protocol_config_{half}.mat"


def _find_config(root: Path, half: str) -> Path:
    """Find the new protocol in the folder of the release, or beside that."""
    name = _config_name(half)
    for path in (root / name, root.absolute().parent / name):
        if path.is_file():
            return path
    raise DataError(
        f"{root}: no {name} in it or next to it, which has the new protocol's split "
        f"(--split-file names it elsewhere, --splits {CLASSIC} does without)"
    )


def _new_protocol(path: Path, release: Path, half: str, shots: Mapping[str, Shot]) -> list[Record]:
    """Read the new protocol's split, and compare its labels with where the images lie."""
    names = require_texts(f"{path}: filelist", read_mat(path, "filelist"))
    matches = match_names(path, names, NAME)
    if missing := [name for name in names if name not in shots]:
        raise DataError(f"{path}: {release} lacks {len(missing)} of its images in {half}: {few(missing)}")
    columns = {
        key: require_integers(f"{path}: {key}", read_mat(path, key)).ravel().tolist()
        for key in ("labels", "camId", *ROLES)
    }
    for key, found in (("labels", [shots[name].pid for name in names]), ("camId", _cameras(matches))):
        if columns[key] != found:
            raise DataError(f"{path}: {key} disagrees with the file names and {release}")
    records: list[Record] = []
    for key, role in ROLES.items():
        if strange := [index for index in columns[key] if not 1 <= index <= len(names)]:
            raise DataError(f"{path}: {key} holds {few(strange)}, expected 1 to {len(names)}")
        chosen = [shots[names[index - 1]] for index in columns[key]]
        records += [Record(_path(half, shot), shot.pid, shot.camid, role) for shot in chosen]
    return records


def _cameras(matches: list[tuple[str, re.Match[str]]]) -> list[int]:
    return [int(match["cam"]) for _, match in matches]
