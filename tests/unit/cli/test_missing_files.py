"""Which archives an experiment means, and what is said where they are not there."""

import shlex

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.globs import with_files
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.results import read_run
from support.small import write_experiment, write_folds, write_public, write_site


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two archives to train on, a public one, and one of which everybody is tested."""
    folder = tmp_path_factory.mktemp("some [of nine]") / "archives"
    folder.mkdir()
    for number, name in enumerate(("viper", "ilids")):
        write_site(folder / f"{name}.h5", images=12, people=3, seed=number)
    write_public(folder / "cuhk02.h5")
    write_folds(folder / "caviar4reid.h5", people=6, strangers=4, folds=0)
    return folder


def names(experiment):
    return [path.name for path in experiment.data.archives]


def test_paths_of_the_command_line_are_relative_to_the_current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    path = write_experiment(tmp_path / "e.toml", ["of-the-file.h5"], data={"unseen": ["of-the-file-too.h5"]})
    said = [
        "data.archives=['viper.h5', '../x.h5', '/a/b.h5']",
        "data.public=cuhk02.h5",
        "model.weights=w.pth",
    ]
    data = load_experiment(path, [*said, "clustering.enabled=true"]).data
    assert data.archives[0] == folder / "viper.h5"
    assert str(data.archives[1]) == f"{folder}/../x.h5"
    assert str(data.archives[2]) == "/a/b.h5"
    assert data.public == folder / "cuhk02.h5"
    assert data.unseen == (tmp_path / "of-the-file-too.h5",)
    assert load_experiment(path, said[2:]).model.weights == folder / "w.pth"
    assert load_experiment(path, ["data={archives=['y.h5']}"]).data.archives == (folder / "y.h5",)
    assert load_experiment(path).data.archives == (tmp_path / "of-the-file.h5",)


def test_a_pattern_stands_for_what_can_be_trained_on(folder, monkeypatch):
    path = write_experiment(folder.parent / "e.toml", ["archives/*.h5"])
    experiment, words = with_files(load_experiment(path), {})
    assert names(experiment) == ["ilids.h5", "viper.h5"]
    assert words == (
        "data.archives: ilids, viper; left out: caviar4reid (for query and gallery alone), "
        "cuhk02 (for public alone)"
    )
    monkeypatch.chdir(folder)
    first = "data.archives=['viper.h5', '*.h5']"
    assert names(with_files(load_experiment(path, [first]), {})[0]) == ["viper.h5", "ilids.h5"]
    experiment, words = with_files(
        load_experiment(path, ["data.archives=['*.h5']", "data.unseen=['ilids.h5']"]), {}
    )
    assert names(experiment) == ["viper.h5"]
    assert "ilids (data.unseen)" in words
    plain = load_experiment(path, ["data.archives=['cuhk02.h5']"])
    assert with_files(plain, {}) == (plain, "")
    for pattern, found in (("none*.h5", "no file"), ("cuhk*.h5", r"cuhk02 \(for public alone\)")):
        with pytest.raises(
            ConfigurationError, match=rf"data\.archives: .*{pattern[:4]}\S* matches {found}, exp"
        ):
            with_files(load_experiment(path, [f"data.archives=['{pattern}']"]), {})


def test_a_run_trains_on_what_a_pattern_stands_for(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    path = write_experiment(tmp_path / "e.toml", ["none.h5"], run={"rounds": 1})
    pattern = ["--set", "data.archives=['archives/*.h5']"]
    assert run(["train", str(path), "--run-dir", str(tmp_path / "run"), *pattern]) in (0, None)
    assert "left out: caviar4reid" in capsys.readouterr().err
    assert [client.name for client in read_run(tmp_path / "run").header.clients] == ["ilids", "viper"]


def test_all_that_is_missing_is_named_with_what_makes_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sites = [folder / "viper.h5", tmp_path / "archives/market1501.h5", tmp_path / "archives/station.h5"]
    changes = {
        "data": {"unseen": ["archives/grid.h5"]},
        "model": {"weights": "r50.pth", "backbone": "resnet50"},
    }
    path = write_experiment(tmp_path / "e.toml", sites, **changes)
    with pytest.raises(SystemExit) as end:
        run(["train", str(path), "--run-dir", str(tmp_path / "run")])
    told = capsys.readouterr()
    assert end.value.code == 3
    missing = [tmp_path / "archives" / name for name in ("market1501.h5", "station.h5", "grid.h5")]
    assert told.err.splitlines()[-1] == "fedreid-mpi: error: " + "; ".join(
        [*(f"{path}: no such file" for path in missing), f"model.weights: {tmp_path}/r50.pth: no such file"]
    )
    _, *commands, advice = told.out.splitlines()
    assert commands == [
        f"  fedreid-mpi prepare --dataset {words} --size 32x16"
        for words in (
            "market1501 DATASETS/Market-1501-v15.09.15 archives/market1501.h5",
            "custom --name station MANIFEST.csv archives/station.h5",
            "grid DATASETS/underground_reid archives/grid.h5",
        )
    ]
    assert not (tmp_path / "run").exists()
    for command in commands:  # nothing is wrong with them but that the folders are not there
        assert run(shlex.split(command)[1:]) == 3
    prefix, _, setting = advice.partition("--set ")
    assert prefix == "To train on the available ones: "
    (setting,) = shlex.split(setting)
    there = ["data.unseen=[]", "model.backbone=small"]
    chosen, _ = with_files(load_experiment(path, [setting, *there]), {})
    assert names(chosen) == ["ilids.h5", "viper.h5"]
