import fcntl
import hashlib
import re
import time

import h5py
import numpy as np
import pytest

from fedreid_mpi.data.archive import DatasetArchive, read_tree, write_archive
from fedreid_mpi.errors import ConfigurationError, DataError
from support.archive_contents import CAMIDS, PATHS, PIDS, contents, pixels, stream


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "market1501.h5"
    write_archive(path, contents(), stream(pixels()))
    return path


def test_what_was_written_is_read(path):
    archive = DatasetArchive.open(path)
    assert (archive.path, archive.name, archive.height, archive.width) == (path, "market1501", 12, 6)
    assert isinstance(archive.images, np.memmap)
    assert not archive.images.flags.writeable
    np.testing.assert_array_equal(archive.images, pixels())
    assert archive.pids.dtype == archive.camids.dtype == np.int64
    assert archive.pids.tolist() == PIDS
    assert archive.camids.tolist() == CAMIDS
    assert archive.paths == PATHS
    assert archive.skipped == ["query/broken.jpg"]
    assert archive.splits == 2
    assert archive.split("query").tolist() == [2, 6]
    assert archive.split("query").dtype == np.int64
    assert archive.split("gallery", 1).tolist() == [5]
    assert archive.roles() == ("train", "query", "gallery")
    assert archive.has("train", 1)
    assert not archive.has("public")
    assert not archive.has("train", 2)
    assert archive.attributes["split_seed"] == 3
    assert archive.attributes["subset_allowed"] is True
    digest = hashlib.sha256()
    for name, image in zip(PATHS, pixels(), strict=True):
        digest.update(name.encode() + b"\0" + hashlib.sha256(image).digest())
    assert archive.digest == digest.hexdigest()


def test_a_split_that_is_not_there_is_refused(path):
    archive = DatasetArchive.open(path)
    for role, index in (("public", 0), ("train", 2)):
        with pytest.raises(
            DataError, match=f"no split {index} for {role}, found 0: train, query, gallery; 1: train"
        ):
            archive.split(role, index)


def test_the_file_is_mappable_described_and_plain(path):
    with h5py.File(path) as file:
        images = file["images"]
        assert images.chunks is None
        assert images.compression is None
        assert images.id.get_create_plist().get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
        mapped = np.memmap(path, np.uint8, "r", images.id.get_offset(), images.shape)
        np.testing.assert_array_equal(mapped, images[...])
        assert file["pid"].dtype == file["camid"].dtype == np.int32
        assert h5py.check_string_dtype(file["path"].dtype).encoding == "utf-8"
        assert file.attrs["kind"] == b"fedreid_mpi dataset"
        assert file.attrs["format_version"] == 1
    datasets = [node for node in read_tree(path) if node.shape is not None]
    assert len(datasets) == 8 + 6
    assert all(node.attributes["description"] for node in datasets)
    assert next(node for node in datasets if node.name == "/images").attributes["units"]


def test_large_images_start_on_a_page(tmp_path):
    path = tmp_path / "large.h5"
    write_archive(path, contents(height=256, width=256), stream(pixels(7, 256, 256)))
    archive = DatasetArchive.open(path)
    assert archive.images.offset % 4096 == 0
    np.testing.assert_array_equal(archive.images, pixels(7, 256, 256))


def test_the_same_images_give_the_same_bytes(path):
    before = path.read_bytes()
    time.sleep(1.1)  # HDF5's own timestamps would count seconds
    write_archive(path, contents(), stream(pixels()))
    assert path.read_bytes() == before


def test_opening_takes_no_lock_and_keeps_no_handle(path):
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        archive = DatasetArchive.open(path)
        assert archive.paths == PATHS
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0


@pytest.mark.parametrize("images", [pixels()[:6], np.concatenate([pixels(), pixels()])])
def test_an_error_leaves_the_old_archive_and_no_temporary_file(path, images):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="zip"):
        write_archive(path, contents(), stream(images))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_archive_is_replaced_while_somebody_reads_it(path):
    old = DatasetArchive.open(path)
    write_archive(path, contents(name="viper"), stream(255 - pixels()))
    np.testing.assert_array_equal(old.images, pixels())
    assert DatasetArchive.open(path).name == "viper"
    assert list(path.parent.iterdir()) == [path]


def test_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="7 paths, 6 pids, 7 camids"):
        contents(pids=PIDS[1:])


def test_what_cannot_be_written_is_a_configuration_error(path):
    for target in (path / "inside.h5", path.parent / "absent" / "x.h5", path.parent):
        with pytest.raises(ConfigurationError, match=re.escape(f"{target}: cannot be written: ")):
            write_archive(target, contents(), stream(pixels()))
    assert list(path.parent.iterdir()) == [path]


def test_a_truncated_archive_is_refused_wherever_it_is_cut(path):
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape(str(path))):
            DatasetArchive.open(path)


def test_other_files_are_refused(tmp_path, path):
    def refused(message):
        with pytest.raises(DataError, match=message):
            DatasetArchive.open(tmp_path / "other.h5")

    refused("other.h5: no such file")
    (tmp_path / "other.h5").mkdir()
    refused("other.h5: a folder, expected an archive")
    (tmp_path / "other.h5").rmdir()
    (tmp_path / "other.h5").write_text("not HDF5")
    refused("not an HDF5 file")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = 1
    refused("not an archive of fedreid_mpi, but another HDF5 file")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file.attrs["kind"] = "fedreid_mpi results"
    refused("an archive of kind 'fedreid_mpi results', expected 'fedreid_mpi dataset'")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="format version 2, expected 1: prepare it again"):
        DatasetArchive.open(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 1
        del file["pid"]
    with pytest.raises(DataError, match="damaged"):
        DatasetArchive.open(path)
