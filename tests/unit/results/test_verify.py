import hashlib
import shutil

import h5py
import numpy as np
import pytest

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive, read_tree, verify_dataset, write_archive
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results.verify import verify_features, verify_results
from support import archive_contents, hand_made, trees
from support.hand_made import renew_digest

PIDS = [-1, 0, 5, 5, 9, 9, 7]
SPLITS = [
    {"train": [6], "query": [2, 4], "gallery": [0, 1, 3, 5]},
    {"train": [2, 3], "query": [4], "multi_query": [5], "gallery": [6]},
]
ATTRIBUTES = {"cameras": 7, "train_images": 1, "query_identities": 2, "split_seed": 3, "subset_allowed": True}


def write(path, images=None, **changes):
    fields = {"pids": PIDS, "splits": SPLITS, "attributes": ATTRIBUTES, "notes": ["ä note"]} | changes
    pixels = archive_contents.pixels(len(fields.get("paths", PIDS)))
    write_archive(path, archive_contents.contents(**fields), archive_contents.stream(pixels))
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.h5")


def verify(path):
    return verify_dataset(path, lambda _: None)


def flip(path, position, mask, target):
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    target.write_bytes(content)
    return target


def error_line(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def view(path):
    """All that a reader sees."""
    opened, nodes = DatasetArchive.open(path), read_tree(path)
    with h5py.File(path) as file:
        values = [file[node.name][...].tobytes() for node in nodes if node.shape is not None]
    tree = [(node.name, node.shape, node.dtype, repr(node.attributes)) for node in nodes]
    splits = [
        [opened.split(role, number).tolist() for role in opened.roles(number)]
        for number in range(opened.splits)
    ]
    return tree, values, opened.images.tobytes(), opened.paths, opened.notes, opened.skipped, splits


def test_a_good_archive_verifies(good, capsys):
    done = []
    assert verify_dataset(good, done.append) == ()
    assert sum(done) == 7
    assert cli.run(["inspect", "--verify", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: verified, nothing wrong\n"


def test_prepared_archives_verify(tmp_path):
    for dataset in trees.FOLDERS:
        trees.write_tree(tmp_path / "in", dataset)
    arguments = ["--all", str(tmp_path / "in"), str(tmp_path / "out"), "--allow-subset", "--size", "40x16"]
    assert cli.run(["prepare", *arguments]) == 0
    archives = sorted((tmp_path / "out").iterdir())
    assert len(archives) == len(trees.FOLDERS)
    for path in archives:
        assert verify(path) == ()


def test_every_flipped_byte_of_an_image_is_found_and_named(good, tmp_path, capsys):
    images = DatasetArchive.open(good).images
    rng = np.random.default_rng(1)
    for place in rng.choice(images.nbytes, 60, replace=False):
        number = place // images[0].nbytes
        broken = flip(good, images.offset + place, int(rng.integers(1, 256)), tmp_path / "broken.h5")
        path = archive_contents.PATHS[number]
        assert verify(broken) == (f"image {number} ({path}) has other pixels than were written",)
    assert cli.run(["inspect", "--verify", str(broken)]) == 3
    assert f"{broken}: does not verify: image {number} ({path}) has other" in error_line(capsys)


@pytest.mark.parametrize(
    "name",
    ["pid", "camid", "path", "source_sha256", "pixel_sha256", "notes", "skipped", "splits/1/query"],
)
def test_every_flipped_byte_of_a_column_is_found(good, tmp_path, name):
    with h5py.File(good) as file:
        offset, size = file[name].id.get_offset(), file[name].id.get_storage_size()
    rng = np.random.default_rng(2)
    for place in rng.choice(size, min(size, 10), replace=False):
        broken = flip(good, offset + place, int(rng.integers(1, 256)), tmp_path / "broken.h5")
        assert verify(broken)


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(good, tmp_path):
    whole, rng = view(good), np.random.default_rng(3)
    found = 0
    for place in rng.choice(good.stat().st_size, 400, replace=False):
        broken = flip(good, place, int(rng.integers(1, 256)), tmp_path / "broken.h5")
        try:
            faults = verify(broken)
        except DataError:
            faults = ("unreadable",)
        assert faults or view(broken) == whole
        found += bool(faults)
    assert 100 < found < 400


def test_a_truncated_archive_does_not_verify(good):
    content = good.read_bytes()
    for length in range(0, len(content), 211):
        good.write_bytes(content[:length])
        with pytest.raises(DataError):
            verify(good)


def test_images_that_changed_places_are_found(good):
    with h5py.File(good, "r+") as file:
        file["images"][[2, 3]] = file["images"][...][[3, 2]]
    assert [fault.split()[1] for fault in verify(good)] == ["2", "3"]


def test_attributes_count_in_the_digest(good):
    with h5py.File(good, "r+") as file:
        file["pid"].attrs["description"] = "Something else"
    assert verify(good) == ("content_digest is not that of the content: something was changed",)
    with h5py.File(good, "r+") as file:
        del file.attrs["content_digest"]
    assert verify(good) == ("no attribute content_digest",)


BROKEN_RULES = {
    "/path is empty, or names an image twice": {"paths": ["a.jpg"] * 7},
    "/pid holds numbers below -1, or /camid below 0": {"camids": [1, 2, 3, 4, 5, 6, -1]},
    "/splits/0/query points outside of the 7 images": {"splits": [{"query": [7]}]},
    "/splits/0/query is not sorted, or names an image twice": {
        "splits": [{"train": [0, 1, 2, 3, 5, 6], "query": [4, 4]}]
    },
    "/splits/0: gallery and query share images": {
        "splits": [{"gallery": [0, 1, 2, 3, 5, 6], "query": [4, 5]}]
    },
    "/splits/0: 2 people are both in training and in test": {
        "splits": [{"train": [0, 2, 4, 6], "query": [3, 5], "gallery": [1]}]
    },
    "2 images are in no split": {"splits": [{"public": [0, 1, 2, 3, 4]}]},
    "attribute train_images is 3, but split 0 has 1": {"attributes": {"train_images": 3}},
    "attribute cameras is 6, but split 0 has 7": {"attributes": {"cameras": 6}},
    "attribute query_identities is 1, but split 0 has 2": {"attributes": {"query_identities": 1}},
    "skipped_files is not the length of /skipped": {"attributes": {"skipped_files": 2}},
    "attribute 'colour' is unknown": {"attributes": {"colour": "red"}},
    "attribute cameras is '7', expected integer": {"attributes": {"cameras": "7"}},
    "/splits holds [], expected 0, 1, …": {"splits": []},
}


@pytest.mark.parametrize("fault", BROKEN_RULES)
def test_broken_rules_are_named_though_the_digests_hold(tmp_path, fault):
    assert fault in verify(write(tmp_path / "x.h5", **BROKEN_RULES[fault]))


def test_other_layouts_are_named_though_the_digests_hold(good):
    def change(edit, *faults):
        shutil.copy(good, path := good.with_name("changed.h5"))
        with h5py.File(path, "r+") as file:
            edit(file)
            renew_digest(file)
        assert verify(path) == faults

    def replace(name, values):
        def edit(file):
            del file[name]
            file[name] = values

        return edit

    change(lambda file: None)
    change(replace("pid", np.zeros(7, np.int64)), "/pid holds int64, expected int32")
    change(replace("pid", np.zeros(6, np.int32)), "/pid has 6 of image, expected 7")
    change(replace("pid", np.zeros((7, 1), np.int32)), "/pid has 2 axes, expected 1")
    change(lambda file: file.__delitem__("camid"), "no dataset /camid")
    change(lambda file: file.create_dataset("age", data=1), "/age is unknown")
    change(lambda file: file.create_dataset("splits/0/test", data=[1]), "/splits/0/test is unknown")
    change(lambda file: file.attrs.__delitem__("layout"), "no attribute layout")
    change(lambda file: file.move("splits/1", "splits/2"), "/splits holds ['0', '2'], expected 0, 1, …")
    change(
        lambda file: file.attrs.modify("source_digest", "0" * 64),
        "source_digest is not that of /path and /source_sha256",
    )
    change(
        lambda file: file.attrs.modify("image_width", 7),
        "/images has shape (7, 12, 6, 3), other than image_height and image_width",
    )
    images = np.zeros((7, 12, 6, 3), np.uint8)

    def chunk(file):
        del file["images"]
        file.create_dataset("images", data=images, chunks=(1, 12, 6, 3))
        hashes = np.frombuffer(hashlib.sha256(images[0].tobytes()).digest(), np.uint8)
        file["pixel_sha256"][...] = hashes

    change(chunk, "/images is not in one piece")


@pytest.fixture
def segment(tmp_path):
    records = [hand_made.record(number) for number in range(1, 4)]
    return hand_made.write_run(tmp_path / "run", records) / "results_001_001.h5"


def test_results_verify(segment, capsys):
    assert verify_results(segment) == ()
    assert cli.run(["inspect", "--verify", str(segment)]) == 0


def test_results_that_break_rules_are_named(segment):
    def change(edit, *faults):
        shutil.copy(segment, path := segment.with_name("changed.h5"))
        with h5py.File(path, "r+") as file:
            stored = file.attrs["content_digest"]
            edit(file)
            if file.attrs["content_digest"] == stored:
                renew_digest(file)
        assert verify_results(path) == faults

    def put(name, where, value):
        def edit(file):
            file[name][where] = value

        return edit

    change(lambda file: None)
    change(put("client", 0, 3), "/client does not count from 0")
    change(put("evaluations/round", -1, 9), "/evaluations/round names rounds that /rounds/round does not")
    change(
        put("rounds/round", -1, 0),
        "/rounds/round is not increasing from 0",
        "/evaluations/round names rounds that /rounds/round does not",
    )
    change(put("cmc_rank", 3, 5), "/cmc_rank is not 1 to 50")
    change(put("evaluations/model", 0, "other"), f"/evaluations/model is not {', '.join(ModelKind)}")
    change(
        put("rounds/position", (1, 0), 2), "/rounds/position of round 2 is not an order of its participants"
    )
    change(put("evaluations/mean_ap", (0, 0, 0), 1.5), "/evaluations/mean_ap is not within 0 and 1")
    change(put("evaluations/cmc", (0, 0, 0, 49), 0), "/evaluations/cmc falls with the rank")
    change(
        put("evaluations/queries", (0, 0, 0), -1),
        "/evaluations/queries and unmatched differ in what was scored",
        "/evaluations/cmc holds scores where nothing was scored",
    )
    change(lambda file: file.__delitem__("events/kind"), "no dataset /events/kind")
    change(lambda file: file.attrs.create("seed", "one"), "attribute seed is 'one', expected integer")
    change(
        lambda file: file.attrs.modify("configuration", "rounds ="),
        "configuration is not TOML, or versions not JSON: Invalid value (at end of document)",
    )
    change(
        lambda file: file["rounds/loss"].attrs.modify("units", "m"),
        "/rounds/loss has units and volatile ('m', 0), expected ('1', False)",
    )
    change(
        lambda file: file["rounds/loss"].attrs.__delitem__("description"), "/rounds/loss has no description"
    )
    change(
        lambda file: file["rounds/finite"].attrs.__delitem__("dtype"),
        "/rounds/finite does not say that it is of truth values (attribute dtype)",
    )
    change(
        lambda file: file["rounds/loss"].dims[1].detach_scale(file["client"]),
        "/rounds/loss has axis client on [], expected client on /client",
    )
    change(
        lambda file: file.attrs.modify("content_digest", "0" * 64),
        "content_digest is not that of the content: something was changed",
    )


def test_features_verify_and_broken_rules_are_named(archive, model, tmp_path):
    saved = tmp_path / "features.h5"
    options = ["--multi-query", "--rerank", "--k1", "2", "--k2", "1", "--save", str(saved)]
    assert cli.run(["evaluate", str(model), str(archive.path), *options]) == 0
    assert cli.run(["inspect", "--verify", str(saved)]) == 0

    def change(edit, *faults):
        shutil.copy(saved, path := tmp_path / "changed.h5")
        with h5py.File(path, "r+") as file:
            edit(file[archive.name])
            renew_digest(file)
        assert verify_features(path) == faults

    def put(name, value):
        def edit(group):
            group[name][0] = value

        return edit

    def cut(name):
        def edit(group):
            values = group[name][1:]
            del group[name]
            group[name] = values

        return edit

    with h5py.File(saved) as file:
        name, images = archive.name, len(file[archive.name]["pid"])
    change(lambda group: None)
    change(put("splits/0/query", images), f"/{name}/splits/0/query points outside of the {images} images")
    change(cut("pid"), f"/{name}/pid has {images - 1} of image, expected {images}")
    change(cut("splits/0/first_match"), f"/{name}/splits/0/first_match has 1 of query, expected 2")
    change(lambda group: group.__delitem__("path"), "no dataset /<name>/path")
    change(
        lambda group: group.attrs.__delitem__("archive"),
        f"/{name} has attributes ['source_digest'], expected archive and source_digest",
    )


def test_an_archive_of_no_known_kind_is_refused(tmp_path, capsys):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["kind"] = "fedreid_mpi checkpoint"
    assert cli.run(["inspect", "--verify", str(tmp_path / "x.h5")]) == 3
    assert "of kind 'fedreid_mpi checkpoint', which has no specification" in error_line(capsys)
