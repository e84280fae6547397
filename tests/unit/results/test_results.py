import dataclasses
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedreid_mpi.errors import DataError, FedReIDError
from fedreid_mpi.records import (
    Evaluation,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
)
from fedreid_mpi.results import ResultsWriter, read_run, stable_figures
from support.hand_made import HEADER, assert_same, record, scores, write_run


def test_every_field_comes_back(tmp_path):
    untrained = RoundRecord(
        plan=RoundPlan(0, (), 0.0, evaluate=True),
        evaluations=(Evaluation(0, 0, ModelKind.GLOBAL, scores(0.03125)),),
    )
    run = read_run(write_run(tmp_path / "run", [untrained, record(1), record(2)]))
    nan = np.nan
    assert run.header == HEADER
    assert run.mode == "federated"
    assert run.files == (tmp_path / "run" / "results_001_001.h5",)
    np.testing.assert_array_equal(run.rounds, [0, 1, 2])
    np.testing.assert_array_equal(run.learning_rate, [0.0, 0.05, 0.1 / 3])
    np.testing.assert_array_equal(run.evaluated, [True, False, True])
    np.testing.assert_array_equal(run.participated, [[False] * 3, [True, False, True], [True, False, True]])
    np.testing.assert_array_equal(run.position, [[-1, -1, -1], [1, -1, 0], [1, -1, 0]])
    np.testing.assert_array_equal(run.loss, [[nan] * 3, [1.5, nan, np.inf], [1.0, nan, np.inf]])
    np.testing.assert_array_equal(run.weight, [[nan] * 3, [1.0, nan, nan], [1.0, nan, nan]])
    np.testing.assert_array_equal(run.steps[1], [404, -1, 117])
    np.testing.assert_array_equal(run.images[1], [12936, -1, 3744])
    np.testing.assert_array_equal(run.finite[1], [True, False, False])
    np.testing.assert_array_equal(run.seconds[1], [12.5, nan, 4.5])
    assert run.phases == ("train", "aggregate")
    np.testing.assert_array_equal(run.phase_seconds, [[nan, nan], [13.0, 0.5], [13.0, 0.5]])
    assert run.traffic == ("models",)
    np.testing.assert_array_equal(run.bytes_sent, [[0], [94_000_000], [94_000_000]])
    np.testing.assert_array_equal(run.evaluations, [0, 1, 2])
    assert run.events == (record(1).events[0], record(2).events[0])
    for number in (1, 2):
        for client, model, expected in (
            (0, ModelKind.GLOBAL, scores(0.5 + number / 1000)),
            (0, ModelKind.LOCAL, scores(0.4)),
            (1, ModelKind.GLOBAL, scores(0.125, queries=9)),
            (2, ModelKind.LOCAL, scores(0.25)),
        ):
            found = run.score(number, client, model)
            np.testing.assert_array_equal(found.cmc, expected.cmc)
            assert dataclasses.astuple(found)[1:] == dataclasses.astuple(expected)[1:]
    assert run.score(1, 1, ModelKind.LOCAL) is None
    assert run.score(9, 0, ModelKind.GLOBAL) is None
    last = run.scores(int(run.evaluations[-1]), ModelKind.GLOBAL)
    assert [entry and entry.cmc[0] for entry in last] == [0.502, 0.125, None]


def test_a_large_configuration_fits(tmp_path):
    header = dataclasses.replace(HEADER, configuration="# " + "x" * 300_000 + "\n")
    run = read_run(write_run(tmp_path / "run", [record(1)], header))
    assert run.header == header
    assert run.mode == "federated"


def test_the_file_describes_itself(tmp_path):
    run_dir = write_run(tmp_path / "run", [record(1)])
    with h5py.File(run_dir / "results_001_001.h5", "r") as file:
        assert file.attrs["kind"] == "fedreid_mpi results"
        assert "volatile" in file.attrs["description"]
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) > 30
        for dataset in datasets:
            assert dataset.attrs["description"].endswith("."), dataset.name
            assert isinstance(dataset.attrs["units"], str), dataset.name
            assert dataset.attrs["volatile"].dtype == np.int8, dataset.name
            assert dataset.id.get_type().get_class() != h5py.h5t.OPAQUE
            for dimension in dataset.dims:
                assert dimension.label, dataset.name
                if not dataset.is_scale:
                    assert len(dimension[0]) == dataset.shape[dimension._dimension], dataset.name
        loss = file["rounds/loss"]
        assert [dimension.label for dimension in loss.dims] == ["round", "client"]
        assert loss.dims[1][0].name == "/client"


