"""Verification of results archives, study files and feature files against ``docs/format.md``."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive.format import SplitRole
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import CMC_RANKS, Advance, ModelKind
from fedreid_mpi.results.file_kinds import FEATURES, FEATURES_1, RESULTS, RESULTS_2, STUDY, STUDY_1
from fedreid_mpi.results.layouts import fields_in, read_field, stored_path, version_of
from fedreid_mpi.results.schema import RUNS
from fedreid_mpi.results.segments import Segment, open_segment
from fedreid_mpi.storage.hdf5.container import open_archive, plain, require_kind
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST
from fedreid_mpi.storage.hdf5.schema import (
    Schema,
    attribute_faults,
    column_faults,
    digest_faults,
    find_faults,
    scale_faults,
)
from fedreid_mpi.wording import counted

_Arrays = Mapping[str, NDArray[Any]]


def verify_features(path: Path) -> tuple[str, ...]:
    """Check a feature file against its specification; returns and raises as `verify_results` does."""
    with open_archive(path) as file:
        schema = _schema_of(path, file, FEATURES, FEATURES_1)
        return tuple(find_faults(file, schema)) or tuple(_feature_faults(file, schema))


def verify_results(path: Path) -> tuple[str, ...]:
    """Check one file of a results archive against its specification.

    Returns
    -------
    tuple of str
        What is wrong, each in a few words; empty for a good file.

    Raises
    ------
    DataError
        When the file cannot be read as an archive at all.
    """
    with open_archive(path) as file:
        _schema_of(path, file, RESULTS, RESULTS_2)
        return tuple(archive_faults(file))


def verify_study(path: Path, advance: Advance) -> tuple[str, ...]:
    """Check a study file and all its runs, linked ones too; returns and raises as `verify_results` does.

    Parameters
    ----------
    path
        The file.
    advance
        Called with 1 after each run.
    """
    with open_archive(path) as file:
        schema = _schema_of(path, file, STUDY, STUDY_1)
        faults = [*attribute_faults(file, schema)]
        if "index" not in file or RUNS not in file:
            return (*faults, f"no group /index or no group /{RUNS}")
        index = file["index"]
        schema = schema.relative_to("index")
        faults += [*column_faults(index, schema), *digest_faults(index)]
        if CONTENT_DIGEST not in index.attrs:
            faults.append(f"/index has no {CONTENT_DIGEST}")
        if faults or (faults := [*scale_faults(index, schema)]):
            return tuple(faults)
        labels, digests = ([str(word) for word in index[name].asstr()[()]] for name in ("label", "digest"))
        if sorted(labels) != sorted(file[RUNS]):
            return (f"/{RUNS} and /index do not name the same runs",)
    for label, digest in zip(labels, digests, strict=True):
        try:
            with open_segment(Segment(path, f"{RUNS}/{label}")) as archive:
                faults += [f"/{RUNS}/{label}: {fault}" for fault in archive_faults(archive)]
                if plain(archive.attrs.get(CONTENT_DIGEST)) != digest:
                    faults.append(f"/{RUNS}/{label} is not the run that was collected: another digest")
        except DataError as error:
            faults.append(f"/{RUNS}/{label}: {error}")
        advance(1)
    return tuple(faults)


def _schema_of(path: Path, archive: h5py.Group, newest: Schema, former: Schema) -> Schema:
    """Return what an archive must hold by its version; raises as `require_kind`."""
    require_kind(path, archive, newest.kind, newest.version, oldest=former.version)
    return newest if version_of(archive) == newest.version else former


def archive_faults(archive: h5py.Group) -> Iterator[str]:
    """Compare one archive, the root of a file or a group, with the specification; yield each difference."""
    schema = RESULTS if version_of(archive) == RESULTS.version else RESULTS_2
    faults = tuple(find_faults(archive, schema))
    yield from faults
    if not faults:  # the rules assume the layout
        yield from _label_faults(archive)
        yield from scale_faults(archive, schema)
        yield from _rule_faults(archive)


def _label_faults(archive: h5py.Group) -> Iterator[str]:
    """Check that the archive explains itself."""
    version = version_of(archive)
    for field in fields_in(archive):
        if version == 2 and field.path == "other_client":
            continue
        path = stored_path(field, version)
        attributes = archive[path].attrs
        if not plain(attributes.get("description")):  # the words change with the versions of the program
            yield f"/{path} has no description"
        said = tuple(plain(attributes.get(name)) for name in ("units", "volatile"))
        if said != (field.units, field.volatile):
            yield f"/{path} has units and volatile {said}, expected {(field.units, field.volatile)}"
        if version > 2 and field.dtype is np.bool_ and attributes.get("dtype") != "bool":
            yield f"/{path} does not say that it is of truth values (attribute dtype)"


def _rule_faults(archive: h5py.Group) -> Iterator[str]:
    try:
        arrays = {field.path: read_field(archive, field) for field in fields_in(archive)}
    except ValueError as error:
        yield f"not a list of whole numbers: {error}"
        return
    try:
        tomllib.loads(str(plain(archive.attrs["configuration"])))
        json.loads(str(plain(archive.attrs["versions"])))
    except ValueError as error:
        yield f"configuration is not TOML, or versions not JSON: {error}"
    for name in ("ranks/rank", "client", "other_client"):
        if not np.array_equal(arrays[name], np.arange(len(arrays[name]))):
            yield f"/{name} does not count from 0"
    for name in ("rounds/round", "groupings/round", "evaluations/round"):
        if (np.diff(arrays[name], prepend=-1) <= 0).any():
            yield f"/{name} is not increasing from 0"
    if not np.isin(arrays["evaluations/round"], arrays["rounds/round"]).all():
        yield "/evaluations/round names rounds that /rounds/round does not"
    if not np.array_equal(arrays["cmc_rank"], np.arange(1, CMC_RANKS + 1)):
        yield f"/cmc_rank is not 1 to {CMC_RANKS}"
    if arrays["evaluations/model"].tolist() != list(ModelKind):
        yield f"/evaluations/model is not {', '.join(ModelKind)}"
    if "unseen/id" in arrays:
        yield from _unseen_faults(arrays)
    yield from _participation_faults(arrays)
    yield from _score_faults(arrays)


def _participation_faults(arrays: _Arrays) -> Iterator[str]:
    for number, row, trained in zip(
        arrays["rounds/round"], arrays["rounds/position"], arrays["rounds/participated"], strict=True
    ):
        if sorted(row[trained]) != list(range(trained.sum())) or (row[~trained] != -1).any():
            yield f"/rounds/position of round {number} is not an order of its participants"


def _score_faults(arrays: _Arrays) -> Iterator[str]:
    scored = arrays["evaluations/queries"] >= 0
    if not np.array_equal(scored, arrays["evaluations/unmatched"] >= 0):
        yield "/evaluations/queries and unmatched differ in what was scored"
    cmc = arrays["evaluations/cmc"]
    if not np.isnan(cmc[~scored]).all():
        yield "/evaluations/cmc holds scores where nothing was scored"
    for name in ("cmc", "mean_ap", "mean_inp"):
        values = arrays[f"evaluations/{name}"]
        if ((values < 0) | (values > 1 + 1e-9)).any():
            yield f"/evaluations/{name} is not within 0 and 1"
    if (np.diff(cmc, axis=-1) < 0).any():
        yield "/evaluations/cmc falls with the rank"


def _unseen_faults(arrays: _Arrays) -> Iterator[str]:
    if not np.array_equal(arrays["unseen/id"], np.arange(len(arrays["unseen/id"]))):
        yield "/unseen/id does not count from 0"
    names = ("round", "group", "dataset")
    keys = list(zip(*(arrays[f"unseen_scores/{name}"].tolist() for name in names), strict=True))
    if keys != sorted(set(keys)):
        yield "/unseen_scores is not in order of round, group and dataset, each once"
    if not np.isin(arrays["unseen_scores/round"], arrays["rounds/round"]).all():
        yield "/unseen_scores/round names rounds that /rounds/round does not"
    if not np.isin(arrays["unseen_scores/dataset"], arrays["unseen/id"]).all():
        yield "/unseen_scores/dataset names datasets that /unseen/id does not"
    for name in ("cmc", "mean_ap", "mean_inp"):
        values = arrays[f"unseen_scores/{name}"]
        if ((values < 0) | (values > 1 + 1e-9)).any():
            yield f"/unseen_scores/{name} is not within 0 and 1"
    if (np.diff(arrays["unseen_scores/cmc"], axis=-1) < 0).any():
        yield "/unseen_scores/cmc falls with the rank"


def _feature_faults(file: h5py.File, schema: Schema) -> Iterator[str]:
    yield from scale_faults(file, schema)
    for name, dataset in file.items():
        if set(dataset.attrs) != {"archive", "source_digest"}:
            yield f"/{name} has attributes {sorted(dataset.attrs)}, expected archive and source_digest"
        images = len(dataset["features"])
        if not all(len(dataset[column]) == images for column in ("pid", "camid", "path")):
            yield f"/{name}: features, pid, camid and path differ in length"
        for number, split in dataset["splits"].items():
            for role in SplitRole:
                rows = split[role][()] if role in split else np.zeros(0, np.int64)
                if ((rows < 0) | (rows >= images)).any():
                    yield f"/{name}/splits/{number}/{role} points outside of the {counted(images, 'image')}"
            lengths = {len(split[score]) for score in ("query", "average_precision", "first_match")}
            if len(lengths) != 1:
                yield f"/{name}/splits/{number}: scores and queries differ in length"
