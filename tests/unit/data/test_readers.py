import os
from collections import Counter, defaultdict

import numpy as np
import pytest

from fedreid_mpi.data.readers import READERS, Choices, Record
from fedreid_mpi.data.splits import sample, sample_half
from fedreid_mpi.errors import DataError
from support import trees

GIVEN = {
    "market1501": trees.MARKET,
    "dukemtmc-reid": trees.DUKE,
    "msmt17": trees.MSMT17,
    "cuhk03-np": trees.CUHK03,
    "cuhk02": trees.CUHK02,
}
DRAWN = ("prid2011", "cuhk01", "viper", "3dpes", "ilids")
SEEDS = range(8)


def read(dataset, folder, seed=0):
    (records,) = READERS[dataset].variants[0].read(folder, Choices(seed)).splits
    return list(records)


def by_role(records):
    roles = defaultdict(list)
    for record in records:
        roles[str(record.role)].append(record)
    return roles


def people(records):
    return {record.pid for record in records}


def test_the_table_names_the_datasets_and_their_folders():
    found = {name: reader.folders[:1] for name, reader in READERS.items()}
    given = {name: (folder,) for name, folder in trees.FOLDERS.items()}
    assert found == given | {"ilids-vid": ("i-LIDS-VID",), "custom": ()}


@pytest.mark.parametrize("dataset", GIVEN)
def test_given_splits_are_read_as_they_are(tmp_path, dataset):
    records = read(dataset, trees.write_tree(tmp_path, dataset))
    expected = {Record(path, *facts) for path, facts in GIVEN[dataset].items()}
    assert len(records) == len(expected)
    assert set(records) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_cuhk01(tmp_path, seed):
    records = read("cuhk01", trees.touch_tree(tmp_path, trees.CUHK01), seed)
    assert sorted(record.path for record in records) == sorted(trees.CUHK01)
    for record in records:
        assert record.pid == int(record.path[:4])
        assert record.camid == {"1": 0, "2": 0, "3": 1, "4": 1}[record.path[6]]
    roles = by_role(records)
    assert len(people(roles["train"])) == 2
    assert Counter(r.pid for r in roles["train"]) == dict.fromkeys(people(roles["train"]), 4)
    assert people(roles["query"]) == people(roles["gallery"]) == {1, 2, 5, 7, 971} - people(roles["train"])
    assert {r.camid for r in roles["query"]} == {0}
    assert {r.camid for r in roles["gallery"]} == {1}


@pytest.mark.parametrize("seed", SEEDS)
def test_viper(tmp_path, seed):
    records = read("viper", trees.touch_tree(tmp_path, trees.VIPER), seed)
    assert sorted(record.path for record in records) == sorted(trees.VIPER)
    for record in records:
        assert record.pid == int(record.path[6:9])
        assert record.camid == (0 if record.path.startswith("cam_a/") else 1)
    roles = by_role(records)
    assert {role: len(members) for role, members in roles.items()} == {"train": 4, "query": 2, "gallery": 2}
    assert people(roles["query"]) == people(roles["gallery"]) == {0, 1, 4, 872} - people(roles["train"])
    assert all(r.path.startswith("cam_a/") for r in roles["query"])


@pytest.mark.parametrize("seed", SEEDS)
def test_3dpes_pseudo_cameras_are_halves_of_the_sequences(tmp_path, seed):
    records = read("3dpes", trees.touch_tree(tmp_path, trees.THREEDPES), seed)
    assert sorted(record.path for record in records) == sorted(trees.THREEDPES)
    cameras = defaultdict(set)
    for record in records:
        person, sequence, *_ = record.path.split("_")
        assert record.pid == int(person)
        cameras[record.pid, int(sequence)].add(record.camid)
    assert all(len(seen) == 1 for seen in cameras.values())
    for person, views in trees.THREEDPES_VIEWS.items():
        first = sum(cameras[person, sequence] == {0} for sequence in range(1, len(views) + 1))
        assert first == len(views) // 2
    roles = by_role(records)
    assert len(people(roles["train"])) == 2  # 5 * 93 / 193 = 2.4
    assert {r.camid for r in roles["query"]} <= {0}
    assert {r.camid for r in roles["gallery"]} == {1}
    assert not people(roles["train"]) & people(roles["query"] + roles["gallery"])
    # Person 2 has one sequence, so no view in camera 0: trained on, or in the gallery only.
    assert 2 not in people(roles["query"])


