"""The big four in every variant in which they come, and the benchmark's own layouts of all ten."""

import contextlib
import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.checks import find_duplicates
from fedreid_mpi.data.prepare import find_datasets, passed_over, survey
from fedreid_mpi.data.readers import (
    READERS,
    Choices,
    Record,
    cuhk03,
    cuhk03_mat,
    dukemtmc_reid,
    market1501,
    msmt17,
    processed,
    recognise,
)
from fedreid_mpi.data.readers.mat import open_image_cells, read_mat
from fedreid_mpi.data.readers.names import match_name
from fedreid_mpi.errors import ConfigurationError, DataError
from support import trees
from support import trees_big as big

pytestmark = pytest.mark.slow

MSMT17_V2 = ["list_train.txt", *(re.sub("^(train|test)/", r"mask_\1_v2/", path) for path in trees.MSMT17)]


def read(dataset, root, variant=None, **choices):
    """Recognise a folder; return the variant's name, the folder, and its listing."""
    found = recognise(READERS[dataset], root, variant)
    return found.variant.name, found.folder, found.variant.read(found.folder, Choices(**choices))


def records(facts):
    return {Record(path, *each) for path, each in facts.items() if each is not None}


def check(dataset, root, variant, folder, facts, **choices):
    """Every record of the one split, and the variant and the folder that were taken."""
    name, where, listing = read(dataset, root, **choices)
    assert (name, where.resolve()) == (variant, folder.resolve())
    (split,) = listing.splits
    assert len(split) == len(set(split))
    assert set(split) == records(facts)
    return listing


# --- Market-1501 and DukeMTMC-reID


@pytest.mark.parametrize(
    "nesting", [".", "Market-1501-v15.09.15", "Market", "market1501/Market-1501-v15.09.15"]
)
def test_market_is_found_one_level_down(tmp_path, nesting):
    folder = trees.touch_tree(tmp_path / nesting, trees.MARKET)
    given_folder = tmp_path / "market1501" if nesting.startswith("market1501") else tmp_path
    check("market1501", given_folder, "original", folder, trees.MARKET)
    check("market1501", folder, "original", folder, trees.MARKET)


@pytest.mark.parametrize(
    ("variant", "absent", "gallery"),
    [
        ("original", ("nothing",), 19_732),
        ("without-junk", ("-1_",), 15_913),
        ("matches-only", ("-1_", "0000_"), 13_115),
    ],
)
def test_market_without_junk_and_distractors(tmp_path, variant, absent, gallery):
    facts = {path: each for path, each in trees.MARKET.items() if not path.split("/")[1].startswith(absent)}
    trees.touch_tree(tmp_path, facts)
    check("market1501", tmp_path, variant, tmp_path, facts)
    assert recognise(READERS["market1501"], tmp_path).variant.splits["benchmark"]["gallery_images"] == gallery


def test_market_boxes_serve_the_queries_alone_and_further_distractors_are_left_out(tmp_path):
    facts = {**trees.MARKET, **big.GT_BBOX}
    trees.touch_tree(tmp_path, [*facts, "images/00000000.jpg", "gt_query/0001_c1s1_001051_00_good.mat"])
    listing = check("market1501", tmp_path, "original", tmp_path, facts)
    assert listing.notes[0].startswith("gt_bbox: 3 of 5 boxes serve multi-query scoring")
    assert listing.notes[1].startswith("images: the 500k distractors")


@pytest.mark.parametrize("nesting", [".", "DukeMTMC-reID", "Duke"])
def test_duke(tmp_path, nesting):
    folder = trees.touch_tree(tmp_path / nesting, trees.DUKE)
    check("dukemtmc-reid", tmp_path, "original", folder, trees.DUKE)


# --- MSMT17


def write_msmt17(folder, train="train", test="test"):
    facts = {
        re.sub("^train", train, re.sub("^test", test, path)): each for path, each in trees.MSMT17.items()
    }
    trees.touch_tree(folder, facts)
    for name, text in trees.MSMT17_LISTS.items():
        (folder / name).write_text(text)
    return facts


@pytest.mark.parametrize("nesting", [".", "MSMT17_V1", "MSMT17_V2"])
@pytest.mark.parametrize("version", [1, 2])
def test_msmt17_with_lists(tmp_path, nesting, version):
    if nesting.endswith(str(3 - version)):
        pytest.skip("no such thing")
    folders = ("train", "test") if version == 1 else ("mask_train_v2", "mask_test_v2")
    facts = write_msmt17(tmp_path / nesting, *folders)
    check("msmt17", tmp_path, f"V{version}", tmp_path / nesting, facts)
    validation = {
        f"{folders[0]}/{line.split()[0]}" for line in trees.MSMT17_LISTS["list_val.txt"].splitlines()
    }
    kept = {path: each for path, each in facts.items() if path not in validation}
    check("msmt17", tmp_path, f"V{version}", tmp_path / nesting, kept, training="train")


@pytest.mark.parametrize(
    ("variant", "facts"),
    [("market-style", big.MSMT17_MARKET), ("market-style-V1", big.MSMT17_MARKET_V1)],
)
@pytest.mark.parametrize("nesting", [".", "MSMT17"])
def test_msmt17_repackaged(tmp_path, variant, facts, nesting):
    folder = trees.touch_tree(tmp_path / nesting, facts)
    check("msmt17", tmp_path, variant, folder, facts)


