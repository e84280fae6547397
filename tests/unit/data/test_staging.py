import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.staging import open_staged
from fedreid_mpi.errors import ConfigurationError, DataError
from support.small import HEIGHT, WIDTH, Silent, write_experiment, write_public, write_site

IMAGE = 3 * HEIGHT * WIDTH


@pytest.fixture
def archive(tmp_path):
    return write_site(tmp_path / "site.h5", 9)


def copies(folder):
    return sorted(folder.rglob("*.h5"))


def test_nothing_is_copied_without_a_folder(archive):
    assert open_staged(DatasetArchive.open(archive), "").path == archive


def test_copy_holds_the_same_and_is_made_once(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "node disk"))
    first = open_staged(DatasetArchive.open(archive), "$NODE_DISK/archives")
    assert first.path.parent.parent == tmp_path / "node disk" / "archives"
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
    assert sorted(path.suffix for path in Path(stage).glob("*/*")) == [".h5", ".lock"]


def overwrite_a_pixel(path):
    """Change a byte in the middle of the images, which opening does not compare."""
    offset = DatasetArchive.open(path).images.offset
    with path.open("r+b") as file:
        file.seek(offset + 3 * IMAGE)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_an_original_with_other_pixels_than_it_says_is_refused(archive, tmp_path):
    overwrite_a_pixel(archive)
    with pytest.raises(DataError, match=r"site\.h5: its copy on .* cannot be used: image 3 .* other pixels"):
        open_staged(DatasetArchive.open(archive), str(tmp_path / "node"))
    assert copies(tmp_path / "node") == []


def another_dataset(copy):
    write_site(copy, 13, seed=5)


def a_link(copy):
    other = write_site(copy.parent.parent / "other.h5", 13, seed=5)
    copy.unlink()
    copy.symlink_to(other)


def shortened(copy):
    copy.write_bytes(copy.read_bytes()[:5000])


@pytest.mark.parametrize("harm", [another_dataset, overwrite_a_pixel, a_link, shortened])
def test_a_copy_that_holds_something_else_is_made_anew(harm, archive, tmp_path):
    original, stage = DatasetArchive.open(archive), str(tmp_path / "node")
    harm(open_staged(original, stage).path)
    again = open_staged(original, stage)
    assert not again.path.is_symlink()
    assert again.path.read_bytes() == archive.read_bytes()
    made = again.path.stat().st_ino
    assert open_staged(original, stage).path.stat().st_ino == made


def test_no_link_is_followed_and_nothing_truncated(archive, tmp_path):
    original, stage = DatasetArchive.open(archive), tmp_path / "node"
    lock = open_staged(original, str(stage)).path.with_suffix(".lock")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    lock.unlink()
    lock.symlink_to(precious)
    with pytest.raises(ConfigurationError, match=r"^data\.stage: .*Too many levels of symbolic links"):
        open_staged(original, str(stage))
    assert precious.read_text() == "mine"
    assert archive.read_bytes() == lock.with_suffix(".h5").read_bytes()


def open_to_others(folder):
    folder.chmod(0o777)


def linked(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("harm", [open_to_others, linked])
def test_a_folder_that_others_can_get_at_is_refused(harm, archive, tmp_path):
    original, stage = DatasetArchive.open(archive), str(tmp_path / "node")
    harm(open_staged(original, stage).path.parent)
    with pytest.raises(ConfigurationError, match=r"expected one of user \d+ with 700; remove it"):
        open_staged(original, stage)


def test_who_copies_and_who_waits_gives_signs_of_life(archive, tmp_path):
    original, stage, beats = DatasetArchive.open(archive), str(tmp_path / "node"), []
    copy = open_staged(original, stage, lambda: beats.append(1)).path
    assert beats
    beats.clear()
    with copy.with_suffix(".lock").open("a") as file, ThreadPoolExecutor(1) as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = pool.submit(open_staged, original, stage, lambda: beats.append(1))
        while len(beats) < 3:
            assert not waiting.done()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert waiting.result().path == copy


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
