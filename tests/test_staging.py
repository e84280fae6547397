import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small import Silent, write_experiment, write_public, write_site

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.staging import open_staged
from fedreid_mpi.errors import ConfigurationError


@pytest.fixture
def archive(tmp_path):
    return write_site(tmp_path / "site.h5", 9)


def copies(folder):
    return sorted(folder.glob("*.h5"))


def test_nothing_is_copied_without_a_folder(archive):
    assert open_staged(DatasetArchive.open(archive), "").path == archive


def test_copy_holds_the_same_and_is_made_once(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "node disk"))
    first = open_staged(DatasetArchive.open(archive), "$NODE_DISK/archives")
    assert first.path.parent == tmp_path / "node disk" / "archives"
    assert first.path.read_bytes() == archive.read_bytes()
    assert np.array_equal(first.images, DatasetArchive.open(archive).images)
    assert first.path.parent.stat().st_mode & 0o777 == 0o700
    assert first.path.stat().st_mode & 0o777 == 0o600
    made = first.path.stat().st_ino
    assert open_staged(DatasetArchive.open(archive), "${NODE_DISK}/archives").path.stat().st_ino == made


def test_other_content_under_the_same_name_is_another_copy(archive, tmp_path):
    old = open_staged(DatasetArchive.open(archive), str(tmp_path / "node"))
    write_site(archive, 11)
    new = open_staged(DatasetArchive.open(archive), str(tmp_path / "node"))
    assert (len(old.split("train")), len(new.split("train"))) == (9, 11)
    assert len(copies(tmp_path / "node")) == 2


def test_ranks_that_come_at_once_make_one_copy(archive, tmp_path):
    stage = str(tmp_path / "node")
    # The lock belongs to the open file, so threads are kept apart as processes are.
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(open_staged, [DatasetArchive.open(archive)] * 8, [stage] * 8))
    assert len({each.path.stat().st_ino for each in opened}) == len(copies(tmp_path / "node")) == 1
    assert sorted(path.suffix for path in Path(stage).iterdir()) == [".h5", ".lock"]


def test_copy_that_differs_is_refused_and_removed(archive, tmp_path, monkeypatch):
    def copy_badly(source, target):
        content = bytearray(Path(source).read_bytes())
        content[-1] ^= 1
        Path(target).write_bytes(content)

    monkeypatch.setattr(shutil, "copyfile", copy_badly)
    with pytest.raises(ConfigurationError, match=r"^data\.stage: .*the copy differs from .*site\.h5"):
        open_staged(DatasetArchive.open(archive), str(tmp_path / "node"))
    assert copies(tmp_path / "node") == []


def test_bad_folders_are_named(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(
        ConfigurationError, match=r'^data\.stage is "\$NOT_SET/x", of which .* knows no value$'
    ):
        open_staged(DatasetArchive.open(archive), "$NOT_SET/x")
    with pytest.raises(ConfigurationError, match=r"site\.h5 on .* cannot hold the .* GB of .*site\.h5: "):
        open_staged(DatasetArchive.open(archive), str(archive))


def test_staged_run_has_the_same_figures(tmp_path):
    from fedreid_mpi.results import stable_figures
    from fedreid_mpi.run.loop import run_federation

    sites = [write_site(tmp_path / f"{name}.h5", 9, seed=seed) for seed, name in enumerate("ab")]
    public = write_public(tmp_path / "public.h5")
    stage = tmp_path / "node"
    runs = []
    for folder in ("", str(stage)):
        path = write_experiment(
            tmp_path / "run.toml",
            sites,
            data={"public": str(public), "stage": folder},
            distillation={"enabled": True},
            run={"rounds": 1},
        )
        runs.append(tmp_path / f"run{len(runs)}")
        run_federation(SingleCommunicator(), load_experiment(path), runs[-1], Silent())
    plain, staged = (stable_figures(run) for run in runs)
    assert {name: values.tobytes() for name, values in plain.items() if values.dtype != object} == {
        name: values.tobytes() for name, values in staged.items() if values.dtype != object
    }
    assert len(copies(stage)) == 3
    models = [(run / "models" / "global.safetensors").read_bytes() for run in runs]
    assert models[0] == models[1]