def test_all_variants_of_msmt17_show_the_same(tmp_path):
    write_msmt17(tmp_path / "V1")
    write_msmt17(tmp_path / "V2", "mask_train_v2", "mask_test_v2")
    trees.touch_tree(tmp_path / "market", big.MSMT17_MARKET)
    trees.touch_tree(tmp_path / "market-V1", big.MSMT17_MARKET_V1)
    trees.touch_tree(tmp_path / "processed", big.processed("msmt17")[0])
    seen = {
        folder.name: Counter((r.pid, r.camid, r.role) for r in read("msmt17", folder)[2].splits[0])
        for folder in tmp_path.iterdir()
    }
    assert len(seen) == 5
    assert all(shown == seen["V1"] for shown in seen.values())
    published = {json.dumps(v.splits["benchmark"]) for v in READERS["msmt17"].variants}
    assert len(published) == 1


def test_training_on_the_training_list_alone_has_other_counts(tmp_path):
    write_msmt17(tmp_path)
    counts = survey("msmt17", tmp_path, Choices(training="train")).counts
    assert {each.key: each.expected for each in counts}["train_images"] == 30_248
    (tmp_path / "counts.json").write_text('{"train_images": 4, "cameras": 8}')
    assert {each.expected for each in survey("msmt17", tmp_path, Choices(training="train")).counts} == {None}
    whole = {each.key: each.expected for each in survey("msmt17", tmp_path, Choices()).counts}
    assert (whole["train_images"], whole["cameras"], whole["query_images"]) == (4, 8, None)


# --- CUHK03


def test_cuhk03_folders_tell_their_half_by_name(tmp_path):
    for half in ("detected", "labeled"):
        trees.touch_tree(tmp_path / "cuhk03-np" / half, trees.CUHK03)
    root = tmp_path / "cuhk03-np"
    check("cuhk03-np", root, "detected", root / "detected", trees.CUHK03)
    check("cuhk03-np", root / "detected", "detected", root / "detected", trees.CUHK03)
    check("cuhk03-np", root / "labeled", "labeled", root / "labeled", trees.CUHK03)
    name, folder, _ = read("cuhk03-np", root, "labeled")
    assert (name, folder) == ("labeled", root / "labeled")
    (root / "labeled").rename(root / "labelled")
    assert recognise(READERS["cuhk03-np"], root, "labeled").folder == root / "labelled"
    expected = {
        variant.name: variant.splits["benchmark"]["train_images"] for variant in READERS["cuhk03-np"].variants
    }
    assert expected == {
        "detected": 7_365, "labeled": 7_368, "processed": 7_365, "mat-detected": 7_365, "mat-labeled": 7_368,
    }  # fmt: skip


WRITERS = {
    "v5": big.write_mat5,
    "v7": lambda path: big.write_mat5(path, compressed=True),
    "v7.3": big.write_mat73,
}


def write_cuhk03(root, version, release="cuhk03_release"):
    (root / release).mkdir(parents=True, exist_ok=True)
    WRITERS[version](root / release / "cuhk-03.mat")
    for half in big.COLUMNS:
        big.write_config(root / f"cuhk03_new_protocol_config_{half}.mat", half)


def shown(half, role_of):
    """Records of one half, with a role by name, person and camera."""
    return {
        Record(f"cuhk-03.mat/{half}/{name}", pid, camera, role_of(name, pid, camera))
        for name, (pid, camera, _) in big.cuhk03_shots(half).items()
    }


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("half", big.COLUMNS)
def test_cuhk03_from_its_matlab_file(tmp_path, version, half):
    write_cuhk03(tmp_path, version)
    variant = None if half == "detected" else "mat-labeled"
    for root in (tmp_path, tmp_path / "cuhk03_release"):
        name, folder, listing = read("cuhk03-np", root, variant)
        assert (name, folder) == (f"mat-{half}", tmp_path / "cuhk03_release")
        (split,) = listing.splits
        roles = big.new_protocol(half)
        assert set(split) == shown(half, lambda name, *_, roles=roles: roles[name])
        assert len(split) == len(roles)
        assert "holds both halves" in listing.notes[0]
    for name, (_, _, pixels) in big.cuhk03_shots(half).items():
        image = listing.load(f"cuhk-03.mat/{half}/{name}")
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("version", WRITERS)
def test_cuhk03_classic_splits(tmp_path, version):
    write_cuhk03(tmp_path, version)
    _, _, listing = read("cuhk03-np", tmp_path, splits="classic")
    first = {1: 0, 2: 3, 3: 4, 4: 6, 5: 7}  # people before each pair
    assert len(listing.splits) == len(big.CLASSIC)
    for split, people in zip(listing.splits, big.CLASSIC, strict=True):
        tested = {first[pair] + person for pair, person in people}

        def role(name, pid, camera, tested=tested):
            return "train" if pid not in tested else {1: "query", 2: "gallery"}[camera]

        assert set(split) == shown("detected", role)
    assert not listing.drawn


