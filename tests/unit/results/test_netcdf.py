"""Results, study and feature files are netCDF-4: xarray reads all of them; the page is true."""

import dataclasses
import gzip
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray

from fedreid_mpi import cli
from fedreid_mpi.records import Message
from fedreid_mpi.results import read_run, stable_figures
from fedreid_mpi.results.schema import FIELDS
from fedreid_mpi.results.sources import members
from fedreid_mpi.results.verify import verify_results, verify_study
from support import hand_made

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"(?s)```python\n(.*?)```")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """run.h5 of one run, study.h5 of it and another, features.h5 of none yet."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "runs").mkdir()
    sent = {1: {Message("models", "float32", (1, 10), 40): 2, Message("float", "pickle", (), 9): 1}}
    records = [hand_made.record(number, messages=sent) for number in range(1, 4)]
    settings = '[run]\nname = "unit"\nrounds = 3\n\n[optimizer]\nlr = 0.05\n'
    header = dataclasses.replace(hand_made.HEADER, configuration=settings)
    hand_made.write_run(folder / "runs" / "1", records, header, rounds_per_segment=2)
    other = dataclasses.replace(header, name="other")
    hand_made.write_run(folder / "runs" / "2", records[:1], other)
    assert cli.run(["results", "merge", str(folder / "runs" / "1"), "-o", str(folder / "run.h5")]) == 0
    assert cli.run(["results", "collect", str(folder / "runs"), "-o", str(folder / "study.h5")]) == 0
    return folder


@pytest.fixture
def features(folder, archive, model):
    path = folder / "features.h5"
    if not path.exists():
        options = ["--multi-query", "--rerank", "--k1", "2", "--k2", "1", "--save", str(path)]
        assert cli.run(["evaluate", str(model), str(archive.path), *options]) == 0
    return path


def groups_of(path):
    """Every group with datasets."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            group, _, own = name.rpartition("/")
            found.setdefault(group or "/", {})[own] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
@pytest.mark.parametrize("name", ["run.h5", "study.h5", "features.h5"])
@pytest.mark.filterwarnings("error::UserWarning")  # an axis that is twice in a dataset would give one
def test_xarray_reads_every_dataset_of_every_group(engine, name, folder, features):
    groups = groups_of(folder / name)
    assert len(groups) > 2
    for group, datasets in groups.items():
        with xarray.open_dataset(folder / name, group=group, engine=engine) as opened:
            assert set(opened.variables) == set(datasets), group
            for own, values in datasets.items():
                read = opened[own]
                assert not any(dimension.startswith("phony") for dimension in read.dims), (group, own)
                if values.dtype == object:
                    assert read.values.tolist() == [word.decode() for word in values]
                else:
                    np.testing.assert_array_equal(read.values, values)
                    assert (read.dtype == bool) == (own in ("evaluated", "participated", "finite", "linked"))
    with xarray.open_datatree(folder / name, engine=engine) as tree:
        assert {node.path.strip("/") or "/" for node in tree.subtree if node.variables} >= set(groups)


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="needs ncdump (netcdf-bin)")
@pytest.mark.parametrize("name", ["run.h5", "study.h5", "features.h5"])
def test_ncdump_prints_the_whole_file(name, folder, features):
    printed = subprocess.run(["ncdump", folder / name], capture_output=True, text=True, timeout=60)
    assert (printed.returncode, printed.stderr) == (0, "")
    shown = re.findall(r"^ *group: (.*) \{", printed.stdout, re.MULTILINE)
    shown = {group.replace("\\", "") for group in shown}  # before blanks, and a digit that begins a name
    assert {group.rpartition("/")[2] for group in groups_of(folder / name)} - {""} <= shown


