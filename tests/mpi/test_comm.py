"""The communicator, and the exchange of models over it: alone, and on ranks."""

import os
import subprocess
import sys

import pytest

from fedreid_mpi.comm import SingleCommunicator, connect
from fedreid_mpi.comm.mpi.launch import launched_size
from fedreid_mpi.errors import ConfigurationError
from support.launching import ERROR, Launcher, launch, launch_program, mpich, mpirun
from support.on_ranks.mpi_contract import ASKED, CASES
from support.on_ranks.mpi_exchange import CASES as EXCHANGE

SIZES = (1, 2, 4)


@pytest.fixture(scope="module")
def over_mpi(tmp_path_factory):
    return launch_program(max(SIZES), "mpi_exchange.py", *map(str, SIZES), cwd=tmp_path_factory.mktemp("mpi"))


@pytest.mark.parametrize("name", CASES)
def test_the_contract_alone(name):
    ASKED.clear()
    CASES[name](SingleCommunicator(lambda: bool(ASKED)))


@pytest.mark.parametrize("name", EXCHANGE)
def test_the_exchange_alone(name):
    EXCHANGE[name](SingleCommunicator())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*CASES, *EXCHANGE])
def test_the_contract_and_the_exchange_over_mpi(name, size, over_mpi):
    assert f"passed {size} {name}" in over_mpi.stdout.splitlines(), over_mpi.stderr
    assert over_mpi.code == 0


def test_the_contract_over_mpich(tmp_path):
    ended = launch_program(4, "mpi_contract.py", "2", "4", cwd=tmp_path, launcher=mpich())
    assert ended.code == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == sorted(f"passed {n} {name}" for n in (2, 4) for name in CASES)


def test_a_group_of_ranks_does_not_hear_another(over_mpi):
    assert over_mpi.stdout.splitlines()[-1] == "groups do not hear each other", over_mpi.stderr
    assert over_mpi.code == 0


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(variable, raising=False)
    assert isinstance(connect(), SingleCommunicator)


@pytest.mark.parametrize(
    ("environment", "size", "launcher"),
    [
        ({}, 1, ""),
        ({"OMPI_COMM_WORLD_SIZE": "10"}, 10, "Open MPI"),
        ({"PMI_SIZE": "4"}, 4, "MPICH"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 8, "srun"),
        ({"SLURM_STEP_NUM_TASKS": "2", "OMPI_COMM_WORLD_SIZE": "4"}, 4, "Open MPI"),
        ({"PMI_SIZE": "x"}, 1, ""),
    ],
)
def test_launchers_are_told_by_their_environment(environment, size, launcher):
    found = launched_size(environment)
    assert found[0] == size
    assert found[1].startswith(launcher)
    assert bool(found[1]) == bool(launcher)


MISMATCH = (
    "import sys\nfrom fedreid_mpi.cli import run\nsys.exit(run(['train', 'x.toml', '--run-dir', 'run']))\n"
)


def test_a_launcher_of_another_mpi_is_refused(tmp_path):
    mpirun()
    environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "4"}
    ended = subprocess.run(
        [sys.executable, "-c", MISMATCH],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == ConfigurationError.exit_code == 2
    assert ended.stderr.startswith(f"{ERROR} Open MPI started 4 processes, but ")
    assert "which mpi4py uses, sees 1" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_shell_of_several_tasks_is_told_how_to_run_alone(tmp_path):
    """As `srun -n 4 --pty bash` leaves one."""
    mpirun()
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}
    command = [sys.executable, "-c", MISMATCH]
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 60}
    ended = subprocess.run(command, **options, check=False)
    assert ended.returncode == 2
    assert "srun started 4 processes" in ended.stderr
    advice = "to run alone in a shell of srun: env -u SLURM_STEP_NUM_TASKS COMMAND\n"
    assert ended.stderr.endswith(advice)
    followed = subprocess.run(["env", "-u", "SLURM_STEP_NUM_TASKS", *command], **options, check=False)
    assert "x.toml: cannot read the experiment" in followed.stderr


@pytest.mark.parametrize("library", ["Open MPI", "MPICH"])
def test_a_launcher_with_the_other_library_is_refused_in_one_line(library, tmp_path):
    other = mpich()
    if library == "Open MPI":
        mixed = Launcher(other.command, {})
    else:
        mixed = Launcher(mpirun().command, {**mpirun().environment, **other.environment})
    ended = launch(2, sys.executable, "-c", MISMATCH, cwd=tmp_path, launcher=mixed)
    assert ended.code == 2
    (line,) = ended.errors
    assert "MPICH" in line
    assert "Open MPI" in line
    assert not (tmp_path / "run").exists()
