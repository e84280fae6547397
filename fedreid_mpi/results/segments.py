"""Finds, reads and joins the files of a results archive, without ever locking one."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive.digest import require_intact
from fedreid_mpi.data.archive.format import open_archive, require_kind
from fedreid_mpi.errors import DataError
from fedreid_mpi.results.schema import FIELDS, FORMAT_VERSION, GROWING, KIND, LABELLED, SCALES, TEXT, Field

_NAME = re.compile(r"results_(\d+)_(\d+)\.h5")


def list_segments(path: Path) -> tuple[Path, ...]:
    """List the files of an archive in the order of attempt and segment."""
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: no such run directory or results file")
        return (path,)
    matches = [match for file in path.iterdir() if (match := _NAME.fullmatch(file.name))]
    if not matches:
        raise DataError(f"{path}: holds no results (expected files results_<attempt>_<segment>.h5)")
    matches.sort(key=lambda match: (int(match[1]), int(match[2])))
    return tuple(path / match[0] for match in matches)


def last_attempt(run_dir: Path) -> int:
    """Return the highest number of an attempt that has written results; 0: there are none."""
    return max(
        (int(match[1]) for path in run_dir.iterdir() if (match := _NAME.fullmatch(path.name))), default=0
    )


def read_segment(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read root attributes and all datasets of one file."""
    with open_archive(path) as file:
        require_kind(path, file, KIND, FORMAT_VERSION)
        require_intact(path, file)
        return dict(file.attrs), {field.path: _read_dataset(file, field) for field in FIELDS}


def _read_dataset(file: h5py.File, field: Field) -> NDArray[Any]:
    """Read one dataset; words become NumPy strings."""
    dataset = file[field.path]
    if field.dtype is TEXT:  # HDF5 types of variable length all equal NumPy's object
        return np.array(dataset.asstr()[()].tolist(), dtype=np.str_)
    return np.asarray(dataset[()])


def join_segments(segments: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Join segments along the growing axes; rounds that a later segment repeats are taken from that one."""
    _check_same_run(segments)
    joined = dict(segments[-1])
    for axis in LABELLED:
        scales = [segment[SCALES[axis]].tolist() for segment in segments]
        labels = list(dict.fromkeys(label for scale in scales for label in scale))
        joined[SCALES[axis]] = np.array(labels, dtype=np.str_)
    limits = [int(segment["rounds/round"][0]) for segment in segments[1:]]
    for field in FIELDS:
        if field.axes[0] not in GROWING:
            continue
        pieces = []
        for index, segment in enumerate(segments):
            rows = segment[SCALES[field.axes[0]]] < min(limits[index:], default=np.inf)
            pieces.append(_aligned(segment, field, joined)[rows])
        joined[field.path] = np.concatenate(pieces)
    return joined


def _check_same_run(segments: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Refuse files of federations with other clients; where archives lie may change on resume."""
    for field in FIELDS:
        if field.axes == ("client",) and not field.volatile:
            first, *others = (segment[field.path] for segment in segments)
            if not all(np.array_equal(first, other) for other in others):
                raise DataError(f"results of different runs in one folder: their {field.path} differ")


def _aligned(
    segment: Mapping[str, NDArray[Any]], field: Field, joined: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Return a dataset with its labelled axis, if it has one, in the joined order of labels."""
    array = segment[field.path]
    if field.axes[-1] not in LABELLED:
        return array
    scale = SCALES[field.axes[-1]]
    labels = joined[scale].tolist()
    aligned = np.full((len(array), len(labels)), field.absent, dtype=array.dtype)
    aligned[:, [labels.index(label) for label in segment[scale].tolist()]] = array
    return aligned
