"""Clients by dataset, camera and identity, the pool, the edge hierarchy, and clients that come and go."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import partition, require_distinct
from fedreid_mpi.errors import ConfigurationError, FedReIDError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.oracles import assert_same_model, averaged
from support.small import SITES, Silent, write_experiment, write_public, write_site


@pytest.fixture
def play(archives, tmp_path):
    def run(name, **sections):
        path = write_experiment(tmp_path / f"{name}.toml", archives, **sections)
        run_federation(SingleCommunicator(), load_experiment(path), tmp_path / name, Silent())
        return tmp_path / name

    return run


def parts_of(archives, tmp_path, **federation):
    path = write_experiment(tmp_path / "parts.toml", archives, federation=federation)
    opened = [DatasetArchive.open(archive) for archive in archives]
    return opened, partition(opened, load_experiment(path))


def test_a_dataset_is_a_client(archives, tmp_path):
    opened, parts = parts_of(archives, tmp_path)
    assert [part.name for part in parts] == list(SITES)
    assert [part.images for part in parts] == list(SITES.values())
    assert [part.home for part in parts] == [0, 1, 2, 3, 4]
    assert parts[2].sources[0][1].tolist() == opened[2].split("train").tolist()


def test_a_camera_is_a_client(archives, tmp_path):
    opened, parts = parts_of(archives, tmp_path, clients="camera")
    assert [part.name for part in parts] == [f"{site}-camera{camera}" for site in SITES for camera in (1, 2)]
    for part in parts:
        ((number, indices),) = part.sources
        assert set(opened[number].camids[indices]) == {int(part.name[-1])}
    for number, archive in enumerate(opened):
        held = np.concatenate([part.sources[0][1] for part in parts if part.home == number])
        assert sorted(held) == archive.split("train").tolist()


def test_people_are_dealt_out(archives, tmp_path):
    opened, parts = parts_of(archives, tmp_path, clients="identity", identity_clients=2)
    assert len(parts) == 10
    for number, archive in enumerate(opened):
        shares = [set(archive.pids[part.sources[0][1]]) for part in parts if part.home == number]
        assert not shares[0] & shares[1]
        assert shares[0] | shares[1] == set(archive.pids[archive.split("train")])
        assert abs(len(shares[0]) - len(shares[1])) <= 1


def test_shares_are_what_they_always_were(archives, tmp_path):
    """Pinned: a run can be repeated with a later version."""
    opened, parts = parts_of(archives, tmp_path, clients="identity", identity_clients=2)
    shares = {part.name: set(opened[part.home].pids[part.sources[0][1]].tolist()) for part in parts}
    assert shares == {
        "harbour-share1": {3},
        "harbour-share2": {6},
        "campus-share1": {3, 6},
        "campus-share2": {9},
        "station-share1": {3, 12},
        "station-share2": {6, 9},
        "mall-share1": {3, 9, 15},
        "mall-share2": {6, 12},
        "library-share1": {3, 9, 18},
        "library-share2": {6, 12, 15},
    }


def test_datasets_that_cannot_stand_beside_each_other_are_refused(archives, tmp_path):
    def named(stem, seed):
        return DatasetArchive.open(write_site(tmp_path / f"{stem}.h5", images=8, seed=seed))

    first, second, pool = named("first", 1), named("second", 2), named("pool", 3)
    require_distinct([first, second])
    with pytest.raises(ConfigurationError, match=r"first\.h5 is the same dataset as .*first\.h5"):
        require_distinct([first, second, DatasetArchive.open(first.path)])
    (tmp_path / "other").mkdir()
    other = DatasetArchive.open(write_site(tmp_path / "other" / "second.h5", images=8, seed=4))
    with pytest.raises(ConfigurationError, match=r"second\.h5 and .*second\.h5 are both named 'second'"):
        require_distinct([first, other, second])
    with pytest.raises(ConfigurationError, match=r"pool\.h5 is named 'pool'"):
        require_distinct([first, pool])


def test_the_pool_holds_the_training_images_of_all(archives, tmp_path):
    opened, parts = parts_of(archives, tmp_path, mode="centralised")
    assert [part.name for part in parts] == [*SITES, "pool"]
    assert parts[-1].home is None
    assert parts[-1].images == sum(SITES.values())
    assert [(number, rows.tolist()) for number, rows in parts[-1].sources] == [
        (number, archive.split("train").tolist()) for number, archive in enumerate(opened)
    ]


def test_shares_depend_on_the_seed(archives, tmp_path):
    shares = []
    for seed in (3, 3, 4):
        path = write_experiment(
            tmp_path / "parts.toml",
            archives,
            run={"seed": seed},
            federation={"clients": "identity", "identity_clients": 2},
        )
        opened = [DatasetArchive.open(archive) for archive in archives]
        shares.append([part.sources[0][1].tolist() for part in partition(opened, load_experiment(path))])
    assert shares[0] == shares[1] != shares[2]


def test_cameras_are_tested_on_their_dataset(play):
    results = read_run(play("cameras", federation={"clients": "camera"}, run={"rounds": 1}))
    clients = results.header.clients
    assert [client.dataset for client in clients] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for left, right in zip(clients[::2], clients[1::2], strict=True):
        scores = [results.score(1, client.id, ModelKind.GLOBAL) for client in (left, right)]
        if left.test_images == 0:
            assert scores == [None, None]
        else:
            assert scores[0].cmc.tolist() == scores[1].cmc.tolist()


def test_edges_average_before_the_cloud_does(play):
    local = play("alone", run={"rounds": 1}, federation={"mode": "local", "clients": "camera"})
    files = sorted((local / "models" / "local").iterdir(), key=lambda path: int(path.name.partition("_")[0]))
    trained = [load_file(path) for path in files]
    edge = play("edge", run={"rounds": 1}, federation={"clients": "camera", "edge_rounds": 1})
    results = read_run(edge)
    assert results.group[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    images = [client.images for client in results.header.clients]
    for site in range(5):
        members = (2 * site, 2 * site + 1)
        expected = averaged(
            [trained[k] for k in members], [images[k] for k in members], max(images), len(images)
        )
        assert_same_model(load_file(edge / "models" / f"group_{site}.safetensors"), expected)
    both = play("cloud", run={"rounds": 2}, federation={"clients": "camera", "edge_rounds": 1})
    assert read_run(both).group[2].tolist() == [0] * 10
    assert [path.name for path in (both / "models").glob("*.safetensors")] == ["global.safetensors"]


def test_the_pool_trains_one_model_that_is_tested_everywhere(play, archives):
    results = read_run(play("central", federation={"mode": "centralised"}))
    pool = results.header.clients[-1]
    people = sum(len(np.unique(a.pids[a.split("train")])) for a in map(DatasetArchive.open, archives))
    assert (pool.name, pool.dataset, pool.images, pool.identities) == (
        "pool",
        -1,
        sum(SITES.values()),
        people,
    )
    assert results.participated[1].tolist() == [False] * 5 + [True]
    assert results.steps[1, 5] == 19  # 153 images in batches of 8; a last one of 1 is left out
    scored = [results.score(2, client, ModelKind.GLOBAL) is not None for client in range(6)]
    assert scored == [True, True, True, False, True, False]
    assert results.loss[2, 5] < results.loss[1, 5]


def test_clients_come_and_go(play):
    away = {"campus": [[1, 2]], "mall": [[2, 2], [4, 9]]}
    results = read_run(play("away", run={"rounds": 4}, federation={"availability": away}))
    present = results.participated[1:]
    assert present[:, 1].tolist() == [False, False, True, True]
    assert present[:, 3].tolist() == [True, False, True, False]
    assert present[:, [0, 2, 4]].all()


def test_a_round_in_which_everybody_is_away_changes_nothing(play):
    away = {name: [[2, 2]] for name in SITES}
    run_dir = play("empty", run={"rounds": 2}, federation={"availability": away})
    results = read_run(run_dir)
    assert not results.participated[2].any()
    once = play("once", run={"rounds": 1})
    same = [(path / "models" / "global.safetensors") for path in (run_dir, once)]
    assert_same_model(*map(load_file, same))
    for client in (0, 1, 2, 4):
        scores = [results.score(round, client, ModelKind.GLOBAL) for round in (1, 2)]
        assert scores[0].cmc.tolist() == scores[1].cmc.tolist()


def test_an_untrained_client_starts_from_the_mean_of_all_groups(play, tmp_path):
    public = write_public(tmp_path / "public.h5")
    sections = {
        "data": {"public": str(public)},
        "clustering": {"enabled": True, "max_distance": 1e-9},
        "federation": {"availability": {"campus": [[1, 1]]}},
    }
    run_dir = play("untrained", run={"rounds": 1}, **sections)
    results = read_run(run_dir)
    assert results.group[1].tolist() == [0, 1, 2, 3, 4]
    models = [load_file(run_dir / "models" / f"group_{group}.safetensors") for group in range(5)]
    others = [0, 2, 3, 4]
    images = [client.images for client in results.header.clients]
    assert_same_model(models[1], averaged([models[k] for k in others], [images[k] for k in others], None, 5))


@pytest.mark.parametrize(
    ("federation", "message"),
    [
        ({"availability": {"nowhere": [[1, 2]]}}, "names 'nowhere', expected one of harbour"),
        ({"clients_per_round": 6}, "is 6, expected at most 5, the number of clients"),
    ],
)
def test_wrong_clients_are_named(play, federation, message):
    with pytest.raises(FedReIDError, match=message):
        play("wrong", federation=federation)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"federation": {"mode": "local", "clients_per_round": 2}},
            "federation.clients_per_round has no effect",
        ),
        ({"federation": {"identity_clients": 2}}, "federation.identity_clients has no effect"),
        ({"federation": {"edge_rounds": 2}}, "federation.edge_rounds has no effect"),
        ({"federation": {"mode": "centralised", "clients": "camera"}}, "federation.clients has no effect"),
        ({"federation": {"mode": "local"}, "aggregation": {"bn": "local"}}, "aggregation.bn has no effect"),
        (
            {"federation": {"mode": "centralised"}, "reliability": {"min_clients": 2}},
            "reliability.min_clients has no effect",
        ),
        ({"distillation": {"every": 5}}, "distillation.every has no effect"),
        ({"clustering": {"partition": 1}}, "clustering.partition has no effect"),
        ({"data": {"public": "public.h5"}}, "data.public has no effect"),
        ({"distillation": {"enabled": True}}, "distillation.enabled = true needs data.public"),
        ({"optimizer": {"step_every": 5}}, "optimizer.step_every has no effect"),
    ],
)
def test_settings_that_do_nothing_are_refused(archives, tmp_path, sections, message):
    path = write_experiment(tmp_path / "idle.toml", archives, **sections)
    with pytest.raises(ConfigurationError, match=message):
        load_experiment(path)