def test_a_new_segment_begins_at_the_boundary(tmp_path):
    records = [record(number) for number in range(1, 8)]
    split = write_run(tmp_path / "split", records, rounds_per_segment=3)
    whole = write_run(tmp_path / "whole", records)
    names = [f"results_001_00{n}.h5" for n in (1, 2, 3)]
    assert [path.name for path in read_run(split).files] == names
    assert [len(read_run(split / name).rounds) for name in names] == [3, 3, 1]
    assert_same(stable_figures(split), stable_figures(whole))


def test_rounds_that_an_attempt_repeats_count_once(tmp_path):
    run_dir = write_run(tmp_path / "run", [record(n, noise=1.0) for n in range(1, 6)], rounds_per_segment=2)
    again = dataclasses.replace(HEADER, attempt=2, ranks=HEADER.ranks[:2])
    resumed = [record(n, phase_seconds={"distil": 2.0, "train": float(n)}) for n in range(3, 8)]
    write_run(run_dir, resumed, again)
    run = read_run(run_dir)
    assert run.header == again
    assert run.rounds.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.evaluations.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert [event.round for event in run.events] == [1, 2, 3, 4, 5, 6, 7]
    assert run.phases == ("train", "aggregate", "distil")
    np.testing.assert_array_equal(run.phase_seconds[1:3], [[14.0, 0.5, np.nan], [3.0, np.nan, 2.0]])
    undisturbed = write_run(tmp_path / "undisturbed", [record(n) for n in range(1, 8)])
    assert_same(stable_figures(run_dir), stable_figures(undisturbed))


def test_segments_are_read_in_the_order_of_numbers(tmp_path):
    header = dataclasses.replace(HEADER, attempt=1000)
    write_run(tmp_path / "run", [record(1), record(2)], dataclasses.replace(HEADER, attempt=999))
    run = read_run(write_run(tmp_path / "run", [record(3)], header))
    assert run.rounds.tolist() == [1, 2, 3]
    assert run.header.attempt == 1000


def test_stable_figures_ignore_what_is_volatile_and_nothing_else(tmp_path):
    ranks = (RankInfo(0, "laptop", "solo", "cpu", (0, 1, 2), ()),)
    other = dataclasses.replace(HEADER, ranks=ranks, versions={}, git_commit="", attempt=3)
    first = stable_figures(write_run(tmp_path / "first", [record(1), record(2)]))
    second = [record(n, noise=9.0, bytes_sent={}, events=()) for n in (1, 2)]
    assert_same(first, stable_figures(write_run(tmp_path / "second", second, other)))
    changed = [record(1), record(2, weights={0: np.nextafter(1.0, 0.0)})]
    third = stable_figures(write_run(tmp_path / "third", changed))
    assert [path for path in first if first[path].tobytes() != third[path].tobytes()] == ["rounds/weight"]


