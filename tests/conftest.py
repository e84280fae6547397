"""What several test modules share."""

import pytest
from many_splits import archive, model  # noqa: F401 (fixtures)
from slurm_cluster import slurm  # noqa: F401 (a fixture)
from small import write_experiment, write_sites


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    return write_sites(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="session")
def experiment_file(archives, tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiment") / "small.toml", archives)


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=25, metavar="N", help="damages of each kind of file")
