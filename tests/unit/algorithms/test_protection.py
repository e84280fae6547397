"""What a run is refused that asks for more protection than it can have."""

import subprocess
import sys

import pytest

from fedreid_mpi.algorithms.grouping import require_sums
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import ConfigurationError, TooFewClientsError
from fedreid_mpi.records import ClientSpec, Group
from fedreid_mpi.run import privacy
from fedreid_mpi.run.privacy import require_protection
from support.small import write_experiment

SPECS = tuple(
    ClientSpec(id, name, dataset, 9, 3, 0)
    for id, (name, dataset) in enumerate([("mall-camera1", 0), ("mall-camera2", 0), ("campus-camera1", 1)])
)


def load(tmp_path, archives, **sections):
    sections = {"privacy": {"secure_aggregation": True}, **sections}
    return load_experiment(write_experiment(tmp_path / "x.toml", archives[:2], **sections))


def test_masks_need_two_client_ranks(tmp_path, archives):
    experiment = load(tmp_path, archives)
    require_protection(experiment, SPECS, 3)
    with pytest.raises(ConfigurationError, match=r"needs 3 ranks or more, .* found 2"):
        require_protection(experiment, SPECS, 2)


def test_a_missing_package_is_named_with_how_to_get_it(tmp_path, archives, monkeypatch):
    monkeypatch.setattr(privacy, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"needs cryptography: pip install 'fedreid_mpi\[privacy\]'"):
        require_protection(load(tmp_path, archives), SPECS, 3)


def test_a_round_in_which_only_one_client_is_there_is_found_before_the_first(tmp_path, archives):
    away = {"mall-camera1": [[2, 3]], "campus-camera1": [[1, 2]]}
    experiment = load(
        tmp_path, archives, run={"rounds": 3}, federation={"clients": "camera", "availability": away}
    )
    with pytest.raises(ConfigurationError, match="in round 2 client mall-camera2 averages alone"):
        require_protection(experiment, SPECS, 3)


def test_a_client_that_is_alone_in_its_edge_is_found(tmp_path, archives):
    experiment = load(tmp_path, archives, federation={"clients": "camera", "edge_rounds": 1})
    with pytest.raises(ConfigurationError, match="in round 1 client campus-camera1 averages alone"):
        require_protection(experiment, SPECS, 3)


def test_a_sum_of_which_divergence_leaves_one_model_ends_the_run():
    two, one = Group((0, 1), {0: 1.0, 1: 1.0}, {}, 0), Group((2, 3), {3: 1.0}, {}, 0)
    require_sums([two, Group((4,), {}, {}, 0)])
    with pytest.raises(TooFewClientsError, match="only the model of client 3 is finite"):
        require_sums([two, one])


def test_a_run_without_privacy_needs_neither_package():
    found = "{'cryptography', 'dp_accounting'} & set(sys.modules)"
    program = f"import sys, fedreid_mpi.run.loop\nsys.exit(bool({found}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
