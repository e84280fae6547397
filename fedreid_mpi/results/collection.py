"""Many archives in one file: the runs of a study, from as many clusters as it ran on."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.results.archive import HDF5_OPTIONS, copy_archive, write_archive
from fedreid_mpi.results.file_kinds import STUDY
from fedreid_mpi.results.layouts import version_of
from fedreid_mpi.results.schema import FORMAT_VERSION, RUNS, STUDY_KIND, STUDY_VERSION, TEXT
from fedreid_mpi.results.segments import open_segment, read_joined
from fedreid_mpi.results.sources import Refuse, Source
from fedreid_mpi.results.summary import RunSummary
from fedreid_mpi.storage.atomic import atomic_write, write_errors
from fedreid_mpi.storage.hdf5.checksum import seal
from fedreid_mpi.storage.hdf5.container import plain
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest
from fedreid_mpi.storage.hdf5.disk import create_hdf5

ABOUT = (
    "Runs of fedreid_mpi (federated person re-identification). /index has one row per run; /runs/<label> is "
    "the run, laid out like the root of a results archive, or a link to one. Every dataset has a description "
    "and units, every axis a dimension scale: a netCDF-4 file."
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A run as the index has it."""

    label: str
    summary: RunSummary
    digest: str
    linked: bool


def merge(source: Source, path: Path) -> None:
    """Write all of a run into one file, a results archive itself.

    Raises
    ------
    DataError
        The run cannot be read.
    FedReIDError
        The file cannot be written.
    """
    attributes, arrays = read_joined(source.segments)
    with write_errors(path), atomic_write(path) as temporary:
        with create_hdf5(temporary, **HDF5_OPTIONS) as (file, _):
            write_archive(file, attributes, arrays)
        seal(temporary)


def collect(
    summaries: Sequence[RunSummary], path: Path, link: bool, refuse: Refuse, done: Callable[[], None]
) -> int:
    """Write a study file.

    Parameters
    ----------
    summaries
        Of the runs, from `fedreid_mpi.results.survey.choose`.
    path
        The file; one that exists is replaced when the new one is whole.
    link
        Put links to archives of one file instead of copies. Runs of several files are copied all the same.
    refuse
        Called with the error of each run that can no longer be read.
    done
        Called after each run.

    Returns
    -------
    int
        Number of runs in the file.

    Raises
    ------
    DataError
        There is no run to collect.
    ConfigurationError
        The file would link to itself.
    FedReIDError
        It cannot be written.
    """
    with write_errors(path), atomic_write(path) as temporary:
        with create_hdf5(temporary, **HDF5_OPTIONS) as (file, check):
            rows = []
            runs = file.create_group(RUNS)
            runs.attrs["description"] = "The runs; a group each, laid out like the root of a results archive."
            for label, summary in zip(label_runs(summaries), summaries, strict=True):
                try:
                    rows.append(_add(runs, label, summary, path, link))
                except DataError as error:
                    if runs.get(label, getlink=True) is not None:
                        del runs[label]
                    refuse(error)
                check()
                done()
            if not rows:
                raise DataError(f"{path}: not written: no run to collect")
            _write_index(file, rows)
        seal(temporary)
    return len(rows)


def label_runs(summaries: Sequence[RunSummary]) -> list[str]:
    """Name each run after its name and seed, and where several would have one name, its identity.

    Runs that went on from copies of one folder have one identity: from the second on they are numbered.
    """
    names = [re.sub(r"[/\x00]", "_", f"{summary.name}-seed{summary.seed}") for summary in summaries]
    times = Counter(names)
    labels = [
        name if times[name] == 1 else f"{name}-{summary.run_id[:12]}"
        for name, summary in zip(names, summaries, strict=True)
    ]
    before = [labels[:place].count(label) for place, label in enumerate(labels)]
    return [f"{label}-{count + 1}" if count else label for label, count in zip(labels, before, strict=True)]


def _add(runs: h5py.Group, label: str, summary: RunSummary, path: Path, link: bool) -> _Row:
    """Put one run into the file."""
    segments = summary.source.segments
    if len(segments) > 1:
        return _add_anew(runs, label, summary)
    with open_segment(segments[0]) as archive:
        if not link and version_of(archive) != FORMAT_VERSION:
            return _add_anew(runs, label, summary)
        if link:
            target = Path(archive.file.filename)
            if target.resolve() == path.resolve():
                raise ConfigurationError(f"--link: {path} cannot hold links to itself; choose another output")
            relative = os.path.relpath(target.resolve(), path.resolve().parent)
            runs[label] = h5py.ExternalLink(relative, archive.name)
        else:
            copy_archive(archive, runs, label)
        digest = plain(archive.attrs[CONTENT_DIGEST])
    return _Row(label, summary, str(digest), link)


def _add_anew(runs: h5py.Group, label: str, summary: RunSummary) -> _Row:
    """Write a run that is in several files, or in one of an earlier version of the format."""
    attributes, arrays = read_joined(summary.source.segments)
    group = runs.create_group(label)
    write_archive(group, attributes, arrays)
    return _Row(label, summary, str(plain(group.attrs[CONTENT_DIGEST])), linked=False)


def _write_index(file: h5py.File, rows: Sequence[_Row]) -> None:
    """Write root attributes and ``/index``, whose digest covers those of the runs."""
    file.attrs.update(kind=STUDY_KIND, format_version=STUDY_VERSION, description=ABOUT)
    index = file.create_group("index")
    index.attrs["description"] = "What runs there are; one row per run."
    for column in STUDY.columns:
        name = column.path.removeprefix("index/")
        values = [_value(row, name) for row in rows]
        dtype = TEXT if column.type == "text" else np.dtype(column.type)
        dataset = index.create_dataset(name, data=np.array(values, dtype=dtype), dtype=dtype)
        dataset.attrs.update(description=column.description, units=column.units)
        dataset.dims[0].label = "run"
        if name == "label":
            dataset.make_scale("run")
        else:
            dataset.dims[0].attach_scale(index["label"])
    index["linked"].attrs["dtype"] = "bool"
    index.attrs[CONTENT_DIGEST] = content_digest(index)


def _value(row: _Row, name: str) -> object:
    """Return a run's value in a column of the index."""
    if name == "source":
        return str(row.summary.source).encode(errors="replace").decode()  # a path may be no text
    return getattr(row if name in ("label", "digest", "linked") else row.summary, name)
