import pytest

from fedreid_mpi.comm import SingleCommunicator
from support.launching import launch_program
from support.on_ranks.mpi_exchange import CASES

SIZES = (1, 2, 4)


@pytest.fixture(scope="module")
def over_mpi(tmp_path_factory):
    return launch_program(max(SIZES), "mpi_exchange.py", *map(str, SIZES), cwd=tmp_path_factory.mktemp("mpi"))


@pytest.mark.parametrize("name", CASES)
def test_the_exchange_alone(name, monkeypatch):
    CASES[name](SingleCommunicator())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_the_exchange_over_mpi(name, size, over_mpi):
    assert f"passed {size} {name}" in over_mpi.stdout.splitlines(), over_mpi.stderr
    assert over_mpi.code == 0