@pytest.mark.parametrize("version", WRITERS)
def test_images_go_from_the_matlab_file_into_the_archive(tmp_path, version):
    write_cuhk03(tmp_path, version)
    arguments = ["--dataset", "cuhk03-np", "--size", "40x16", "--allow-subset", str(tmp_path)]
    chosen, config = tmp_path / "chosen.h5", tmp_path / "cuhk03_new_protocol_config_detected.mat"
    assert cli.run(["prepare", *arguments, str(chosen), "--split-file", str(config)]) == 0
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    archives = {}
    for jobs in ("1", "3"):
        for name in ("benchmark", "classic"):
            archives[name] = tmp_path / f"{name}{jobs}.h5"
            command = ["prepare", "--jobs", jobs, "--splits", name, *arguments, str(archives[name])]
            assert cli.run(command) == 0
    assert f"splits from {config.name}, SHA-256 {digest}" in DatasetArchive.open(chosen).notes
    archive, classic = (DatasetArchive.open(path) for path in archives.values())
    shots = big.cuhk03_shots("detected")
    assert archive.paths == classic.paths == sorted(f"cuhk-03.mat/detected/{name}" for name in shots)
    for index, path in enumerate(archive.paths):
        pixels = Image.fromarray(shots[path.rpartition("/")[2]][2])
        expected = np.asarray(pixels.resize((16, 40), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(archive.images[index], expected)
        np.testing.assert_array_equal(classic.images[index], expected)
    assert (archive.splits, classic.splits) == (1, 3)
    assert classic.attributes["split_rule"] == "classic"
    assert classic.attributes["train_identities"] == 6
    assert "split_seed" not in classic.attributes


def test_the_protocol_may_be_saved_anew(tmp_path):
    write_cuhk03(tmp_path, "v7.3")
    before = read("cuhk03-np", tmp_path)[2].splits
    big.write_config73(tmp_path / "cuhk03_new_protocol_config_detected.mat", "detected")
    assert read("cuhk03-np", tmp_path)[2].splits == before


def test_cuhk03_needs_its_protocol(tmp_path):
    write_cuhk03(tmp_path, "v5")
    config = tmp_path / "cuhk03_new_protocol_config_detected.mat"
    elsewhere = config.rename(tmp_path / "config.mat")
    with pytest.raises(DataError, match=r"no cuhk03_new_protocol_config_detected\.mat in it or next to it"):
        read("cuhk03-np", tmp_path)
    assert read("cuhk03-np", tmp_path, split_file=elsewhere)[2].splits
    with pytest.raises(ConfigurationError, match="has the classic splits"):
        read("cuhk03-np", tmp_path, splits="classic", split_file=elsewhere)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.ones((35, 1), np.uint16)}, "labels disagrees"),
        ({"camId": np.ones((35, 1), np.uint8)}, "camId disagrees"),
        ({"train_idx": np.array([[0]])}, "train_idx holds 0, expected 1 to"),
        ({"gallery_idx": np.array([[99]])}, "gallery_idx holds 99"),
        ({"gallery_idx": np.array([[1.5]])}, "gallery_idx: found float64 of shape .1, 1., expected whole"),
        ({"labels": np.array(["text"])}, "labels: found <U4 of shape"),
        ({"filelist": np.array([[1, 2]])}, "filelist: found .* expected a cell array of texts"),
        ({"filelist": big._column([np.array([[1]])])}, "filelist: found .* expected a cell array of texts"),
        ({"filelist": big._column([np.array(["1_001_1_05.png"])])}, "lacks 1 of its images"),
        ({"filelist": big._column([np.array(["1_001_3_01.png"])])}, "1 of 1 image is named otherwise"),
    ],
)
def test_a_protocol_of_other_images_is_refused(tmp_path, changes, message):
    write_cuhk03(tmp_path, "v5")
    config = tmp_path / "cuhk03_new_protocol_config_detected.mat"
    big.write_config(config, "detected", **changes)
    with pytest.raises(DataError, match=message) as error:
        read("cuhk03-np", tmp_path)
    assert config.name in str(error.value)


def test_classic_splits_of_people_who_are_not_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(big, "CLASSIC", [[(1, 1)], [(1, 4)]])
    write_cuhk03(tmp_path, "v7.3")
    with pytest.raises(DataError, match=r"testsets\{2\} lists people who are not there: \(1, 4\)"):
        read("cuhk03-np", tmp_path, splits="classic")


def test_classic_splits_of_another_form_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(big, "CLASSIC", [[(1, 1, 1)]])
    write_cuhk03(tmp_path, "v5")
    with pytest.raises(DataError, match=r"testsets\{1\} is of shape \(1, 3\), expected pairs and people"):
        read("cuhk03-np", tmp_path, splits="classic")


@pytest.mark.parametrize("version", WRITERS)
def test_damaged_matlab_files_end_in_one_line(tmp_path, version):
    path = tmp_path / "cuhk-03.mat"
    WRITERS[version](path)
    with pytest.raises(DataError, match="'absent'"):
        read_mat(path, "absent")
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 12):
        path.write_bytes(content[:length])
        try:
            cells = open_image_cells(path, "detected")
            for cell in cells.filled:
                cells.read(cell)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 (a cut may spare this half)
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError):
        read_mat(path, "testsets")
    with pytest.raises(DataError, match="no such file"):
        read_mat(tmp_path / "gone.mat", "x")


