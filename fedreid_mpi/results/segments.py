"""Finds, reads and joins the files of a results archive, without ever locking one."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.errors import DataError
from fedreid_mpi.results.layouts import read_field
from fedreid_mpi.results.schema import (
    FIELDS,
    FORMAT_VERSION,
    GROWING,
    KIND,
    LABELLED,
    OLDEST_VERSION,
    RUNS,
    SCALES,
    STUDY_KIND,
    Field,
)
from fedreid_mpi.storage.hdf5.container import is_sealed, open_part, plain, require_kind
from fedreid_mpi.storage.hdf5.digest import require_intact

_NAME = re.compile(r"results_(\d+)_(\d+)\.h5")


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a part of a run's archive is: a file of its own, or a group of a study file.

    Attributes
    ----------
    path
        The HDF5 file.
    group
        Of the file.
    """

    path: Path
    group: str = "/"

    def __str__(self) -> str:
        """Name it as a user does: a run of a study file as ``STUDY.h5/RUN``."""
        return str(self.path / self.group.strip("/").removeprefix(f"{RUNS}/"))


def last_attempt(run_dir: Path) -> int:
    """Return the highest number of an attempt that has written results; 0: there are none."""
    return max((int(match[1]) for match in _matches(run_dir)), default=0)


def find_segments(folder: Path) -> tuple[Segment, ...]:
    """List the archive's files in a folder, in the order of attempt and segment; there may be none."""
    return tuple(Segment(folder / match[0]) for match in _matches(folder))


def _matches(folder: Path) -> list[re.Match[str]]:
    try:
        matches = [match for file in folder.iterdir() if (match := _NAME.fullmatch(file.name))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    return sorted(matches, key=lambda match: (int(match[1]), int(match[2])))


def list_segments(path: Path) -> tuple[Segment, ...]:
    """Find a run: the files of its folder in order, its one file, or its group of a study file.

    Raises
    ------
    DataError
        There is no such run.
    """
    if path.is_dir():
        if segments := find_segments(path):
            return segments
        raise DataError(f"{path}: holds no results (expected files results_<attempt>_<segment>.h5)")
    if path.exists():
        return (Segment(path),)
    study = next((parent for parent in path.parents if parent.is_file()), None)
    if study is None:
        raise DataError(f"{path}: no such run directory or results file")
    return (Segment(study, f"{RUNS}/{path.relative_to(study).as_posix()}"),)


@contextmanager
def open_segment(segment: Segment) -> Iterator[h5py.Group]:
    """Open a part of an archive for reading; a link to another file is followed.

    Raises
    ------
    DataError
        It is not there, is foreign, damaged, or of another format version.
    """
    with open_part(segment.path, segment.group) as file:
        link = file.get(segment.group, getlink=True) if segment.group != "/" else None
        if not isinstance(link, h5py.ExternalLink):
            if segment.group not in file:
                raise DataError(f"{segment}: {segment.path} has no such run")
            _require_results(segment, file[segment.group])
            yield file[segment.group]
            return
        target = Segment(segment.path.parent / link.filename, link.path)
    with open_segment(target) as group:
        yield group


def _require_results(segment: Segment, group: h5py.Group) -> None:
    """Refuse what is no results archive, or one of another version."""
    if plain(group.attrs.get("kind")) == STUDY_KIND:
        raise DataError(f"{segment}: holds many runs; name one of them: {segment}/RUN")
    require_kind(Path(str(segment)), group, KIND, FORMAT_VERSION, oldest=OLDEST_VERSION)


def read_segment(
    segment: Segment, fields: Sequence[Field] = FIELDS
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read root attributes and datasets, all of them or some, of one part; raises as `open_segment`."""
    with open_segment(segment) as group:
        if not is_sealed(Path(group.file.filename)):  # a program that changes a file removes its seal
            require_intact(Path(str(segment)), group)
        attributes = {name: plain(value) for name, value in group.attrs.items()}
        return attributes, {field.path: read_field(group, field) for field in fields}


def identify(attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the identity of a run from its first segment.

    An archive of before there were identities gets a digest of what is hardly equal in two runs: its hosts
    and the times that the phases of its first round took.
    """
    if "run_id" in attributes:
        return str(attributes["run_id"])
    digest = hashlib.sha256(str(attributes["configuration"]).encode())
    digest.update("\0".join(arrays["ranks/host"].tolist()).encode())
    digest.update(np.ascontiguousarray(arrays["rounds/phase_seconds"][:1]).tobytes())
    return digest.hexdigest()[:32]


IDENTIFYING = ("ranks/host", "rounds/phase_seconds", "rounds/phase", "rounds/round")
"""Datasets that `identify` and the joining of what it needs ask for."""


def read_joined(
    segments: Sequence[Segment], fields: Sequence[Field] = FIELDS
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a run: the attributes of its last segment, with ``run_id``, and its datasets joined.

    Parameters
    ----------
    segments
        In order, at least one.
    fields
        The datasets wanted: all, or some with their scales and those of `IDENTIFYING`.

    Raises
    ------
    DataError
        As `open_segment`, or the segments are of different runs.
    """
    parts = [read_segment(segment, fields) for segment in segments]
    identities = {str(attributes.get("run_id", "")): None for attributes, _ in parts}
    if len(known := [identity for identity in identities if identity]) > 1:
        raise DataError(f"results of different runs in one folder: their run_id are {' and '.join(known)}")
    run_id = identify(*parts[0])
    return {**parts[-1][0], "run_id": run_id}, join_segments([arrays for _, arrays in parts], fields)


def join_segments(
    segments: Sequence[Mapping[str, NDArray[Any]]], fields: Sequence[Field] = FIELDS
) -> dict[str, NDArray[Any]]:
    """Join segments along the growing axes; rounds that a later segment repeats are taken from that one."""
    _check_same_run(segments, fields)
    joined = dict(segments[-1])
    for axis in LABELLED:
        if SCALES[axis] not in joined:
            continue
        scales = [segment[SCALES[axis]].tolist() for segment in segments]
        labels = list(dict.fromkeys(label for scale in scales for label in scale))
        joined[SCALES[axis]] = np.array(labels, dtype=np.str_)
    limits = [int(segment["rounds/round"][0]) for segment in segments[1:]]
    for field in fields:
        if field.axes[0] not in GROWING:
            continue
        pieces = []
        for index, segment in enumerate(segments):
            rows = segment[SCALES[field.axes[0]]] < min(limits[index:], default=np.inf)
            pieces.append(_aligned(segment, field, joined)[rows])
        joined[field.path] = np.concatenate(pieces)
    return joined


def _check_same_run(segments: Sequence[Mapping[str, NDArray[Any]]], fields: Sequence[Field]) -> None:
    """Refuse files of federations with other clients; where archives lie may change on resume."""
    for field in fields:
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
