"""Finds runs: in run directories, in folders of them, in single files and in study files."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from fedreid_mpi.errors import DataError
from fedreid_mpi.results.schema import KIND, OLDEST_STUDY, RUNS, STUDY_KIND, STUDY_VERSION
from fedreid_mpi.results.segments import Segment, find_segments, list_segments
from fedreid_mpi.storage.hdf5.container import open_part, plain, require_kind

Refuse = Callable[[DataError], None]
"""Told of what is broken or foreign, which is then left out."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run was found.

    Attributes
    ----------
    path
        What `fedreid_mpi.results.read_run` takes.
    segments
        Its parts, in order.
    state, written
        The state of the run and when it was written, from a study file; empty elsewhere.
    """

    path: Path
    segments: tuple[Segment, ...]
    state: str = ""
    written: str = ""

    def __str__(self) -> str:
        """Name it as it was found."""
        return str(self.path)


def find_runs(paths: Iterable[Path], refuse: Refuse) -> Iterator[Source]:
    """Find all runs under some paths, in the order of the paths, then of names.

    A folder with ``results_*.h5`` files is a run. Any other is searched, its folders and its ``.h5`` files;
    datasets and feature files that lie there are passed over.

    Parameters
    ----------
    paths
        Folders, results archives, study files, and runs of these (``STUDY.h5/RUN``).
    refuse
        Called with the error of what is not an archive, cannot be read, or holds no run.
    """
    for path in paths:
        try:
            found = list(_search(path, refuse) if path.is_dir() else _look_into(path))
            if not found:
                raise DataError(f"{path}: no such run, or a folder without results")
            yield from found
        except DataError as error:
            refuse(error)


def _search(root: Path, refuse: Refuse) -> Iterator[Source]:
    def unreadable(error: OSError) -> None:
        refuse(DataError(f"{error.filename}: cannot be listed: {error.strerror}"))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders.sort()
        if segments := find_segments(Path(folder)):
            folders.clear()
            yield Source(Path(folder), segments)
            continue
        for path in (Path(folder, name) for name in sorted(files)):
            if path.suffix != ".h5" or path.name.startswith("."):
                continue
            try:
                if _kind(path) in (KIND, STUDY_KIND):
                    yield from _look_into(path)
            except DataError as error:
                refuse(error)


def _look_into(path: Path) -> Iterator[Source]:
    """List the run of a results archive, or those of a study file."""
    if path.is_file() and _kind(path) == STUDY_KIND:
        yield from members(path)
    elif path.is_file():
        yield Source(path, (Segment(path),))
    else:
        (segment,) = list_segments(path)
        yield from (source for source in members(segment.path) if source.segments == (segment,))


def _kind(path: Path) -> str:
    with open_part(path, "index") as file:
        return str(plain(file.attrs["kind"]))


def members(study: Path) -> tuple[Source, ...]:
    """List the runs of a study file.

    Raises
    ------
    DataError
        It is none, or damaged.
    """
    return tuple(
        Source(
            study / str(row["label"]),
            (Segment(study, f"{RUNS}/{row['label']}"),),
            str(row["state"]),
            str(row["written"]),
        )
        for row in read_index(study)
    )


def read_index(study: Path) -> list[dict[str, Any]]:
    """Read the index of a study file: one row per run, by the names of the columns.

    Raises
    ------
    DataError
        It is none, or damaged.
    """
    with open_part(study, "index") as file:
        require_kind(study, file, STUDY_KIND, STUDY_VERSION, oldest=OLDEST_STUDY)
        columns = {
            name: (values.asstr() if h5py.check_string_dtype(values.dtype) else values)[()].tolist()
            for name, values in file["index"].items()
        }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{**row, "linked": bool(row["linked"])} for row in rows]
