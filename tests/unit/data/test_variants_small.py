"""The small datasets in every variant and with every kind of split: each record is checked."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.readers import (
    READERS,
    Choices,
    Record,
    cuhk01,
    cuhk02,
    ilids,
    ilids_vid,
    prid2011,
    recognise,
    require_sense,
    threedpes,
    viper,
)
from fedreid_mpi.data.readers.names import match_name
from fedreid_mpi.errors import ConfigurationError, DataError
from support import trees, trees_small

SEEDS = (0, 1, 7)


def read(dataset, root, **choices):
    found = recognise(READERS[dataset], root)
    choices = Choices(**{"splits": next(iter(found.variant.splits)), **choices})
    require_sense(dataset, found.variant, choices)
    return found.variant.read(found.folder, choices)


def by_role(records):
    roles = defaultdict(list)
    for record in records:
        roles[str(record.role)].append(record)
    return roles


def people(records):
    return {record.pid for record in records}


def paths(records):
    return sorted(record.path for record in records)


# VIPeR and CUHK01


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dataset", "images"), [("viper", 2), ("cuhk01", 4)])
def test_ten_halves_of_the_people(tmp_path, dataset, images, seed):
    folder = trees.touch_tree(tmp_path, trees.IMAGES[dataset])
    listing = read(dataset, folder, splits="standard", seed=seed)
    assert listing.drawn
    assert len(listing.splits) == 10
    (facts,) = read(dataset, folder).splits
    facts = {(r.path, r.pid, r.camid) for r in facts}
    everybody = {pid for _, pid, _ in facts}
    for split in listing.splits:
        assert {(r.path, r.pid, r.camid) for r in split} == facts
        assert len(split) == len(facts)
        roles = by_role(split)
        trained = people(roles["train"])
        assert len(trained) == len(everybody) // 2
        assert len(roles["train"]) == images * len(trained)
        assert people(roles["query"]) == people(roles["gallery"]) == everybody - trained
        assert {r.camid for r in roles["query"]} == {0}
        assert {r.camid for r in roles["gallery"]} == {1}
    assert len({frozenset(people(by_role(split)["train"])) for split in listing.splits}) > 2
    assert read(dataset, folder, splits="standard", seed=seed) == listing


def test_cuhk01_tests_a_hundred_people_where_asked(tmp_path):
    folder = trees.touch_tree(tmp_path, [f"{p:04d}{i:03d}.png" for p in range(1, 972) for i in (1, 2, 3, 4)])
    listing = read("cuhk01", folder, splits="871-100")
    assert len(listing.splits) == 10
    for split in listing.splits:
        roles = by_role(split)
        assert len(people(roles["train"])) == 871
        assert {role: len(members) for role, members in roles.items()} == {
            "train": 3484,
            "query": 200,
            "gallery": 200,
        }


def test_viper_by_torchreids_lists(tmp_path):
    folder = trees.touch_tree(tmp_path / "VIPeR", trees.VIPER)
    content = [
        trees_small.viper_lists([872, 0], [1, 4]),
        trees_small.viper_lists([872, 0], [1, 4], swap=True),
        trees_small.viper_lists([4, 1], [872, 0]),
    ]
    path = trees_small.write_json(tmp_path / "splits.json", content)
    listing = read("viper", folder, splits="standard", split_file=path)
    assert not listing.drawn
    train = {
        Record("cam_a/000_45.bmp", 0, 0, "train"),
        Record("cam_b/000_180.bmp", 0, 1, "train"),
        Record("cam_a/872_45.bmp", 872, 0, "train"),
        Record("cam_b/872_180.bmp", 872, 1, "train"),
    }
    assert set(listing.splits[0]) == train | {
        Record("cam_a/001_45.bmp", 1, 0, "query"),
        Record("cam_a/004_45.bmp", 4, 0, "query"),
        Record("cam_b/001_180.bmp", 1, 1, "gallery"),
        Record("cam_b/004_180.bmp", 4, 1, "gallery"),
    }
    assert set(listing.splits[1]) == train | {
        Record("cam_b/001_180.bmp", 1, 1, "query"),
        Record("cam_b/004_180.bmp", 4, 1, "query"),
        Record("cam_a/001_45.bmp", 1, 0, "gallery"),
        Record("cam_a/004_45.bmp", 4, 0, "gallery"),
    }
    assert people(by_role(listing.splits[2])["train"]) == {1, 4}
    with pytest.raises(DataError, match=r"meta\.json: cannot be read"):
        read("viper", folder, split_file=path)


@pytest.mark.parametrize("part", ["train", "query", "gallery"])
def test_a_lists_own_numbers_of_people_must_be_right(tmp_path, part):
    folder = trees.touch_tree(tmp_path / "VIPeR", trees.VIPER)
    content = [trees_small.viper_lists([872, 0], [1, 4]) | {f"num_{part}_pids": 3}]
    path = trees_small.write_json(tmp_path / "splits.json", content)
    with pytest.raises(DataError, match=f"split 0 says num_{part}_pids 3, lists 2 people"):
        read("viper", folder, splits="standard", split_file=path)


def test_viper_by_numbers_of_identities(tmp_path):
    folder = trees.touch_tree(tmp_path / "VIPeR", trees.VIPER)
    path = trees_small.write_identity_split(tmp_path / "theirs", [(1, 1)] * 4, [1, 3], [0, 2])
    listing = read("viper", folder, split_file=path)
    assert not listing.drawn
    (split,) = listing.splits
    # In order of file names: 0, 1, 4 and 872.
    assert set(split) == {
        Record("cam_a/001_45.bmp", 1, 0, "train"),
        Record("cam_b/001_180.bmp", 1, 1, "train"),
        Record("cam_a/872_45.bmp", 872, 0, "train"),
        Record("cam_b/872_180.bmp", 872, 1, "train"),
        Record("cam_a/000_45.bmp", 0, 0, "query"),
        Record("cam_a/004_45.bmp", 4, 0, "query"),
        Record("cam_b/000_180.bmp", 0, 1, "gallery"),
        Record("cam_b/004_180.bmp", 4, 1, "gallery"),
    }
    with pytest.raises(DataError, match="found a dictionary of trainval, test_probe, test_gallery"):
        read("viper", folder, splits="standard", split_file=path)


def test_cuhk01_by_numbers_of_identities(tmp_path):
    folder = trees.touch_tree(tmp_path / "campus", trees.CUHK01)  # people 1, 2, 5, 7 and 971
    path = trees_small.write_identity_split(tmp_path, [(2, 2)] * 5, [0, 4], [1], [1, 3])
    (split,) = read("cuhk01", folder, split_file=path).splits
    expected = {
        **{f"{pid:04d}{image:03d}.png": "train" for pid in (1, 971) for image in (1, 2, 3, 4)},
        "0002001.png": "query",
        "0002002.png": "query",
        "0002003.png": "gallery",
        "0002004.png": "gallery",
        **{f"0007{image:03d}.png": "gallery" for image in (1, 2, 3, 4)},
    }
    assert {r.path: str(r.role) for r in split} == expected


# 3DPeS and i-LIDS


def test_3dpes_takes_no_split_file(tmp_path):
    folder = trees.touch_tree(tmp_path, trees.THREEDPES)
    with pytest.raises(ConfigurationError, match="--split-file"):
        read("3dpes", folder, split_file=tmp_path / "split.json")


@pytest.mark.parametrize("seed", SEEDS)
def test_ilids_in_the_fields_ten_splits(tmp_path, seed):
    listing = read("ilids", trees.touch_tree(tmp_path, trees.ILIDS), splits="standard", seed=seed)
    assert listing.drawn
    assert len(listing.splits) == 10
    pairs = defaultdict(set)
    for split in listing.splits:
        assert len({r.path for r in split}) == len(split)
        for record in split:
            assert record.path == f"{record.pid:04d}{record.camid:03d}.jpg"
        roles = by_role(split)
        trained = people(roles["train"])
        assert len(trained) == 2
        expected = [
            f"{pid:04d}{image:03d}.jpg" for pid in trained for image in range(1, trees.ILIDS_VIEWS[pid] + 1)
        ]
        assert paths(roles["train"]) == sorted(expected)
        tested = sorted(set(trees.ILIDS_VIEWS) - trained)
        assert sorted(r.pid for r in roles["query"]) == tested
        assert sorted(r.pid for r in roles["gallery"]) == tested
        for query in roles["query"]:
            pairs[query.pid].add((query.camid, next(r.camid for r in roles["gallery"] if r.pid == query.pid)))
    assert all(one != other for each in pairs.values() for one, other in each)
    assert len(pairs[2]) > 2  # of 20 ordered pairs


def test_ilids_by_torchreids_lists(tmp_path):
    folder = trees.touch_tree(tmp_path / "Persons", trees.ILIDS)
    content = [
        {
            "train": ["0001001.jpg", "0001002.jpg", "0004002.jpg", "0004001.jpg"],
            "query": ["0002005.jpg", "0003001.jpg", "0119003.jpg"],
            "gallery": ["0002001.jpg", "0003004.jpg", "0119001.jpg"],
        }
    ]
    path = trees_small.write_json(tmp_path / "splits.json", content)
    listing = read("ilids", folder, splits="standard", split_file=path)
    assert not listing.drawn
    (split,) = listing.splits
    assert set(split) == {
        Record(name, int(name[:4]), int(name[4:7]), role)
        for role, names in content[0].items()
        for name in names
    }


def test_ilids_by_numbers_of_identities(tmp_path):
    folder = trees.touch_tree(tmp_path / "Persons", trees.ILIDS)  # people 1, 2, 3, 4 and 119
    views = [(1, 1), (2, 3), (1, 3), (1, 1), (1, 2)]
    path = trees_small.write_identity_split(tmp_path, views, [1, 4], [0, 2, 3])
    first, again, other = (read("ilids", folder, split_file=path, seed=seed) for seed in (0, 0, 5))
    assert first == again
    assert first.drawn
    assert "split.json, SHA-256 " in first.notes[0]
    assert "drawn" in first.notes[1]
    for listing in (first, other):
        roles = by_role(listing.splits[0])
        assert Counter(r.pid for r in roles["train"]) == {2: 5, 119: 3}
        assert Counter((r.pid, r.camid) for r in roles["query"]) == {(1, 0): 1, (3, 0): 1, (4, 0): 1}
        assert Counter((r.pid, r.camid) for r in roles["gallery"]) == {(1, 1): 1, (3, 1): 3, (4, 1): 1}
        assert Counter(r.camid for r in roles["train"] if r.pid == 2) == {0: 2, 1: 3}
    views[2] = (1, 2)
    path = trees_small.write_identity_split(tmp_path, views, [1, 4], [0, 2, 3])
    with pytest.raises(DataError, match=r"identity 2 has 1 and 2 images .* person 3 .* has 1 and 3"):
        read("ilids", folder, split_file=path)
    path = trees_small.write_identity_split(tmp_path, views[:4], [1], [0, 2, 3])
    with pytest.raises(DataError, match=r"describes 4 people, .* shows 5"):
        read("ilids", folder, split_file=path)


# PRID 2011


def prid_shot(camera, pid):
    return f"single_shot/cam_{camera}/person_{pid:04d}.png"


@pytest.mark.parametrize("seed", SEEDS)
def test_prid_single_shot(tmp_path, seed):
    listing = read("prid2011", trees.touch_tree(tmp_path, trees.PRID), splits="standard", seed=seed)
    assert listing.drawn
    assert len(listing.splits) == 10
    assert len({frozenset(people(by_role(split)["train"])) for split in listing.splits}) > 2
    for split in listing.splits:
        trained = people(by_role(split)["train"])
        assert len(trained) == 2
        tested = {1, 2, 3, 200} - trained
        assert tested < {1, 2, 3, 200}
        assert set(split) == {
            *(Record(prid_shot("a", pid), pid, 0, "train") for pid in trained),
            *(Record(prid_shot("b", pid), pid, 1, "train") for pid in trained),
            *(Record(prid_shot("a", pid), pid, 0, "query") for pid in tested),
            *(Record(prid_shot("b", pid), pid, 1, "gallery") for pid in tested),
            *(Record(prid_shot("b", pid), 10_000 + pid, 1, "gallery") for pid in (201, 203, 749)),
        }


def test_prid_single_shot_needs_no_frames(tmp_path):
    shots = [name for name in trees.PRID if name.startswith("single_shot")]
    folder = trees.touch_tree(tmp_path, shots)
    path = trees_small.write_json(tmp_path / "s.json", [{"train": [1, 200], "test": [2, 3]}] * 10)
    listing = read("prid2011", folder, splits="standard", split_file=path)
    assert not listing.drawn
    for split in listing.splits:
        roles = by_role(split)
        assert people(roles["train"]) == {1, 200}
        assert paths(roles["query"]) == [prid_shot("a", 2), prid_shot("a", 3)]
        assert people(roles["gallery"]) == {2, 3, 10_201, 10_203, 10_749}
    with pytest.raises(DataError, match=r"multi_shot/.*: no such folder"):
        read("prid2011", folder)


def test_prid_single_shot_has_the_published_sizes(tmp_path):
    folder = trees.touch_tree(
        tmp_path,
        [prid_shot("a", p) for p in range(1, 386)] + [prid_shot("b", p) for p in range(1, 750)],
    )
    for split in read("prid2011", folder, splits="standard").splits:
        roles = by_role(split)
        assert {role: len(members) for role, members in roles.items()} == {
            "train": 200,
            "query": 100,
            "gallery": 649,
        }


def test_prid_video_by_lists_of_folders(tmp_path):
    folder = trees.touch_tree(tmp_path, [name for name in trees.PRID if name.startswith("multi_shot")])
    content = [
        {"train": ["person_0001", "person_0200"], "test": ["person_0003"]},
        {"train": ["person_0003"], "test": ["person_0001", "person_0200"]},
    ]
    path = trees_small.write_json(tmp_path / "splits_prid2011.json", content)
    listing = read("prid2011", folder, splits="video", split_file=path)
    assert not listing.drawn

    def frames(camera, pid):
        number = {"a": 12, "b": 7}[camera]
        return [f"multi_shot/cam_{camera}/person_{pid:04d}/{frame:04d}.png" for frame in range(1, number + 1)]

    first, second = listing.splits
    assert set(first) == {
        *(Record(path, pid, 0, "train") for pid in (1, 200) for path in frames("a", pid)),
        *(Record(path, pid, 1, "train") for pid in (1, 200) for path in frames("b", pid)),
        *(Record(path, 3, 0, "query") for path in frames("a", 3)),
        *(Record(path, 3, 1, "gallery") for path in frames("b", 3)),
    }
    assert people(by_role(second)["train"]) == {3}
    content[0]["test"] = ["person_0201"]
    trees_small.write_json(path, content)
    with pytest.raises(DataError, match=r"split 0 lists 1 person that .* lacks: 201"):
        read("prid2011", folder, splits="video", split_file=path)


def test_prid_video_is_drawn_from_the_people_with_the_longest_tracks(tmp_path):
    # Of ten shared people nine are kept (178 of 200): not person 4, of whom camera B has two frames.
    lengths = {"a": dict.fromkeys(range(1, 11), 5), "b": {**{p: 2 + p for p in range(1, 11)}, 4: 2}}
    names = [
        f"multi_shot/cam_{camera}/person_{pid:04d}/{frame:04d}.png"
        for camera, people in lengths.items()
        for pid, number in people.items()
        for frame in range(1, number + 1)
    ]
    folder = trees.touch_tree(tmp_path, [*names, "multi_shot/cam_a/person_0011/0001.png"])
    listing = read("prid2011", folder, splits="video")
    assert listing.drawn
    assert len(listing.splits) == 10
    for split in listing.splits:
        roles = by_role(split)
        assert len(people(roles["train"])) == 4
        assert people(roles["query"]) == people(roles["gallery"])
        assert people(split) == set(range(1, 11)) - {4}


def test_prid_of_the_benchmark_takes_no_split_file(tmp_path):
    folder = trees.touch_tree(tmp_path, trees.PRID)
    with pytest.raises(ConfigurationError, match="numbers of PRID2011's people are random"):
        read("prid2011", folder, split_file=tmp_path / "split.json")


# iLIDS-VID


@pytest.mark.parametrize("kind", ["sequences", "images"])
def test_ilids_vid_by_its_published_splits(tmp_path, kind):
    folder = trees.touch_tree(tmp_path / "i-LIDS-VID", trees_small.ilids_vid(kind))
    trees_small.write_ls_set(tmp_path)
    # Files beside the folders of people must not shift the numbers of the splits.
    for litter in ("Thumbs.db", "aaa.txt", "._person000", "desktop.ini"):
        (folder / kind / "cam1" / litter).touch()
    (folder / kind / "cam2" / "__MACOSX").mkdir()
    listing = read("ilids-vid", folder)
    assert not listing.drawn
    assert "train_test_splits_ilidsvid.mat" in listing.notes[0]
    # Row 0 is 1 3 | 2 4 and row 1 is 4 2 | 1 3: tested | trained on; the people are 1, 5, 12 and 319.
    for split, tested in zip(listing.splits, ({1, 12}, {5, 319}), strict=True):
        expected = set()
        for name in trees_small.ilids_vid(kind):
            pid, camera = int(name.split("/")[2][-3:]), int(name.split("/")[1][-1])
            role = ("query" if camera == 1 else "gallery") if pid in tested else "train"
            expected.add(Record(name, pid, camera, role))
        assert set(split) == expected
        assert len(split) == len(expected)


def test_ilids_vid_by_a_file_of_the_users(tmp_path):
    folder = trees.touch_tree(tmp_path / "vid", trees_small.ilids_vid("images"))
    elsewhere = trees_small.write_ls_set(tmp_path / "kept" / "elsewhere", [[4, 3, 2, 1]])
    (split,) = read("ilids-vid", folder, split_file=elsewhere).splits
    assert people(by_role(split)["query"]) == {12, 319}
    lists = [{"train": ["person001"], "test": ["person005", "person012"]}]
    path = trees_small.write_json(tmp_path / "splits.json", lists)
    (split,) = read("ilids-vid", folder, split_file=path).splits
    assert {role: people(members) for role, members in by_role(split).items()} == {
        "train": {1},
        "query": {5, 12},
        "gallery": {5, 12},
    }


def test_ilids_vid_is_drawn_without_a_file(tmp_path):
    listing = read("ilids-vid", trees.touch_tree(tmp_path, trees_small.ilids_vid("images")))
    assert listing.drawn
    assert len(listing.splits) == 10
    for split in listing.splits:
        roles = by_role(split)
        assert len(people(roles["train"])) == len(people(roles["query"])) == 2
        assert people(roles["gallery"]) == people(roles["query"])


@pytest.mark.parametrize(
    "rows", [[[1, 2, 3]], [[1, 2, 3, 5]], [[0, 1, 2, 3]], [[1, 1, 2, 3]], [[1, 2, 3, 4], [1, 2, 3, 3]]]
)
def test_an_ls_set_of_other_people_is_refused(tmp_path, rows):
    folder = trees.touch_tree(tmp_path / "vid", trees_small.ilids_vid("images"))
    trees_small.write_ls_set(tmp_path, rows)
    with pytest.raises(DataError, match=r"ls_set of uint16 and shape .* numbers 1 to 4 once per row"):
        read("ilids-vid", folder)


def test_an_ls_set_that_is_no_table_of_numbers_is_refused(tmp_path):
    folder = trees.touch_tree(tmp_path / "vid", trees_small.ilids_vid("images"))
    path = trees_small.write_ls_set(tmp_path)
    scipy.io.savemat(path, {"ls_set": np.array([["one", 2]], object)})
    with pytest.raises(DataError, match="ls_set of object"):
        read("ilids-vid", folder)
    scipy.io.savemat(path, {"splits": np.eye(4)})
    with pytest.raises(DataError, match="ls_set"):
        read("ilids-vid", folder)
    path.write_bytes(b"MATLAB 5.0 MAT-file, or rather not")
    with pytest.raises(DataError, match=r"train_test_splits_ilidsvid\.mat"):
        read("ilids-vid", folder)


def test_a_damaged_ilids_vid_is_refused(tmp_path):
    folder = trees.touch_tree(tmp_path, trees_small.ilids_vid("images"))
    stray = folder / "images/cam1/person005/cam2_person005.png"
    stray.touch()
    with pytest.raises(DataError, match=r"person005: holds images of another folder: .*cam2_person005\.png"):
        read("ilids-vid", folder)
    stray.unlink()
    (folder / "images/cam2/person005/cam2_person005.png").unlink()
    with pytest.raises(DataError, match="person005: holds no images"):
        read("ilids-vid", folder)
    (folder / "images/cam2/person005").rmdir()
    with pytest.raises(DataError, match="1 person is in one camera only: 5"):
        read("ilids-vid", folder)
    (folder / "images/cam2/five").mkdir()
    with pytest.raises(DataError, match="named otherwise: 'five'"):
        read("ilids-vid", folder)


def test_ilids_and_ilids_vid_are_never_mixed_up(tmp_path):
    still = trees.touch_tree(tmp_path / "still", trees.ILIDS)
    for kind in ("sequences", "images"):
        video = trees.touch_tree(tmp_path / kind, trees_small.ilids_vid(kind))
        assert recognise(READERS["ilids-vid"], video).variant.name == kind
        with pytest.raises(DataError, match="not recognised as ilids, expected"):
            recognise(READERS["ilids"], video)
        with pytest.raises(DataError):
            read_as_asked("ilids", video, "original")
    with pytest.raises(DataError, match="not recognised as ilids-vid, expected sequences"):
        recognise(READERS["ilids-vid"], still)
    both = trees.touch_tree(tmp_path / "sequences", trees_small.ilids_vid("images"))
    assert recognise(READERS["ilids-vid"], both).variant.name == "sequences"
    assert recognise(READERS["ilids-vid"], both, "images").variant.name == "images"


def read_as_asked(dataset, root, name):
    found = recognise(READERS[dataset], root, name)
    return found.variant.read(found.folder, Choices())


# Places and choices

PLACES = [
    ("prid2011", "prid_2011", trees.PRID),
    ("cuhk01", "campus", trees.CUHK01),
    ("viper", "VIPeR", trees.VIPER),
    ("3dpes", "RGB", trees.THREEDPES),
    ("ilids", "Persons", trees.ILIDS),
    ("ilids-vid", "i-LIDS-VID", trees_small.ilids_vid("sequences")),
    ("cuhk02", "Dataset", trees.CUHK02),
]


@pytest.mark.parametrize(("dataset", "level", "names"), PLACES)
def test_a_dataset_is_found_with_and_without_its_inner_folder(tmp_path, dataset, level, names):
    trees.touch_tree(tmp_path / level, names)
    outer, inner = recognise(READERS[dataset], tmp_path), recognise(READERS[dataset], tmp_path / level)
    assert outer.folder.resolve() == inner.folder.resolve()
    assert outer.variant is inner.variant
    assert outer.reason == inner.reason != ""
    first, second = read(dataset, tmp_path), read(dataset, tmp_path / level)
    assert first.splits == second.splits


@pytest.mark.parametrize("folder", ["CUHK02/Dataset", "CUHK02"])
def test_all_finds_cuhk02_with_and_without_its_inner_folder(tmp_path, folder):
    trees.touch_tree(tmp_path / folder, trees.CUHK02)
    (split,) = read("cuhk02", tmp_path / "CUHK02").splits
    assert set(split) == {Record(path, *facts) for path, facts in trees.CUHK02.items()}
    # The pair that shows CUHK01's people can be told by the path.
    assert {r.path.split("/")[0] for r in split if r.pid < 20_000} == {"P1"}


@pytest.mark.parametrize(
    ("dataset", "names", "choice"),
    [
        ("viper", trees.VIPER, {"splits": "video"}),
        ("cuhk01", trees.CUHK01, {"training": "train"}),
        ("ilids-vid", trees_small.ilids_vid("images"), {"splits": "benchmark"}),
        ("cuhk02", trees.CUHK02, {"splits": "video"}),
        ("prid2011", trees.PRID, {"splits": "871-100"}),
    ],
)
def test_choices_that_mean_nothing_are_refused(tmp_path, dataset, names, choice):
    with pytest.raises(ConfigurationError, match="--"):
        read(dataset, trees.touch_tree(tmp_path, names), **choice)


# Names

NAMES = {
    "cuhk01": (cuhk01.NAME, "{pid:04d}{image:03d}.png", {"pid": (0, 9999), "image": (1, 4)}),
    "viper": (viper.NAME, "{pid:03d}_{angle}.bmp", {"pid": (0, 999), "angle": (0, 0)}),
    "3dpes": (
        threedpes.NAME,
        "{pid}_{sequence}_FRAME_{frame}_RGB.bmp",
        {"pid": (0, 10**6), "sequence": (0, 99), "frame": (0, 10**5)},
    ),
    "ilids": (ilids.NAME, "{pid:04d}{image:03d}.jpg", {"pid": (0, 9999), "image": (0, 999)}),
    "ilids-vid": (
        ilids_vid.NAME,
        "cam{cam}_person{pid:03d}_{frame:05d}.png",
        {"cam": (1, 2), "pid": (0, 999), "frame": (0, 99_999)},
    ),
    "ilids-vid image": (
        ilids_vid.NAME,
        "cam{cam}_person{pid:03d}.png",
        {"cam": (1, 2), "pid": (0, 999)},
    ),
    "prid2011": (prid2011.PERSON, "person_{pid:04d}.png", {"pid": (0, 9999)}),
    "prid2011 frame": (prid2011.FRAME, "{frame:04d}.png", {"frame": (0, 9999)}),
    "cuhk02": (cuhk02.NAME, "{pid:03d}_{image}.png", {"pid": (0, 9999), "image": (0, 99)}),
}


def named(data, form, ranges):
    fields = {key: data.draw(st.integers(*bounds), key) for key, bounds in ranges.items()}
    return fields, form.format(**fields)


@pytest.mark.parametrize("kind", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_names_tell_what_they_were_made_of(kind, data):
    pattern, form, ranges = NAMES[kind]
    fields, name = named(data, form, ranges)
    for written in (name, name[:-3] + name[-3:].upper()):
        match = match_name(written, pattern)
        assert {key: int(value) for key, value in match.groupdict().items()} == {
            key: value for key, value in fields.items() if key in pattern.groupindex
        }


@pytest.mark.parametrize("kind", NAMES)
@settings(deadline=None)
@given(data=st.data())
def test_names_with_a_foreign_letter_are_refused(kind, data):
    pattern, form, ranges = NAMES[kind]
    _, name = named(data, form, ranges)
    letter = data.draw(st.sampled_from("xX-+ é٣\n²"))
    place = data.draw(st.integers(0, len(name)))
    assert match_name(name[:place] + letter + name[place:], pattern) is None
    assert place == len(name) or match_name(name[:place] + letter + name[place + 1 :], pattern) is None


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind not in ("3dpes", "cuhk02")])
@settings(deadline=None)
@given(data=st.data())
def test_numbers_with_a_digit_more_or_less_are_refused(kind, data):
    pattern, form, ranges = NAMES[kind]
    _, name = named(data, form, ranges)
    place = data.draw(st.sampled_from([index for index, letter in enumerate(name) if letter.isdigit()]))
    assert match_name(name[:place] + name[place] + name[place:], pattern) is None
    assert match_name(name[:place] + name[place + 1 :], pattern) is None


def test_camera_and_angle_are_of_those_there_are():
    for name in ("0001005.png", "0001000.png", "0001010.png"):
        assert match_name(name, cuhk01.NAME) is None
    assert [a for a in range(200) if match_name(f"001_{a}.bmp", viper.NAME)] == [0, 45, 90, 135, 180]
    for name in ("cam0_person001.png", "cam3_person001_00001.png"):
        assert match_name(name, ilids_vid.NAME) is None


# The command line


def prepare(*arguments):
    return cli.run(["prepare", "--size", "16x8", "--jobs", "1", *map(str, arguments)])


def test_several_splits_make_one_archive(tmp_path, capsys):
    folder = trees.write_tree(tmp_path, "viper")
    output = tmp_path / "viper.h5"
    arguments = ("--dataset", "viper", folder, output, "--splits", "standard", "--split-seed", 3)
    assert prepare(*arguments, "--allow-subset") == 0
    archive = DatasetArchive.open(output)
    assert archive.splits == 10
    assert archive.attributes["split_rule"] == "standard"
    assert archive.attributes["split_seed"] == 3
    assert sorted(archive.paths) == sorted(trees.VIPER)
    for number, split in enumerate(read("viper", folder, splits="standard", seed=3).splits):
        for role in ("train", "query", "gallery"):
            expected = paths(r for r in split if r.role == role)
            assert [archive.paths[index] for index in archive.split(role, number)] == expected
    assert prepare(*arguments) == 3
    assert "not the whole of viper" in capsys.readouterr().err


def test_a_split_file_leaves_no_seed(tmp_path):
    folder = trees.write_tree(tmp_path, "viper")
    path = trees_small.write_identity_split(tmp_path / "theirs", [(1, 1)] * 4, [1, 3], [0, 2])
    arguments = ("--dataset", "viper", folder, tmp_path / "viper.h5", "--split-file", path)
    assert prepare(*arguments, "--allow-subset") == 0
    archive = DatasetArchive.open(tmp_path / "viper.h5")
    assert "split_seed" not in archive.attributes
    assert archive.splits == 1


def test_ilids_vid_is_prepared_with_its_own_splits(tmp_path, capsys):
    names = trees_small.ilids_vid("images")
    for name in names:
        trees.write_image(tmp_path / "i-LIDS-VID" / name, name)
    trees_small.write_ls_set(tmp_path)
    output = tmp_path / "vid.h5"
    assert prepare("--dataset", "ilids-vid", tmp_path, output, "--allow-subset") == 0
    assert "variant images" in capsys.readouterr().out
    archive = DatasetArchive.open(output)
    assert (archive.name, archive.attributes["layout"], archive.splits) == ("ilids-vid", "images", 2)
    assert archive.paths == sorted(names)


def test_counts_of_published_size_are_accepted_and_others_refused(tmp_path, capsys):
    names = [f"{camera}/{p:03d}_90.bmp" for camera in ("cam_a", "cam_b") for p in range(632)]
    trees.touch_tree(tmp_path, names)
    picture = trees.picture("one")
    for name in names:
        picture.save(tmp_path / name)
    assert prepare("--dataset", "viper", tmp_path, tmp_path / "v.h5", "--splits", "standard") == 0
    assert json.dumps(DatasetArchive.open(tmp_path / "v.h5").attributes["train_images"]) == "632"
    capsys.readouterr()
    for name in names[:1]:
        (tmp_path / name).unlink()
    assert prepare("--dataset", "viper", tmp_path, tmp_path / "v.h5", "--splits", "standard") == 3
    assert "instead of" in capsys.readouterr().err
