"""Full and failing disks: what was there stays usable, the message names file and cause, nothing is left."""

import errno
import itertools
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.data.archive import DatasetArchive, verify_dataset
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.evaluation import ExtractedFeatures, query_then_gallery
from fedreid_mpi.evaluation.ranking import evaluate_ranking
from fedreid_mpi.model import FlatModel, build_network, load_model, save_model
from fedreid_mpi.report.plots import write_plots
from fedreid_mpi.report.score_table import score_table
from fedreid_mpi.results import ResultsWriter, read_run
from fedreid_mpi.results.features import write_features
from fedreid_mpi.results.verify import verify_features
from fedreid_mpi.storage.hdf5.disk import create_hdf5
from support.bad_inputs import stock
from support.failing_disk import FailingDisk
from support.hand_made import HEADER, record
from support.launching import ERROR
from support.small import write_site

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
SMALL = config.Model(backbone="small", embedding_dim=16)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    return stock(tmp_path_factory.mktemp("disk") / "stock")


def dataset(folder, stocked):
    """Write a dataset archive over an older one."""
    write_site(folder / "site.h5", images=6, seed=len(list(folder.iterdir())) + 5)


def read_dataset(folder):
    assert verify_dataset(folder / "site.h5", lambda _: None) == ()
    return len(DatasetArchive.open(folder / "site.h5").pids)


def segment(folder, stocked):
    """Write two rounds of results; the second replaces the first one's file."""
    writer = ResultsWriter(folder, HEADER)
    for number in (1, 2):
        writer.write(record(number))


def read_results(folder):
    return read_run(folder).rounds.tolist() if list(folder.glob("results_*")) else []


def model(folder, stocked):
    """Save a model over another one."""
    flat = FlatModel(build_network(SMALL, None, 0), torch.device("cpu"))
    save_model(folder / "m.safetensors", flat, SMALL, 32, 16, 1)


def read_model(folder):
    return load_model(folder / "m.safetensors").height


def features(folder, stocked):
    """Save features and the scores of a split."""
    archive = DatasetArchive.open(stocked / "site.h5")
    images = query_then_gallery(archive)
    extracted = ExtractedFeatures(archive, images, torch.eye(len(images)))
    query, gallery = archive.split("query"), archive.split("gallery")
    ranking = evaluate_ranking(
        extracted.of(query).numpy(), archive.pids[query], archive.camids[query],
        extracted.of(gallery).numpy(), archive.pids[gallery], archive.camids[gallery],
    )  # fmt: skip
    made = {"protocol": "standard", "seed": 0, "multi_query": False, "reranked": False}
    with write_features(folder / "f.h5", stocked / "model.safetensors", made) as file:
        file.add(extracted, {0: ranking})


def read_features(folder):
    return verify_features(folder / "f.h5") if (folder / "f.h5").exists() else ()


def plots(folder, stocked):
    """Write all plots of a run."""
    results = read_run(stocked / "run")
    write_plots(results, score_table(results, None, None), folder)


def read_plots(folder):
    return all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in folder.glob("*.png"))


WRITERS = {
    "dataset": (dataset, read_dataset),
    "results": (segment, read_results),
    "model": (model, read_model),
    "features": (features, read_features),
    "plots": (plots, read_plots),
}


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fails_at_any_operation(name, for_good, stocked, tmp_path):
    write, read = WRITERS[name]
    folder = tmp_path / "disk"
    folder.mkdir()
    if name in ("dataset", "model"):  # there is an older one
        write(folder, stocked)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with FailingDisk(folder).inserted() as whole:
        write(folder, stocked)
    operations = whole.operations
    assert {"open", "write", "fsync", "replace"} <= set(operations)
    tried = len(operations) if name != "plots" else 5  # plots are slow, and all written alike
    for number, error in zip(range(tried), itertools.cycle(ERRORS), strict=False):
        shutil.rmtree(folder)
        folder.mkdir()
        for old, content in before.items():
            (folder / old).write_bytes(content)
        with FailingDisk(folder, number, error, for_good).inserted(), pytest.raises(FedReIDError) as caught:
            write(folder, stocked)
        assert str(folder) in str(caught.value), operations[number]
        assert os.strerror(error) in str(caught.value), (operations[number], str(caught.value))
        read(folder)
        if not for_good:
            assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []


def test_hdf5_reads_back_what_the_disk_refused(tmp_path):
    values = np.arange(5000)

    def write_and_read():
        with create_hdf5(tmp_path / "x.h5") as (file, _):
            for number in range(40):
                file.create_dataset(f"a{number}/b", data=values + number)
                file.flush()
            for number in range(40):
                np.testing.assert_array_equal(file[f"a{number}/b"][...], values + number)
            read.append(number)

    read = []
    with (
        FailingDisk(tmp_path, 3, errno.ENOSPC, True).inserted(),
        pytest.raises(OSError, match="No space left on device"),
    ):
        write_and_read()
    assert read == [39]


@pytest.fixture
def disk(tmp_path):
    """Mount file systems of given sizes, one after the other."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(kilobytes):
        if mounted:
            subprocess.run(["umount", folder], check=True)
            mounted.clear()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(kilobytes)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", folder], check=True)


def play(arguments, capsys):
    capsys.readouterr()
    try:
        code = run([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, [line for line in printed.err.splitlines() if line.startswith(ERROR)]


def test_a_run_on_a_disk_that_fills(stocked, disk, capsys):
    codes = []
    for size in (4, 40, 150, 250, 330, 420, 500, 1500, 8000):
        folder = disk(size)
        command = ["train", stocked / "good.toml", "--run-dir", folder / "run", "--set", "run.rounds=2"]
        code, lines = play(command, capsys)
        codes.append(code)
        if code == 0:
            assert read_run(folder / "run").rounds.tolist() == [0, 1, 2]
            continue
        assert len(lines) == 1
        assert str(folder / "run") in lines[0]
        assert "No space left on device" in lines[0]
        assert [path for path in folder.rglob("*") if path.name.endswith(".tmp")] == []
        rounds = read_results(folder / "run")
        assert rounds == list(range(len(rounds)))
        for path in (folder / "run").rglob("*.safetensors"):
            if not path.name.startswith("rank_"):  # a checkpoint's private state, which its manifest checks
                load_model(path)
    assert codes[0] != 0
    assert codes[-1] == 0
    assert len({*codes}) > 1


@pytest.mark.parametrize("size", [4, 12, 24, 40])
def test_features_on_a_disk_that_is_too_small(size, stocked, disk, capsys):
    folder = disk(size)
    command = ["evaluate", stocked / "model.safetensors", stocked / "site.h5", "--save", folder / "f.h5"]
    code, lines = play(command, capsys)
    if code:
        assert lines == [f"{ERROR} {folder / 'f.h5'}: cannot be written: No space left on device"]
        assert list(folder.iterdir()) == []
    else:
        assert verify_features(folder / "f.h5") == ()


def test_a_disk_that_cannot_be_written(stocked, disk, capsys):
    folder = disk(1000)
    (folder / "kept").write_text("kept")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    for command in (
        ["train", stocked / "good.toml", "--run-dir", folder / "run"],
        ["evaluate", stocked / "model.safetensors", stocked / "site.h5", "--save", folder / "f.h5"],
        ["results", "show", stocked / "run", "--plots", folder / "plots"],
    ):
        code, lines = play(command, capsys)
        assert code == 2
        assert len(lines) == 1
        assert str(folder) in lines[0]
        assert "Read-only file system" in lines[0]
    assert [path.name for path in folder.iterdir()] == ["kept"]
