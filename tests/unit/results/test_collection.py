"""Many archives: merged, collected, verified, and read again."""

import shutil

import h5py
import numpy as np
import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.errors import DataError
from fedreid_mpi.results import read_run, stable_figures
from fedreid_mpi.results.sources import find_runs, read_index
from fedreid_mpi.results.survey import MANY
from fedreid_mpi.results.verify import verify_results, verify_study
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest
from fedreid_mpi.storage.run_directory import Status, write_status
from support import runs
from support.hand_made import assert_same
from support.small import write_site


def verify(study):
    return verify_study(study, lambda _: None)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """What collects in a working folder: runs, an older copy of one, datasets, and wrecks."""
    folder = tmp_path_factory.mktemp("cluster")
    runs.write_run(folder / "a" / "whole", seed=1)
    parts = runs.write_run(folder / "a" / "parts", seed=2, rounds=1, rounds_per_segment=1)
    runs.write_run(parts, seed=2, first=1, attempt=2, rounds_per_segment=1)
    runs.write_run(folder / "b" / "unfinished", seed=3, rounds=0)
    shutil.copytree(folder / "b" / "unfinished", folder / "a" / "copy-of-unfinished")
    (segment,) = (folder / "b" / "unfinished").iterdir()
    with h5py.File(segment) as file:
        identity = file.attrs["run_id"]
    rest = runs.write_run(folder / "b" / "unfinished", seed=3, first=1, attempt=2)
    with h5py.File(rest / "results_002_001.h5") as file:
        assert file.attrs["run_id"] == identity
    (folder / "archives").mkdir()
    write_site(folder / "archives" / "site.h5", 9)
    return folder


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.h5"
    assert fedreid(["results", "collect", str(cluster), "-o", str(path)]) == 0
    return path


def test_every_run_has_an_identity_that_later_attempts_keep(tmp_path):
    first = runs.write_run(tmp_path / "first", rounds=0)
    identity = read_run(first).run_id
    assert read_run(runs.write_run(first, first=1, attempt=2)).run_id == identity
    second = runs.write_run(tmp_path / "second")
    assert read_run(second).run_id != identity
    shutil.copy(second / "results_001_001.h5", first / "results_003_001.h5")
    with pytest.raises(DataError, match=f"different runs in one folder: their run_id are {identity} and"):
        read_run(first)


def make_old(path, seconds):
    """Make an archive as it was before there were identities."""
    with h5py.File(path, "a") as file:
        del file.attrs["run_id"]
        file["rounds/phase_seconds"][0, 0] = seconds
        file.attrs[CONTENT_DIGEST] = content_digest(file)


def test_archives_of_before_there_were_identities_are_told_apart(tmp_path):
    old, other = (runs.write_run(tmp_path / name, rounds=0) for name in ("old", "other"))
    make_old(old / "results_001_001.h5", 2.5)
    make_old(other / "results_001_001.h5", 2.5 + 1e-9)
    identity = read_run(old).run_id
    assert identity != read_run(other).run_id
    assert read_run(runs.write_run(old, first=1, attempt=2)).run_id == identity
    assert fedreid(["results", "merge", str(old)]) == 0
    assert read_run(tmp_path / "old.h5").run_id == identity
    assert verify_results(old / "results_001_001.h5") == ()


