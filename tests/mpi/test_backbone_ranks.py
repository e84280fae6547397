"""One round of a small network of each family of backbones gives the same bits on 1, 2 and 4 ranks."""

import pytest

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.run.loop import run_federation
from support.launching import launch_program
from support.on_ranks.mpi_backbones import FAMILIES, narrow_networks
from support.same_runs import assert_same_run
from support.small import Silent, write_experiment, write_site

pytestmark = pytest.mark.timeout(900)  # four ranks on two busy cores


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    sites = {"a": 8, "b": 12, "c": 9}  # two ranks or three share them out otherwise
    archives = [
        write_site(folder / f"{name}.h5", images, test_people=2, seed=images, height=32, width=32)
        for name, images in sites.items()
    ]
    return {
        family: write_experiment(
            folder / f"{family}.toml",
            archives,
            run={"rounds": 1},
            model={"backbone": backbone},
            evaluation={"every": 1, "local_models": False},
        )
        for family, backbone in FAMILIES.items()
    }


@pytest.fixture(scope="module")
def together(experiments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    ended = launch_program(4, "mpi_backbones.py", folder, *experiments.values(), cwd=folder, timeout=800)
    assert ended.code == 0, ended.stderr
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_of_backbones_gives_the_same_bits_on_any_number_of_ranks(
    family, together, experiments, tmp_path
):
    with narrow_networks():
        run_federation(SingleCommunicator(), load_experiment(experiments[family]), tmp_path / "1", Silent())
    for ranks in ("2", "4"):
        assert_same_run(together / family / ranks, tmp_path / "1")
