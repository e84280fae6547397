"""CUHK03 as originally released: ``cuhk-03.mat``, and beside its folder the new protocol.

Li et al., DeepReID, CVPR 2014; Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding,
CVPR 2017. The file has room for five images of a person in a camera; the sixth and later ones of the folders
are left out. Both halves, detected and labeled, show the same pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.synthetic.layouts import FOLDERS, Tree
from fedreid_mpi.data.synthetic.mat import column_of_cells, write_mat5, write_mat73

HALVES = ("detected", "labeled")
PAIRS = (843, 440, 77, 58, 49)
"""People of the original's five pairs of cameras; they are numbered through all pairs."""

COLUMNS = 5
"""Images of a person in one camera, at most."""

CLASSIC_SPLITS, CLASSIC_PEOPLE = 20, 100
"""Splits of the classic protocol, and how many people each tests; here at most half of all."""


def mat_layout(tree: Tree, rng: np.random.Generator) -> Tree:
    """Name the pictures of the three folders as those of the file are called, and pack them into it."""
    ends = _pairs(1 + max(shot.person for shot in tree.shots))
    labels = [int(PurePosixPath(shot.path).name[:4]) for shot in tree.shots]
    seen: Counter[tuple[int, int]] = Counter()
    names: list[str] = []
    for shot, label in zip(tree.shots, labels, strict=True):
        pair = int(np.searchsorted(ends, label))
        column = seen[label, shot.camera]
        seen[label, shot.camera] += 1
        place = (
            f"{pair}_{label - ends[pair - 1]:03d}_{shot.camera + 1}_{shot.camera * COLUMNS + column + 1:02d}"
        )
        names.append(f"{place}.png" if column < COLUMNS else "")
    labelled = {name: label for name, label in zip(names, labels, strict=True) if name}
    folders = {name: shot.path.split("/")[0] for name, shot in zip(names, tree.shots, strict=True)}
    roles = {
        role: [name for name in sorted(labelled) if folders[name] == FOLDERS[role]]
        for role in ("train", "query", "gallery")
    }
    counts = {f"{role}_images": len(roles[role]) for role in roles}
    packed = tree.renamed(names, {**tree.counts, **counts})
    packed.pack = partial(_pack, ends, _new_protocol(labelled, roles), _classic(rng, ends))
    return packed


def _pairs(people: int) -> list[int]:
    """Return 0 and the last label of each pair."""
    return [0, *np.rint(np.cumsum(PAIRS) * people / sum(PAIRS)).astype(int).tolist()]


def _new_protocol(labels: Mapping[str, int], roles: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Return the variables of the new protocol's file."""
    names = sorted(labels)
    numbers = {name: number for number, name in enumerate(names, 1)}
    return {
        "filelist": column_of_cells(names),
        "labels": np.array([[labels[name]] for name in names], np.uint16),
        "camId": np.array([[int(name.split("_")[2])] for name in names], np.uint8),
        **{f"{role}_idx": np.array([[numbers[name]] for name in roles[role]], np.float64) for role in roles},
    }


def _classic(rng: np.random.Generator, ends: Sequence[int]) -> list[NDArray[np.float64]]:
    """Draw the people whom the splits of the classic protocol test, by pair and number in the pair."""
    people = [
        (pair, number) for pair, (a, b) in enumerate(pairwise(ends), 1) for number in range(1, b - a + 1)
    ]
    tested = min(CLASSIC_PEOPLE, len(people) // 2)
    draws = (np.sort(rng.choice(len(people), tested, replace=False)) for _ in range(CLASSIC_SPLITS))
    return [np.array(people, np.float64)[draw] for draw in draws]


def _pack(
    ends: Sequence[int],
    protocol: Mapping[str, NDArray[Any]],
    testsets: Sequence[NDArray[np.float64]],
    start: Path,
) -> None:
    """Put the image files of a folder into the file, and the new protocol beside the folder."""
    pairs = [np.full((b - a, 2 * COLUMNS), None, object) for a, b in pairwise(ends)]
    paths = sorted(start.glob("*.png"))
    for path in paths:
        pair, person, _, column = (int(number) for number in path.stem.split("_"))
        pairs[pair - 1][person - 1, column - 1] = path
    write_mat73(start / "cuhk-03.mat", HALVES, pairs, {"testsets": testsets})
    for half in HALVES:
        write_mat5(start.parent / f"cuhk03_new_protocol_config_{half}.mat", protocol)
    for path in paths:
        path.unlink()