def test_a_merged_run_is_the_run(cluster, tmp_path, capsys):
    folder, path = cluster / "a" / "parts", tmp_path / "parts.h5"
    assert len(list(folder.iterdir())) == 4
    assert fedreid(["results", "merge", str(folder), "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 4 files of {folder}\n"
    assert verify_results(path) == ()
    assert_same(stable_figures(path), stable_figures(folder))
    merged, run = read_run(path), read_run(folder)
    assert (merged.run_id, merged.header, merged.messages) == (run.run_id, run.header, run.messages)
    np.testing.assert_array_equal(merged.phase_seconds, run.phase_seconds)
    assert merged.rounds.tolist() == [0, 1, 2]
    with h5py.File(path) as file:
        assert file["rounds/loss"].dims[1][0].name == "/client"


def test_a_study_holds_each_run_once_and_whole(cluster, study, capsys):
    assert fedreid(["inspect", "--verify", str(study)]) == 0
    index = read_index(study)
    assert [row["label"] for row in index] == [f"fedpav-seed{seed}" for seed in (3, 2, 1)]
    assert [row["round"] for row in index] == [2, 2, 2]
    assert [row["rank_1"] for row in index] == [0.375] * 3  # mean of 0.5 and 0.25
    for label, source in (("1", "a/whole"), ("2", "a/parts"), ("3", "b/unfinished")):
        member = study / f"fedpav-seed{label}"
        assert_same(stable_figures(member), stable_figures(cluster / source))
        assert read_run(member).run_id == read_run(cluster / source).run_id
    with h5py.File(study) as file:
        run = file["runs/fedpav-seed1"]
        assert run["rounds/loss"].dims[1][0].name == "/runs/fedpav-seed1/client"
        with h5py.File(cluster / "a" / "whole" / "results_001_001.h5") as original:
            assert run.attrs[CONTENT_DIGEST] == original.attrs[CONTENT_DIGEST]
    capsys.readouterr()
    assert fedreid(["inspect", str(study)]) == 0
    assert "fedpav-seed2" in capsys.readouterr().out


def test_copies_are_told_and_the_one_with_most_rounds_counts(cluster, tmp_path, capsys):
    short, long = cluster / "a" / "copy-of-unfinished", cluster / "b" / "unfinished"
    for order in ((short, long), (long, short)):
        path = tmp_path / "study.h5"
        assert fedreid(["results", "collect", *map(str, order), "-o", str(path)]) == 0
        assert f"repeated: {short} is the same run as {long}, left out" in capsys.readouterr().out
        assert read_index(path)[0]["source"] == str(long)


def test_studies_are_collected_and_grow(study, tmp_path):
    path = tmp_path / "grown.h5"
    shutil.copy(study, path)
    more = runs.write_run(tmp_path / "more", name="local/1", seed=7)
    assert fedreid(["results", "collect", str(path), str(more), "-o", str(path)]) == 0
    labels = ["fedpav-seed1", "fedpav-seed2", "fedpav-seed3", "local_1-seed7"]
    assert sorted(row["label"] for row in read_index(path)) == labels
    assert verify(path) == ()
    for row in read_index(study):
        assert row["digest"] in {other["digest"] for other in read_index(path)}


def test_links_are_followed_and_told_when_what_they_point_at_changes(tmp_path):
    source = runs.write_run(tmp_path / "runs" / "one")
    path = tmp_path / "links.h5"
    assert fedreid(["results", "collect", str(source), "-o", str(path), "--link"]) == 0
    with h5py.File(path) as file:
        link = file["runs"].get("fedpav-seed0", getlink=True)
        assert (link.filename, link.path) == ("runs/one/results_001_001.h5", "/")
    assert verify(path) == ()
    moved = tmp_path / "moved"
    moved.mkdir()
    path = path.rename(moved / "links.h5")
    shutil.move(tmp_path / "runs", moved)
    assert_same(stable_figures(path / "fedpav-seed0"), stable_figures(moved / "runs" / "one"))
    assert fedreid(["results", "collect", str(path), "-o", str(path), "--link"]) == 0
    assert verify(path) == ()
    shutil.rmtree(moved / "runs")
    runs.write_run(moved / "runs" / "one", rounds=1)
    assert [fault.partition(": ")[0] for fault in verify(path)] == [
        "/runs/fedpav-seed0 is not the run that was collected"
    ]
    shutil.rmtree(moved / "runs")
    assert "no such file" in verify(path)[0]


def test_a_study_does_not_link_to_itself(study, capsys):
    before = study.read_bytes()
    assert fedreid(["results", "collect", str(study), "-o", str(study), "--link"]) == 2
    assert "cannot hold links to itself" in capsys.readouterr().err
    assert study.read_bytes() == before


def test_broken_and_foreign_files_are_named_and_the_rest_is_collected(tmp_path, capsys):
    good = runs.write_run(tmp_path / "in" / "good")
    wreck = runs.write_run(tmp_path / "in" / "wreck") / "results_001_001.h5"
    wreck.write_bytes(wreck.read_bytes()[:5000])
    (tmp_path / "in" / "notes.h5").write_text("no archive")
    changed = runs.write_run(tmp_path / "in" / "changed") / "results_001_001.h5"
    with h5py.File(changed, "a") as file:
        file["rounds/loss"][1, 0] += 1e-9
    path, missing = tmp_path / "study.h5", tmp_path / "missing"
    assert fedreid(["results", "collect", str(tmp_path / "in"), str(missing), "-o", str(path)]) == 3
    printed = capsys.readouterr()
    told = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    for part, reason in (
        (f"{wreck}: ", "damaged"),
        (f"{tmp_path / 'in' / 'notes.h5'}: ", "not an HDF5 file"),
        (f"{changed}: ", "damaged or changed"),
        (f"{missing}: ", "no such"),
    ):
        assert [part in line and reason in line for line in told].count(True) == 1
    assert len(told) == 4
    assert printed.err.splitlines()[-1].startswith("fedreid-mpi: error: skipped ")
    assert printed.err.splitlines()[-1].endswith("(and 3 more)")
    assert printed.out == f"{path}: 1 run\n"
    assert [row["source"] for row in read_index(path)] == [str(good)]
    assert verify(path) == ()


def test_with_nothing_to_collect_nothing_is_written(tmp_path, capsys, study):
    path = tmp_path / "study.h5"
    shutil.copy(study, path)
    (tmp_path / "empty").mkdir()
    assert fedreid(["results", "collect", str(tmp_path / "empty"), "-o", str(path)]) == 3
    assert "no run to collect" in capsys.readouterr().err
    assert path.read_bytes() == study.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "study.h5"]
    nowhere = tmp_path / "none" / "study.h5"
    assert fedreid(["results", "collect", str(study), "-o", str(nowhere)]) == 1
    assert f"{nowhere}: cannot be written: No such file or directory" in capsys.readouterr().err


def test_every_change_of_a_study_is_found(study, tmp_path):
    path = tmp_path / "changed.h5"
    for name, change, fault in (
        ("index/rank_1", lambda data: data.__setitem__(0, 0.9), "content_digest is not that of the content"),
        (
            "runs/fedpav-seed2/rounds/loss",
            lambda data: data.__setitem__((1, 1), 0.0),
            "something was changed",
        ),
    ):
        shutil.copy(study, path)
        with h5py.File(path, "a") as file:
            change(file[name])
        assert any(fault in found for found in verify(path)), name
    shutil.copy(study, path)
    with h5py.File(path, "a") as file:
        del file["runs/fedpav-seed1"]
    assert verify(path) == ("/runs and /index do not name the same runs",)
    with h5py.File(path, "a") as file:
        file.move("runs/fedpav-seed2", "runs/fedpav-seed1")
    assert verify(path) == ("/runs and /index do not name the same runs",)


def test_runs_of_a_study_are_addressed_like_files(study, tmp_path, capsys):
    with pytest.raises(DataError, match="holds many runs; name one of them"):
        read_run(study)
    with pytest.raises(DataError, match=r"study\.h5/none: .* has no such run"):
        read_run(study / "none")
    refused = []
    assert [str(each) for each in find_runs([study / "fedpav-seed2"], refused.append)] == [
        str(study / "fedpav-seed2")
    ]
    assert list(find_runs([study / "none"], refused.append)) == []
    assert "no such run" in str(refused[0])
    plots = str(tmp_path / "plots")
    assert fedreid(["results", "show", str(study / "fedpav-seed2"), "--plots", plots]) == 0
    assert "50.0" in capsys.readouterr().out


def test_how_a_run_stood_is_kept(tmp_path, capsys):
    folder = runs.write_run(tmp_path / "run", rounds=1)
    write_status(folder, Status("interrupted", round=1, rounds=2, attempt=1))
    path = tmp_path / "study.h5"
    assert fedreid(["results", "collect", str(folder), "-o", str(path)]) == 0
    capsys.readouterr()
    for where in (folder, path):
        assert fedreid(["results", "list", str(where)]) == 0
        assert "interrupted" in capsys.readouterr().out
    (folder / "status.json").write_text("[")
    assert fedreid(["results", "list", str(folder)]) == 0
    assert "unfinished" in capsys.readouterr().out


def test_many_archives_are_examined_on_several_processes(tmp_path, capsys):
    source = runs.write_run(tmp_path / "run", rounds=0)
    wreck = tmp_path / "wreck.h5"
    wreck.write_bytes(source.joinpath("results_001_001.h5").read_bytes()[:5000])
    path = tmp_path / "study.h5"
    many = [str(source)] * MANY
    assert fedreid(["results", "collect", *many, str(wreck), "-o", str(path)]) == 3
    printed = capsys.readouterr()
    assert printed.out.count("repeated: ") == MANY - 1
    assert f"skipped: {wreck}: " in printed.err
    assert verify(path) == ()