def test_cells_of_something_else_are_named(tmp_path, monkeypatch):
    shots = big.cuhk03_shots("detected")
    pid, camera, pixels = shots["1_002_1_01.png"]
    changed = {"detected": shots | {"1_002_1_01.png": (pid, camera, pixels[:, :, 0])}, "labeled": {}}
    monkeypatch.setattr(big, "cuhk03_shots", changed.get)
    for number, write in enumerate(WRITERS.values()):
        path = tmp_path / f"{number}.mat"
        write(path)
        cells = open_image_cells(path, "detected")
        assert cells.rows == big.PEOPLE
        with pytest.raises(
            DataError, match=r"detected\{1\}\{2,1\} is uint8 of shape \(21, 12\), expected an RGB"
        ):
            cells.read((0, 1, 0))


# --- The benchmark's own layouts


@pytest.mark.parametrize("dataset", big.BIG)
@pytest.mark.parametrize("nesting", [".", "pytorch"])
def test_big_sets_as_the_benchmark_leaves_them(tmp_path, dataset, nesting):
    facts, parts = big.processed(dataset)
    folder = trees.touch_tree(tmp_path / nesting, [*facts, "train_all/._0002/._x.jpg", "query/.DS_Store"])
    check(dataset, tmp_path, "processed", folder, facts)
    for part, images in parts.items():
        trees.touch_tree(folder / part, images)
    alone = {f"train/{path}": each for path, each in parts["train"].items()}
    tests = {path: each for path, each in facts.items() if not path.startswith("train_all/")}
    if parts["train"]:
        check(dataset, tmp_path, "processed", folder, {**tests, **alone}, training="train")
    for path in facts:
        if path.startswith("train_all/"):
            (folder / path).unlink()
    for path in sorted((folder / "train_all").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "train_all").rmdir()
    together = {f"{part}/{path}": each for part, images in parts.items() for path, each in images.items()}
    check(dataset, tmp_path, "processed", folder, {**tests, **together})


@pytest.mark.parametrize("stray", ["train_all", "train", "val"])
def test_training_images_that_contradict_each_other_are_refused(tmp_path, stray):
    facts, parts = big.processed("market1501")
    trees.touch_tree(tmp_path, facts)
    for part, images in parts.items():
        trees.touch_tree(tmp_path / part, images)
    assert read("market1501", tmp_path)[0] == "processed"
    trees.touch_tree(tmp_path / stray, ["0002/0002_c3s1_000999_03.jpg"])
    with pytest.raises(
        DataError, match="1 image is not both in train_all and in train or val: '0002/0002_c3s1"
    ):
        read("market1501", tmp_path)


def test_training_images_without_validation_are_counted(tmp_path):
    expected = {
        name: next(v for v in READERS[name].variants if v.name == "processed").train_only for name in big.BIG
    }
    assert expected == {
        "market1501": {"train_images": 12_185},
        "dukemtmc-reid": {"train_images": 15_820},
        "msmt17": {"train_images": 31_580},
        "cuhk03-np": {"train_images": 6_598},
    }


SMALL = {"prid2011": "png", "cuhk01": "png", "viper": "bmp", "3dpes": "bmp", "ilids": "jpg"}


@pytest.mark.parametrize(("dataset", "extension"), SMALL.items())
def test_small_sets_as_the_benchmark_leaves_them(tmp_path, dataset, extension):
    facts = big.small_processed(extension)
    trees.touch_tree(tmp_path / "pytorch", facts)
    check(dataset, tmp_path, "processed", tmp_path / "pytorch", facts)


@pytest.mark.parametrize(("dataset", "extension"), SMALL.items())
def test_small_sets_with_the_authors_split(tmp_path, dataset, extension):
    files = big.write_cameras(tmp_path, extension)
    facts = {path: (pid, camid, big.camera_role(pid, camid)) for path, (pid, camid) in files.items()}
    listing = check(dataset, tmp_path, "cameras", tmp_path, facts)
    assert not listing.drawn
    (tmp_path / "elsewhere").mkdir()
    for name in ("meta.json", "split.json"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    path = tmp_path / "elsewhere/split.json"
    listing = check(dataset, tmp_path, "cameras-unsplit", tmp_path, facts, split_file=path)
    assert not listing.drawn


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"cam_0/00000_00000.png"', '"cam_0/00000_00007.png"'),  # not there
        (
            '"cam_0/00000_00000.png"',
            '"cam_0/00003_00000.png"',
        ),  # somebody else's, whose image is listed twice
    ],
)
def test_a_meta_file_must_list_the_images_that_are_there(tmp_path, old, new):
    big.write_cameras(tmp_path, "png")
    text = (tmp_path / "meta.json").read_text()
    assert text.count(old) == 1
    (tmp_path / "meta.json").write_text(text.replace(old, new))
    message = r"meta\.json: lists other images than .*/cam_0 holds, or gives them to others: '00000_0000"
    with pytest.raises(DataError, match=message):
        read("viper", tmp_path)


def test_a_meta_file_that_counts_people_otherwise_is_refused(tmp_path):
    for path, (pid, _) in big.write_cameras(tmp_path, "png").items():
        (tmp_path / path).rename(tmp_path / path.replace(f"/{pid:05d}", f"/{pid + 100:05d}"))
    with pytest.raises(DataError, match=r"meta\.json: lists other images"):
        read("viper", tmp_path)