@pytest.mark.parametrize("seed", SEEDS)
def test_ilids_pseudo_cameras_are_halves_of_the_images(tmp_path, seed):
    records = read("ilids", trees.touch_tree(tmp_path, trees.ILIDS), seed)
    assert sorted(record.path for record in records) == sorted(trees.ILIDS)
    assert all(record.pid == int(record.path[:4]) for record in records)
    views = Counter((record.pid, record.camid) for record in records)
    for person, number in trees.ILIDS_VIEWS.items():
        assert views[person, 0] == number // 2
        assert views[person, 1] == number - number // 2
    roles = by_role(records)
    assert len(people(roles["train"])) == 2
    assert (
        people(roles["query"]) == people(roles["gallery"]) == set(trees.ILIDS_VIEWS) - people(roles["train"])
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_prid2011(tmp_path, seed):
    roles = by_role(read("prid2011", trees.touch_tree(tmp_path, trees.PRID), seed))
    probes = people(roles["query"])
    assert len(probes) == 2
    assert probes < {1, 2, 3, 200}
    assert people(roles["train"]) == {1, 2, 3, 200, 201, 202} - probes
    assert people(roles["gallery"]) == probes | {10_201, 10_203, 10_749}
    assert {(r.path, r.camid) for r in roles["query"]} == {
        (f"single_shot/cam_a/person_{pid:04d}.png", 0) for pid in probes
    }
    assert {(r.path, r.camid) for r in roles["gallery"]} == {
        (f"single_shot/cam_b/person_{pid % 10_000:04d}.png", 1) for pid in people(roles["gallery"])
    }
    frames = Counter((r.pid, r.camid) for r in roles["train"])
    expected = {(pid, 0): 10 for pid in people(roles["train"])}
    expected |= {(pid, 1): 7 for pid in {1, 2, 3, 200} - probes}
    assert frames == expected
    for record in roles["train"]:
        assert record.path.startswith(f"multi_shot/cam_{'ab'[record.camid]}/person_{record.pid:04d}/")
    assert len({r.path for r in roles["train"]}) == len(roles["train"])


@pytest.mark.parametrize("dataset", DRAWN)
def test_the_seed_decides_a_drawn_split(tmp_path, dataset):
    folder = trees.touch_tree(tmp_path, trees.IMAGES[dataset])
    splits = [sorted(read(dataset, folder, seed)) for seed in SEEDS]
    assert sorted(read(dataset, folder, 0)) == splits[0]
    assert any(split != splits[0] for split in splits)


def test_drawn_splits_have_the_published_sizes(tmp_path):
    viper = [f"{camera}/{p:03d}_90.bmp" for camera in ("cam_a", "cam_b") for p in range(632)]
    cuhk01 = [f"{p:04d}{image:03d}.png" for p in range(1, 972) for image in (1, 2, 3, 4)]
    ilids = [f"{p:04d}{image:03d}.jpg" for p in range(1, 120) for image in (1, 2, 3, 4)]
    threedpes = [f"{p}_{sequence}_FRAME_1_RGB.bmp" for p in range(1, 194) for sequence in (1, 2)]
    prid = [
        *(f"single_shot/cam_a/person_{p:04d}.png" for p in range(1, 386)),
        *(f"single_shot/cam_b/person_{p:04d}.png" for p in range(1, 750)),
        *(f"multi_shot/cam_a/person_{p:04d}/{f:04d}.png" for p in range(1, 386) for f in range(1, 12)),
        *(f"multi_shot/cam_b/person_{p:04d}/{f:04d}.png" for p in range(1, 201) for f in range(1, 12)),
    ]
    expected = {
        "viper": (viper, 316, 632, 316, 316, 316),
        "cuhk01": (cuhk01, 485, 1_940, 486, 972, 972),
        "ilids": (ilids, 59, 236, 60, 120, 120),
        "3dpes": (threedpes, 93, 186, 100, 100, 100),
        "prid2011": (prid, 285, 3_850, 100, 100, 649),
    }
    for dataset, (names, *sizes) in expected.items():
        roles = by_role(read(dataset, trees.touch_tree(tmp_path / dataset, names)))
        train, query, gallery = roles["train"], roles["query"], roles["gallery"]
        assert [len(people(train)), len(train), len(people(query)), len(query), len(gallery)] == sizes, (
            dataset
        )


@pytest.mark.parametrize("dataset", trees.FOLDERS)
def test_names_of_something_else_are_refused_by_file(tmp_path, dataset):
    folder = trees.touch_tree(tmp_path, trees.IMAGES[dataset])
    for name, text in trees.MSMT17_LISTS.items():
        (folder / name).write_text(text)
    first = folder / next(name for name in trees.IMAGES[dataset])
    stranger = first.with_name(first.stem + "x" + first.suffix)
    stranger.touch()
    with pytest.raises(DataError) as error:
        read(dataset, folder)
    assert stranger.name in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("dataset", trees.FOLDERS)
def test_a_missing_folder_and_an_empty_one_are_refused(tmp_path, dataset):
    with pytest.raises(DataError, match=r"[Nn]o such"):
        read(dataset, tmp_path / "absent")
    folder = trees.touch_tree(tmp_path / "emptied", trees.IMAGES[dataset])
    for path in folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"holds no images|no such file|No such file"):
        read(dataset, folder)


