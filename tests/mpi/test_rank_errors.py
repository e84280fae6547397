"""An error on any one rank ends all ranks soon, with one line and an exit code."""

import json
import sys

import pytest

from fedreid_mpi.results import read_run
from support.launching import ERROR, PROGRAMS, launch, launch_program, mpich
from support.on_ranks.mpi_faults import BETWEEN_PHASES, IN_PHASES

RANKS = 3


@pytest.fixture(scope="module")
def failed(experiment_file, tmp_path_factory):
    """The folder of all failed runs, and exit code and words of every rank in each."""
    folder = tmp_path_factory.mktemp("faults")
    ended = launch_program(RANKS, "mpi_faults.py", "phases", experiment_file, folder, cwd=folder)
    assert ended.code == 0, ended.stderr
    return folder, json.loads((folder / "said.json").read_text())


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