def test_every_attribute_can_be_read_by_the_library_of_netcdf(folder, features):
    for path in (folder / "run.h5", features):
        with h5py.File(path) as file, netCDF4.Dataset(path) as opened:
            assert set(opened.ncattrs()) == set(file.attrs)
            assert opened.getncattr("format_version") == file.attrs["format_version"]
    with h5py.File(folder / "run.h5") as file, netCDF4.Dataset(folder / "run.h5") as opened:
        for field in FIELDS:
            group, _, name = field.path.rpartition("/")
            variable = (opened[group] if group else opened)[name]
            assert set(file[field.path].attrs) - set(variable.ncattrs()) <= {
                *("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST")
            }
            assert variable.getncattr("description") == field.description


def test_shared_axes_come_along(folder):
    tree = xarray.open_datatree(folder / "run.h5")
    run = read_run(folder / "run.h5")
    value = tree["evaluations"]["cmc"].sel(round=3, client=1, model="global", cmc_rank=5).item()
    assert value == run.cmc[list(run.evaluations).index(3), 1, 0, 4]
    assert tree["groupings"]["distance"].dims == ("round", "client", "other_client")
    assert tree["messages"]["shape"].values.tolist() == [
        ",".join(map(str, message.shape)) for _, _, message, _ in run.messages
    ]


def test_the_pages_examples_run(folder, features, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    text = (ROOT / "docs" / "reading-archives.md").read_text(encoding="utf-8")
    examples = EXAMPLE.findall(text)
    assert len(examples) == 7
    with h5py.File(features) as file:
        dataset = next(iter(file))
    printed = []
    for example in examples:
        exec(compile(example, "docs/reading-archives.md", "exec"), {"DATASET": dataset})
        printed.append(capsys.readouterr().out)
    assert printed[0] == "".join(printed[5].splitlines(keepends=True)[1:])  # by xarray and by h5py
    run = read_run(folder / "run.h5")
    first = 100 * run.cmc[-1, 0, 0, 0]
    assert printed[0].splitlines()[0] == f"{run.header.clients[0].name}: rank-1 {first:.1f} %"
    assert all(printed)


@pytest.fixture
def old(tmp_path):
    """A study file of version 1 with runs of version 2."""
    golden = ROOT / "tests" / "golden" / "study-2f2df15.h5.gz"
    with gzip.open(golden) as packed, (tmp_path / "old.h5").open("wb") as file:
        shutil.copyfileobj(packed, file)
    return tmp_path / "old.h5"


def test_older_files_are_read_verified_and_written_anew(old, tmp_path, capsys):
    with h5py.File(old) as file:
        versions = {int(run.attrs["format_version"]) for run in file["runs"].values()}
        assert (int(file.attrs["format_version"]), versions) == (1, {2})
        label = next(iter(file["runs"]))
        stored = file[f"runs/{label}"]
        expected = {field.path: stored[field.former or field.path][()] for field in FIELDS if field.former}
        participated, clients = stored["rounds/participated"][()], list(stored["ranks/clients"][()])
    assert verify_study(old, lambda _: None) == ()
    assert cli.run(["results", "collect", str(old), "-o", str(tmp_path / "new.h5")]) == 0
    assert cli.run(["inspect", "--verify", str(tmp_path / "new.h5")]) == 0
    for was, now in zip(members(old), members(tmp_path / "new.h5"), strict=True):
        before, after = (stable_figures(source.path) for source in (was, now))
        assert list(before) == list(after)
        for name, values in before.items():
            np.testing.assert_array_equal(values, after[name])
            assert values.dtype == after[name].dtype, name
        assert read_run(was.path).messages == read_run(now.path).messages
        assert read_run(was.path).header == read_run(now.path).header
    run = read_run(tmp_path / "new.h5" / label)
    np.testing.assert_array_equal(run.participated, participated)
    assert [rank.clients for rank in run.header.ranks] == [tuple(each) for each in clients]
    for path, values in expected.items():
        with h5py.File(tmp_path / "new.h5") as file:
            np.testing.assert_array_equal(file[f"runs/{label}/{path}"], values)


def test_what_is_no_list_of_numbers_is_a_fault(folder, tmp_path):
    shutil.copy(folder / "run.h5", path := tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file["ranks/clients"][0] = "0,one"
        hand_made.renew_digest(file)
    (fault,) = verify_results(path)
    assert fault.startswith("not a list of whole numbers: ")
