"""An error on one rank, or something that it sees otherwise, ends all ranks soon, in one line."""

import json
import os
import re
import sys

import pytest

from fedreid_mpi.results import read_run
from fedreid_mpi.storage.run_directory import read_status
from support.launching import ERROR, PROGRAMS, launch, launch_program, mpich
from support.on_ranks.mpi_consistency import DIFFERENCES
from support.on_ranks.mpi_faults import BETWEEN_PHASES, IN_PHASES
from support.small import write_experiment, write_public, write_site

RANKS = 3


@pytest.fixture(scope="module")
def launched(experiment_file, tmp_path_factory):
    """The folders of all failed and of all refused runs, from a single launch."""
    failed, refused = tmp_path_factory.mktemp("faults"), tmp_path_factory.mktemp("agreement")
    for number, name in enumerate(("here", "there")):
        (refused / name).mkdir()
        write_site(refused / name / "site.h5", images=10, seed=number)
        write_public(refused / name / "public.h5", seed=number)
    write_experiment(refused / "here.toml", [refused / "here" / "site.h5"])
    ended = launch_program(RANKS, "mpi_faults.py", "phases", experiment_file, failed, refused, cwd=failed)
    assert ended.code == 0, ended.stderr
    return failed, refused


@pytest.fixture(scope="module")
def failed(launched):
    """The folder of all failed runs, and exit code and words of every rank in each."""
    return launched[0], json.loads((launched[0] / "said.json").read_text())


@pytest.fixture(scope="module")
def refused(launched):
    """The same of runs whose ranks did not see the same."""
    return launched[1], json.loads((launched[1] / "said.json").read_text())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_a_rank_sees_otherwise_is_told_once_with_its_host(name, refused):
    if name == "run-dir-private" and os.geteuid():
        pytest.skip("only root can become another user")
    (folder, outcomes), case = refused, DIFFERENCES[name]
    assert [code for code, _ in outcomes[name]] == [case.code] * RANKS
    lines = [line for _, heard in outcomes[name] for line in heard.splitlines() if line.startswith(ERROR)]
    assert len(lines) == 1
    assert re.match(f"{ERROR} {case.said}", lines[0]), lines[0]
    assert not any("Traceback" in heard for _, heard in outcomes[name])
    for run_dir in (folder / name, folder / "here" / name, folder / "there" / name):
        left = {path.name for path in run_dir.rglob("*") if path.is_file()}
        assert left in (set(), {"lock", "status.json"})
        assert not left or read_status(run_dir).state == "failed"


@pytest.mark.parametrize("name", IN_PHASES)
def test_an_error_in_a_phase_ends_all_ranks_alike(name, failed):
    folder, outcomes = failed
    fault, run_dir = IN_PHASES[name], folder / name
    assert [code for code, _ in outcomes[name]] == [fault.code] * RANKS
    lines = [line for _, heard in outcomes[name] for line in heard.splitlines() if line.startswith(ERROR)]
    assert len(lines) == 1
    assert lines[0].startswith(f"{ERROR} {fault.said}".replace("RUN_DIR", str(run_dir)))
    assert not any("Traceback" in heard for _, heard in outcomes[name])
    assert list(folder.glob(f"{name}/**/*.tmp")) == []


@pytest.mark.parametrize("name", ["start-client", "train", "commit"])
def test_the_traceback_of_an_unexpected_error_is_kept(name, failed):
    folder, outcomes = failed
    file = folder / name / "error.txt"
    assert str(file) in outcomes[name][0][1]
    assert IN_PHASES[name].said.rpartition(": ")[2] in file.read_text().splitlines()[-1]


@pytest.mark.parametrize("name", ["run-directory", "train-interrupt"])
def test_there_is_no_traceback_of_an_error_that_explains_itself(name, failed):
    assert list(failed[0].glob(f"{name}/error.txt")) == []


def test_an_error_before_the_run_directory_leaves_none(failed):
    assert not (failed[0] / "experiment").exists()
    assert not (failed[0] / "datasets").exists()


def test_what_was_committed_before_the_error_stands(failed):
    """The third of three commits failed: rounds 0 and 1 are there."""
    assert read_run(failed[0] / "commit").rounds.tolist() == [0, 1]
    assert (failed[0] / "commit" / "models" / "global.safetensors").is_file()


def play(name, experiment_file, folder, launcher=None):
    command = (sys.executable, PROGRAMS / "mpi_faults.py", "between", name, experiment_file, folder)
    ended = launch(2, *command, cwd=folder, launcher=launcher)
    assert ended.code != 0
    assert len(ended.errors) == 1, ended.stderr
    assert ended.errors[0].startswith(f"{ERROR} {BETWEEN_PHASES[name].said}")
    assert "Traceback" not in ended.stderr
    assert "Traceback" in (folder / name / "error.txt").read_text()


@pytest.mark.parametrize("name", BETWEEN_PHASES)
def test_an_error_between_phases_ends_all_ranks(name, experiment_file, tmp_path):
    play(name, experiment_file, tmp_path)


def test_an_error_between_phases_ends_all_ranks_of_mpich(experiment_file, tmp_path):
    play("client-leaves", experiment_file, tmp_path, mpich())