def test_a_meta_file_may_call_images_otherwise(tmp_path):
    big.write_cameras(tmp_path, "png")
    text = (tmp_path / "meta.json").read_text()
    (tmp_path / "meta.json").write_text(text.replace("cam_0/", "first_").replace("cam_1/", "second_"))
    assert read("viper", tmp_path)[0] == "cameras"


@pytest.mark.parametrize("dataset", ["cuhk01", "viper", "3dpes", "ilids"])
def test_small_sets_without_the_authors_split(tmp_path, dataset):
    files = big.write_cameras(tmp_path, SMALL[dataset], split=False)
    splits = []
    for seed in range(6):
        name, _, listing = read(dataset, tmp_path, seed=seed)
        assert (name, listing.drawn) == ("cameras-unsplit", True)
        (split,) = listing.splits
        assert {record.path: (record.pid, record.camid) for record in split} == files
        trained = {record.pid for record in split if record.role == "train"}
        assert len(trained) == 3
        for record in split:
            if record.pid not in trained:
                assert record.role == ("query" if record.camid == 0 else "gallery")
        splits.append(trained)
    assert any(trained != splits[0] for trained in splits)


def test_numbers_alone_tell_prids_split(tmp_path):
    facts = {
        "cam_0/00000_00000.png": (0, 0, "query"),
        "cam_1/00000_00000.png": (0, 1, "gallery"),
        "cam_0/00099_00000.png": (99, 0, "query"),
        "cam_1/00099_00000.png": (99, 1, "gallery"),
        "cam_0/00100_00000.png": (100, 0, "train"),
        "cam_0/00100_00009.png": (100, 0, "train"),
        "cam_1/00100_00000.png": (100, 1, "train"),
        "cam_0/00200_00000.png": (200, 0, "train"),
        "cam_0/00384_00003.png": (384, 0, "train"),
        "cam_1/00385_00000.png": (385, 1, "gallery"),
        "cam_1/00933_00000.png": (933, 1, "gallery"),
    }
    trees.touch_tree(tmp_path, facts)
    listing = check("prid2011", tmp_path, "cameras-unsplit", tmp_path, facts)
    assert not listing.drawn


def test_the_processed_public_set_has_no_cameras(tmp_path):
    facts = {f"train_all/{pid}/any name {pid}.png": (pid, 0, "public") for pid in (1, 2, 1816)}
    trees.touch_tree(tmp_path / "pytorch", facts)
    listing = check("cuhk02", tmp_path, "processed", tmp_path / "pytorch", facts)
    assert listing.notes
    assert recognise(READERS["cuhk02"], tmp_path).variant.splits["benchmark"] == {
        "identities": 1_816, "images": 7_264,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("query/0001/0002_c1s1_001051_00.jpg", "'0002_c1s1_001051_00.jpg' is of person 2"),
        ("query/0001_c1s1_001051_00.jpg", "1 image in no person's folder"),
        ("gallery/other/0001_c2s1_001976_01.jpg", "1 folder is named otherwise: 'other'"),
        ("gallery/0001/0001_c7s1_001976_01.jpg", "named otherwise: '0001_c7s1_001976_01.jpg'"),
    ],
)
def test_what_does_not_belong_into_the_processed_layout_is_named(tmp_path, path, message):
    trees.touch_tree(tmp_path, [*big.processed("market1501")[0], path])
    with pytest.raises(DataError, match=re.escape(message)):
        read("market1501", tmp_path)


def test_all_finds_the_benchmarks_own_folders(tmp_path):
    for dataset, folder in big.PROCESSED_FOLDERS.items():
        if dataset in big.BIG:
            facts = big.processed(dataset)[0]
        elif dataset == "cuhk02":
            facts = ["train_all/1/x.png"]
        else:
            facts = big.small_processed(SMALL[dataset])
        trees.touch_tree(tmp_path / folder / "pytorch", facts)
    found = find_datasets(tmp_path)
    assert {name: folder.name for name, folder in found.items()} == big.PROCESSED_FOLDERS
    assert {recognise(READERS[name], folder).variant.name for name, folder in found.items()} == {"processed"}


def test_all_prefers_the_folder_that_is_recognised(tmp_path):
    (tmp_path / "Market-1501-v15.09.15").mkdir()
    assert find_datasets(tmp_path)["market1501"] == tmp_path / "Market-1501-v15.09.15"
    trees.touch_tree(tmp_path / "Market", trees.MARKET)
    found = find_datasets(tmp_path)
    assert found["market1501"] == tmp_path / "Market"
    why = {tmp_path / "Market-1501-v15.09.15": f"market1501 is taken from {tmp_path / 'Market'}"}
    assert passed_over(tmp_path, found) == why