def test_a_reader_keeps_its_view_while_the_writer_replaces(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    writer = ResultsWriter(run_dir, HEADER)
    writer.write(record(1))
    with h5py.File(run_dir / "results_001_001.h5", "r", locking=False) as file:
        writer.write(record(2))
        assert file["rounds/round"][()].tolist() == [1]
        assert read_run(run_dir).rounds.tolist() == [1, 2]


def test_an_error_before_the_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    writer = ResultsWriter(run_dir, HEADER)
    writer.write(record(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(FedReIDError, match=r"results_001_001\.h5: cannot be written: .*No space left"):
            writer.write(record(2))
    assert [path.name for path in run_dir.iterdir()] == ["results_001_001.h5"]
    assert read_run(run_dir).rounds.tolist() == [1]
    writer.write(record(2))
    assert read_run(run_dir).rounds.tolist() == [1, 2]


def write_for_ever(run_dir: Path, started: object) -> None:
    writer = ResultsWriter(run_dir, HEADER, rounds_per_segment=20)
    for number in range(1, 100_000):
        writer.write(record(number))
        started.set()


def test_a_kill_at_any_moment_leaves_a_prefix_of_whole_rounds(tmp_path):
    fork = multiprocessing.get_context("fork")
    moments = random.Random(0)
    for trial in range(20):
        run_dir = tmp_path / str(trial)
        run_dir.mkdir()
        started = fork.Event()
        child = fork.Process(target=write_for_ever, args=(run_dir, started), daemon=True)
        child.start()
        assert started.wait(60)
        deadline = time.monotonic() + moments.uniform(0.0, 0.3)
        while time.monotonic() < deadline:  # a reader beside the writer
            count = len(read_run(run_dir).rounds)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        run = read_run(run_dir)
        assert len(run.rounds) >= count
        assert run.rounds.tolist() == list(range(1, len(run.rounds) + 1))
        assert run.phase_seconds.shape == (len(run.rounds), 2)
        for number in run.rounds.tolist():
            assert run.score(number, 0, ModelKind.GLOBAL).cmc[0] == 0.5 + number / 1000
        resumed = dataclasses.replace(HEADER, attempt=2)
        write_run(run_dir, [record(len(run.rounds) + 1)], resumed)
        assert not list(run_dir.glob(".*"))
        assert len(read_run(run_dir).rounds) == len(run.rounds) + 1


def fill_the_disk(run_dir: Path, told) -> None:
    """Write rounds until the file may not grow any more, and tell what came of it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = (run_dir / "results_001_001.h5").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        write_run(run_dir, [record(2)], dataclasses.replace(HEADER, attempt=2))
    except FedReIDError as error:
        told.put(str(error))


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path):
    write_run(tmp_path, [record(1)])
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    child = fork.Process(target=fill_the_disk, args=(tmp_path, told), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert told.get(timeout=10) == f"{tmp_path / 'results_002_001.h5'}: cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["results_001_001.h5"]
    assert read_run(tmp_path).rounds.tolist() == [1]


def test_results_are_never_overwritten(tmp_path):
    run_dir = write_run(tmp_path / "run", [record(1)])
    with pytest.raises(FedReIDError, match="exists"):
        ResultsWriter(run_dir, HEADER)


def test_rounds_must_come_in_order(tmp_path):
    writer = ResultsWriter(tmp_path, HEADER)
    writer.write(record(2))
    with pytest.raises(ValueError, match="round 2 written after 2"):
        writer.write(record(2))


def test_a_folder_that_is_missing_cannot_be_written(tmp_path):
    with pytest.raises(FedReIDError, match="none: cannot be listed"):
        ResultsWriter(tmp_path / "none", HEADER).write(record(1))


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "text":
        path.write_text("epoch,loss\n1,2\n")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "a") as file:
            if how == "foreign":
                del file.attrs["kind"]
            elif how == "version":
                file.attrs["format_version"] = 99
            elif how == "lacking":
                del file["rounds/weight"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "damaged or truncated HDF5 file"),
        ("text", "not an HDF5 file"),
        ("empty", "not an HDF5 file"),
        ("foreign", "not an archive of fedreid_mpi, but another HDF5 file"),
        ("version", "format version 99, expected 2 to 3"),
        ("lacking", "content_digest is not that of the content"),
    ],
)
def test_files_that_are_not_as_they_should_be(tmp_path, how, message):
    run_dir = write_run(tmp_path / "run", [record(1)])
    damage(run_dir / "results_001_001.h5", how)
    with pytest.raises(DataError, match=message) as caught:
        read_run(run_dir)
    assert str(run_dir / "results_001_001.h5") in str(caught.value)


def test_folders_without_results(tmp_path):
    with pytest.raises(DataError, match="holds no results"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="no such run directory"):
        read_run(tmp_path / "none")


def test_files_of_different_runs_are_not_joined(tmp_path):
    write_run(tmp_path / "run", [record(1)])
    clients = (dataclasses.replace(HEADER.clients[0], images=5), *HEADER.clients[1:])
    write_run(tmp_path / "run", [record(2)], dataclasses.replace(HEADER, clients=clients, attempt=2))
    with pytest.raises(DataError, match="different runs in one folder: their clients/images differ"):
        read_run(tmp_path / "run")