def test_other_files_are_ignored_and_extensions_match_in_any_case(tmp_path):
    folder = trees.touch_tree(tmp_path, trees.MARKET)
    before = read("market1501", folder)
    for litter in ("Thumbs.db", "._0001_c1s1_001051_00.jpg", ".DS_Store", "readme.txt", "__MACOSX/x.jpg"):
        trees.touch_tree(folder / "query", [litter])
    assert read("market1501", folder) == before
    (folder / "query/0001_c1s1_001051_00.jpg").rename(folder / "query/0001_c1s1_001051_00.JPG")
    assert Record("query/0001_c1s1_001051_00.JPG", 1, 1, "query") in read("market1501", folder)
    (folder / "query/0001_c5s1_001051_00.jpg").rename(folder / "query/0001_C5s1_001051_00.jpg")
    with pytest.raises(
        DataError, match=r"1 of 2 images is named otherwise: '0001_C5s1_001051_00\.jpg'; expected"
    ):
        read("market1501", folder)


def test_links_are_followed_and_those_that_lead_nowhere_are_named(tmp_path):
    folder = trees.touch_tree(tmp_path / "real", trees.MARKET)
    before = read("market1501", folder)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (linked / name).symlink_to(folder / name)
    assert read("market1501", linked) == before
    (folder / "query/0003_c1s1_001051_00.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "query/0003_c2s1_001051_00.jpg").symlink_to("0003_c2s1_001051_00.jpg")
    message = r"query: 2 links lead nowhere: '0003_c1s1_001051_00\.jpg', '0003_c2s1_001051_00\.jpg'"
    with pytest.raises(DataError, match=message):
        read("market1501", linked)


def test_names_that_are_not_utf8_are_named(tmp_path):
    folder = trees.touch_tree(tmp_path, trees.CUHK03)
    os.close(os.open(os.fsencode(folder) + b"/query/\xff.png", os.O_CREAT))
    with pytest.raises(DataError, match=r"query: 1 name is not UTF-8: '\\udcff\.png'"):
        read("cuhk03-np", folder)


@pytest.mark.parametrize("name", ["-1_c1s1_000401_03.jpg", "0000_c3s1_000151_01.jpg"])
@pytest.mark.parametrize("place", ["bounding_box_train", "query"])
def test_junk_and_distractors_belong_in_markets_gallery_alone(tmp_path, place, name):
    folder = trees.touch_tree(tmp_path, [*trees.MARKET, f"{place}/{name}"])
    with pytest.raises(DataError, match=name):
        read("market1501", folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("list_val.txt", None, "list_val.txt: cannot be read"),
        ("list_val.txt", "", "list_val.txt: names no images"),
        ("list_val.txt", "0001/0001_001_09_0114morning_0398_0.jpg\n", "line 1 is .*not 'PATH PERSON'"),
        ("list_query.txt", trees.MSMT17_LISTS["list_query.txt"] * 2, "line 2 is .*for the second time"),
        (
            "list_query.txt",
            "0000/../0000_000_15_0302noon_0001_0.jpg 0\n",
            "list_query.txt: 1 of 1 image is named",
        ),
        (
            "list_gallery.txt",
            "0000/0000_001_03_0302noon_0001_0.jpg 0\n",
            "1 image is in no list file: 'test/0001/",
        ),
        (
            "list_query.txt",
            "0000/0000_000_15_0302noon_0001_0.jpg 0\n0009/0009_000_15_0302noon_0001_0.jpg 9\n",
            "1 listed images are missing: 'test/0009/",
        ),
        (
            "list_val.txt",
            "0001/0001_001_09_0114morning_0398_0.jpg 0\n",
            "list_val.txt: gives '0001/0001_001_09_.*' to person 0, expected that of its name",
        ),
        (
            "list_query.txt",
            "0001/0000_000_15_0302noon_0001_0.jpg 0\n",
            "list_query.txt: gives '0001/0000_000_15_.*' to person 0, expected that of its name",
        ),
    ],
)
def test_msmt17_lists_must_agree_with_the_folders(tmp_path, file, text, message):
    folder = trees.touch_tree(tmp_path, trees.MSMT17)
    for name, content in trees.MSMT17_LISTS.items():
        (folder / name).write_text(content)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read("msmt17", folder)


def test_samples_keep_their_order_and_do_not_depend_on_that_of_their_source():
    assert sample("abc", 5, np.random.default_rng(0)) == ["a", "b", "c"]
    drawn = sample(range(100), 10, np.random.default_rng(0))
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert sample_half([3, 1, 2, 5, 4], np.random.default_rng(1)) == sample_half(
        [1, 2, 2, 3, 4, 5], np.random.default_rng(1)
    )
    often = Counter(x for seed in range(600) for x in sample_half(range(5), np.random.default_rng(seed)))
    assert sum(often.values()) == 1200
    assert all(180 < number < 300 for number in often.values())  # 240 each, standard deviation 12