@pytest.mark.parametrize(
    ("folder", "dataset", "names"),
    [
        ("Market1501", "market1501", trees.MARKET),
        ("market-1501", "market1501", trees.MARKET),
        ("DukeMTMC", "dukemtmc-reid", trees.DUKE),
        ("dukemtmc_reid", "dukemtmc-reid", trees.DUKE),
        ("CUHK03-NP/detected", "cuhk03-np", trees.CUHK03),
        ("msmt17_v2", "msmt17", MSMT17_V2),
        ("prid2011", "prid2011", trees.PRID),
        ("3DPeS/3DPeS/RGB", "3dpes", trees.THREEDPES),
        ("3dpes/3DPeS_ReId_Snap/3DPeS/RGB", "3dpes", trees.THREEDPES),
        ("campus", "cuhk01", trees.CUHK01),
        ("viper/VIPeR.v1.0/VIPeR", "viper", trees.VIPER),
        ("iLIDS/i-LIDS_Pedestrian/Persons", "ilids", trees.ILIDS),
        ("cuhk02/CUHK02/Dataset", "cuhk02", trees.CUHK02),
    ],
)
def test_all_knows_the_names_under_which_datasets_come(tmp_path, folder, dataset, names):
    trees.touch_tree(tmp_path / folder, names)
    place = tmp_path / folder.split("/")[0]
    assert find_datasets(tmp_path) == {dataset: place}
    assert recognise(READERS[dataset], place).folder.resolve() == (tmp_path / folder).resolve()
    assert passed_over(tmp_path, {dataset: place}) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [("MSMT17_V1", "MSMT17"), ("msmt17/MSMT17_V1", "msmt17/MSMT17_V2"), ("MSMT17_V1", "msmt17/MSMT17")],
)
def test_two_candidates_for_one_dataset_are_an_error(tmp_path, first, second, capsys):
    for place in (first, second):
        trees.touch_tree(tmp_path / place, [*trees.MSMT17, "list_train.txt"])
    assert cli.run(["prepare", "--all", str(tmp_path), str(tmp_path / "out")]) == 3
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert "msmt17 is there twice" in line
    assert str(tmp_path / first) in line
    assert str(tmp_path / second) in line
    assert "--dataset msmt17" in line
    assert not (tmp_path / "out").exists()
    assert recognise(READERS["msmt17"], tmp_path / first).folder == tmp_path / first


def test_halves_and_copies_of_one_dataset_are_no_two_candidates(tmp_path):
    for half in ("detected", "labeled"):
        trees.touch_tree(tmp_path / "cuhk03-np" / half, trees.CUHK03)
    trees.touch_tree(
        tmp_path / "Market", [*trees.MARKET, *(f"pytorch/{path}" for path in big.processed("market1501")[0])]
    )
    (tmp_path / "market1501").symlink_to("Market")
    found = find_datasets(tmp_path)
    assert found == {"market1501": tmp_path / "Market", "cuhk03-np": tmp_path / "cuhk03-np"}
    assert recognise(READERS["cuhk03-np"], found["cuhk03-np"]).variant.name == "detected"
    assert recognise(READERS["market1501"], found["market1501"]).variant.name == "original"
    (tmp_path / "cuhk03-np").rename(tmp_path / "halves")
    (tmp_path / "halves" / "labeled").rename(tmp_path / "cuhk03-np-labeled")
    assert recognise(READERS["cuhk03-np"], find_datasets(tmp_path)["cuhk03-np"]).variant.name == "labeled"


def test_all_names_what_it_does_not_take(tmp_path, capsys):
    trees.write_tree(tmp_path, "viper")
    for name in ("Holidays", "my market", ".cache"):
        (tmp_path / name).mkdir()
    command = ["prepare", "--all", "--size", "16x8", "--allow-subset"]
    assert cli.run([*command, str(tmp_path), str(tmp_path / "out")]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not taken: ")]
    why = "datasets are not known under this name (--dataset prepares any folder)"
    assert told == [f"not taken: {tmp_path / name}: {why}" for name in ("Holidays", "my market")]


# --- Recognition, choices, duplicates


def test_a_folder_of_something_else_is_refused_with_all_variants(tmp_path):
    with pytest.raises(DataError) as error:
        recognise(READERS["msmt17"], tmp_path)
    for words in (
        "V1 (train, test, list_train.txt)",
        "V2 (mask_train_v2",
        "0000_c14_0030.jpg",
        "processed (",
    ):
        assert words in str(error.value)
    with pytest.raises(ConfigurationError, match="msmt17 has no such variant, expected V1, V2, market-style"):
        recognise(READERS["msmt17"], tmp_path, "V3")


def test_a_variant_that_was_asked_for_makes_its_own_complaints(tmp_path):
    trees.touch_tree(tmp_path, trees.MARKET)
    with pytest.raises(DataError, match=r"train_all: no such folder|no such folder"):
        read("market1501", tmp_path, "processed")
    assert read("market1501", tmp_path, "matches-only")[0] == "matches-only"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training", "train"], "--training train: market1501, variant original, sets no validation"),
        (
            ["--splits", "standard"],
            "--splits standard: not offered for market1501, variant original, expected benchmark",
        ),
        (
            ["--split-file", "split.json"],
            "--split-file split.json: market1501, variant original, takes no file",
        ),
        (["--split-seed", "0"], "--split-seed 0: nothing is drawn here"),
        (["--name", "other"], "--dataset custom and --name go together"),
    ],
)
def test_choices_that_mean_nothing_are_refused(tmp_path, capsys, arguments, message):
    trees.touch_tree(tmp_path, trees.MARKET)
    command = ["prepare", "--dataset", "market1501", "--allow-subset", *arguments]
    assert cli.run([*command, str(tmp_path), str(tmp_path / "x.h5")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.h5").exists()


def test_all_takes_no_choices_of_single_datasets(tmp_path, capsys):
    trees.touch_tree(tmp_path / "Market", trees.MARKET)
    for choice in ("--variant=original", "--training=train", "--splits=classic", "--split-file=x"):
        assert cli.run(["prepare", "--all", choice, str(tmp_path), str(tmp_path / "out")]) == 2
        assert "go with --dataset" in capsys.readouterr().err


def test_prepare_says_which_variant_it_took_and_why(tmp_path, capsys):
    folder = trees.write_tree(tmp_path, "market1501").rename(tmp_path / "Market")
    big.write(folder, big.GT_BBOX)
    output = tmp_path / "market.h5"
    command = ["prepare", "--dataset", "market1501", "--size", "16x8", "--allow-subset"]
    assert cli.run([*command, str(tmp_path), str(output)]) == 0
    text = capsys.readouterr().out
    reason = "it holds bounding_box_train, query and bounding_box_test, this with junk -1"
    assert f"market1501: {folder} is variant original: {reason}\n" in text
    assert "market1501: note: gt_bbox: 3 of 5 boxes" in text
    archive = DatasetArchive.open(output)
    assert archive.attributes["layout"] == "original"
    assert archive.attributes["multi_query_images"] == 3
    boxes = [archive.paths[index] for index in archive.split("multi_query")]
    assert boxes == sorted(path for path, facts in big.GT_BBOX.items() if facts)
    assert archive.notes[0].startswith("gt_bbox: 3 of 5")


def test_the_same_content_twice_is_reported(tmp_path, capsys):
    root, output = trees.write_tree(tmp_path, "market1501"), tmp_path / "market.h5"
    big.write(root, big.GT_BBOX)
    query, box = root / "query/0001_c1s1_001051_00.jpg", root / "gt_bbox/0001_c1s1_001051_00.jpg"
    box.write_bytes(query.read_bytes())  # as in the original
    command = [
        "prepare",
        "--dataset",
        "market1501",
        "--size",
        "16x8",
        "--allow-subset",
        str(root),
        str(output),
    ]
    assert cli.run(command) == 0
    assert DatasetArchive.open(output).attributes["duplicate_files"] == 0
    assert "repeat" not in capsys.readouterr().out
    copy = root / "bounding_box_test/0001_c4s6_001976_12.jpg"
    copy.write_bytes(query.read_bytes())
    leaked = root / "bounding_box_train/0002_c2s1_000301_01.jpg"
    leaked.write_bytes(query.read_bytes())
    assert cli.run(command) == 0
    names = [str(path.relative_to(root)) for path in (copy, leaked, query)]
    notes = [
        f"2 images repeat the content of others: '{' = '.join(names)}'",
        f"1 content is in training and in test: '{names[0]}'",
    ]
    archive = DatasetArchive.open(output)
    assert archive.attributes["duplicate_files"] == 2
    assert archive.notes[-2:] == notes
    assert all(f"market1501: note: {note}\n" in capsys.readouterr().out for note in notes[:1])


def test_duplicates_are_sought_among_images_of_any_split():
    one, other = Record("a", 1, 0, "train"), Record("b", 2, 0, "query")
    box = Record("c", 2, 0, "multi_query")
    digests = {"a": b"1", "b": b"1", "c": b"1", "d": b"1"}
    assert find_duplicates(digests, [[one], [other, box]]) == [["a", "b"]]
    assert find_duplicates({"a": b"1", "b": b"2"}, [[one, other]]) == []


def test_an_image_is_of_one_person_in_all_splits(tmp_path, monkeypatch):
    write_cuhk03(tmp_path, "v5")
    found = recognise(READERS["cuhk03-np"], tmp_path).variant
    listing = read("cuhk03-np", tmp_path, splits="classic")[2]
    first, *others = listing.splits[1]
    torn = (listing.splits[0], (Record(first.path, 99, first.camid, first.role), *others))
    variant = replace(found, read=lambda *_: replace(listing, splits=torn))
    monkeypatch.setitem(READERS, "torn", replace(READERS["cuhk03-np"], variants=(variant,)))
    with pytest.raises(DataError, match=r"of several people or cameras: 'cuhk-03\.mat/detected/"):
        survey("torn", tmp_path, Choices(splits="classic"))


# --- Names

PID = st.integers(0, 9999)
NUMBER = st.integers(0, 99999)
SLOT = st.sampled_from(["morning", "noon", "afternoon"])
NAMES = {
    "market": (
        market1501.ANYTHING,
        st.builds(
            lambda pid, cam, seq, frame, box: (
                f"{'-1' if pid < 0 else f'{pid:04d}'}_c{cam}s{seq}_{frame:06d}_{box:02d}.jpg", pid, cam,
            ),
            st.integers(-1, 9999), st.integers(1, 6), st.integers(1, 6), NUMBER, st.integers(0, 99),
        ),
    ),
    "duke": (
        dukemtmc_reid.NAME,
        st.builds(
            lambda pid, cam, frame: (f"{pid:04d}_c{cam}_f{frame:07d}.jpg", pid, cam),
            PID, st.integers(1, 8), NUMBER,
        ),
    ),
    "msmt17": (
        msmt17.NAME,
        st.builds(
            lambda pid, index, cam, slot, n, m, ex: (
                f"{pid:04d}_{index:03d}_{cam:02d}_0303{slot}_{n:04d}_{m}{ex}.jpg", pid, cam,
            ),
            PID, NUMBER, st.integers(1, 15), SLOT, NUMBER, NUMBER, st.sampled_from(["", "_ex"]),
        ),
    ),
    "msmt17 market-style": (
        msmt17.MARKET_NAME,
        st.builds(
            lambda pid, cam, number: (f"{pid:04d}_c{cam}_{number:04d}.jpg", pid, cam),
            PID, st.integers(1, 15), NUMBER,
        ),
    ),
    "cuhk03-np": (
        cuhk03.NAME,
        st.builds(
            lambda pid, cam, number, suffix: (f"{pid:04d}_c{cam}_{number}.{suffix}", pid, cam),
            PID, st.integers(1, 2), NUMBER, st.sampled_from(["png", "jpg"]),
        ),
    ),
    "cam_0_00007_00002": (
        processed.VIEW,
        st.builds(
            lambda pid, cam, number, suffix: (f"cam_{cam}_{pid:05d}_{number:05d}.{suffix}", pid, cam),
            NUMBER, st.integers(0, 1), NUMBER, st.sampled_from(["bmp", "png", "jpg"]),
        ),
    ),
}  # fmt: skip
GENERATED = st.sampled_from(sorted(NAMES)).flatmap(
    lambda key: st.tuples(st.just(NAMES[key][0]), NAMES[key][1], st.data())
)


@given(GENERATED)
def test_valid_names_tell_their_fields(generated):
    pattern, (name, pid, cam), _ = generated
    stem, dot, extension = name.rpartition(".")
    for written in (name, stem + dot + extension.upper(), stem + dot + extension.capitalize()):
        match = match_name(written, pattern)
        assert (int(match["pid"]), int(match["cam"])) == (pid, cam)


@given(GENERATED)
def test_mutated_names_are_refused(generated):
    pattern, (name, _, _), data = generated
    stem, dot, extension = name.rpartition(".")
    spots = [index for index, letter in enumerate(stem) if letter == "_"]
    cut = data.draw(st.sampled_from(spots))
    digits = [index for index, letter in enumerate(stem) if letter.isdigit()]
    wide = data.draw(st.sampled_from(digits))
    letters = [index for index, letter in enumerate(stem) if letter.isalpha()]
    mutants = {
        data.draw(st.sampled_from(["x", " ", "0", "\n", "../", "_"])) + name,
        stem + data.draw(st.sampled_from(["x", " ", "_", "-", "\n"])) + dot + extension,
        name + data.draw(st.sampled_from(["x", " ", "\n", ".jpg"])),
        stem[:cut] + stem[cut + 1 :] + dot + extension,
        stem[:cut] + "__" + stem[cut + 1 :] + dot + extension,
        stem[:wide] + chr(ord("０") + int(stem[wide])) + stem[wide + 1 :] + dot + extension,
        stem + extension,
        stem + dot + "gif",
    }
    if letters:
        shout = data.draw(st.sampled_from(letters))
        mutants.add(stem[:shout] + stem[shout].upper() + stem[shout + 1 :] + dot + extension)
    assert [mutant for mutant in mutants if match_name(mutant, pattern)] == []


@given(st.integers(0, 99))
@example(10)
@example(16)
def test_cameras_of_msmt17_have_two_digits(camera):
    market = match_name(f"0000_c{camera}_0030.jpg", msmt17.MARKET_NAME)
    original = match_name(f"0000_000_{camera:02d}_0303noon_0015_0.jpg", msmt17.NAME)
    assert [match and int(match["cam"]) for match in (market, original)] == [
        camera if 1 <= camera <= 15 else None
    ] * 2


def test_columns_tell_cameras_in_names_of_cuhk03():
    assert match_name("1_001_2_06.png", cuhk03_mat.NAME).groupdict() == {
        "pair": "1", "person": "001", "cam": "2", "column": "06",
    }  # fmt: skip
    for name in ("6_001_1_01.png", "1_01_1_01.png", "1_001_3_01.png", "1_001_1_1.png", "1_001_1_01.jpg"):
        assert match_name(name, cuhk03_mat.NAME) is None


def test_a_damaged_mat_file_does_not_take_the_process_down(tmp_path):
    """SciPy itself crashes on some of these; a crash would end this very test run."""
    path = tmp_path / "config.mat"
    scipy.io.savemat(path, {"filelist": np.array([["a"], ["b"]], object), "labels": np.arange(50)[:, None]})
    whole, flips, told = path.read_bytes(), random.Random(1), []
    for _ in range(15):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[flips.randrange(128, len(damaged))] ^= 1 << flips.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            read_mat(path, "filelist")
            continue
        with pytest.raises(DataError) as error:
            read_mat(path, "filelist")
        told.append(str(error.value))
    assert len(told) > 5
    assert all(line.startswith(f"{path}: cannot be read as a MATLAB file") for line in told)
