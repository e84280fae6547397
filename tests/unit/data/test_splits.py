"""Draws of splits, and the files of splits that users hold."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers import Record
from fedreid_mpi.data.readers.split_files import (
    IdentitySplit,
    assign_identities,
    read_identity_split,
    read_image_lists,
    read_json,
    read_people_lists,
)
from fedreid_mpi.data.readers.views import View, halve, people_in
from fedreid_mpi.data.splits import draw_training, generator, role_of, sample, sample_half
from fedreid_mpi.errors import DataError
from support import trees_small

VIEWS = [
    View("cam_a/003_0.bmp", 3, 0),
    View("cam_a/007_0.bmp", 7, 0),
    View("cam_a/009_0.bmp", 9, 0),
    View("cam_b/003_0.bmp", 3, 1),
    View("cam_b/007_0.bmp", 7, 1),
    View("cam_b/009_0.bmp", 9, 1),
]
LISTS = {
    "train": [["/x/VIPeR/cam_a/007_0.bmp", 0, 0], ["/x/VIPeR/cam_b/007_0.bmp", 0, 1]],
    "query": [["/x/VIPeR/cam_a/003_0.bmp", 0, 0], ["/x/VIPeR/cam_a/009_0.bmp", 1, 0]],
    "gallery": [["/x/VIPeR/cam_b/003_0.bmp", 0, 1], ["/x/VIPeR/cam_b/009_0.bmp", 1, 1]],
    "num_train_pids": 1,
}
LISTED = {
    Record("cam_a/007_0.bmp", 7, 0, "train"),
    Record("cam_b/007_0.bmp", 7, 1, "train"),
    Record("cam_a/003_0.bmp", 3, 0, "query"),
    Record("cam_a/009_0.bmp", 9, 0, "query"),
    Record("cam_b/003_0.bmp", 3, 1, "gallery"),
    Record("cam_b/009_0.bmp", 9, 1, "gallery"),
}


@settings(deadline=None)
@given(
    people=st.sets(st.integers(0, 10_000), min_size=2, max_size=50),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_a_drawn_split_is_the_published_draw_whatever_the_order(people, seed, data):
    count = data.draw(st.integers(0, len(people)))
    shuffled = data.draw(st.permutations(sorted(people)))
    draws = draw_training(shuffled, count, seed, "viper", "standard")
    assert len(draws) == 10
    for number, training in enumerate(draws):
        assert training <= people
        assert len(training) == count
        # Split 3 is its own stream, so it stays the same when fewer or more splits are drawn.
        rng = generator(seed, "viper", f"standard {number}")
        assert training == set(sample(sorted(people), count, rng))
    assert draw_training(people, count, seed, "viper", "standard", 4) == draws[:4]


def test_splits_differ_by_number_seed_dataset_and_name():
    people = range(100)
    draws = [
        frozenset(training)
        for seed, dataset, name in (
            (0, "viper", "standard"),
            (1, "viper", "standard"),
            (0, "cuhk01", "standard"),
        )
        for training in draw_training(people, 50, seed, dataset, name)
    ] + [frozenset(training) for training in draw_training(people, 50, 0, "viper", "other")]
    assert len(set(draws)) == 40


def test_each_person_is_as_likely_to_be_trained_on():
    draws = draw_training(range(20), 10, 0, "viper", "standard", 2000)
    for pid in range(20):
        assert 900 < sum(pid in training for training in draws) < 1100  # four standard deviations and more


def test_draws_are_what_they_always_were():
    """Pinned: whoever prepares a dataset with a later version gets the same splits."""
    assert draw_training(range(10), 4, 0, "viper", "standard", 2) == [{0, 2, 4, 5}, {2, 4, 8, 9}]


def test_a_sample_keeps_its_order_and_takes_all_where_there_are_fewer():
    items = [9, 2, 7, 4, 5]
    for seed in range(20):
        drawn = sample(items, 3, generator(seed, "viper", "x"))
        assert len(drawn) == 3
        assert drawn == [item for item in items if item in drawn]
    assert sample(items, 8, generator(0, "viper", "x")) == items


def test_half_of_the_distinct_items_is_the_smaller_half_whatever_their_order():
    draws = [
        sample_half(items, generator(1, "viper", "x"))
        for items in ([3, 1, 1, 2, 5, 4], [5, 4, 3, 2, 1, 1, 1])
    ]
    assert draws[0] == draws[1] < {1, 2, 3, 4, 5}
    assert len(draws[0]) == 2
    assert len({frozenset(sample_half(range(6), generator(seed, "viper", "x"))) for seed in range(50)}) > 10


def test_of_those_not_trained_on_camera_0_asks_and_camera_1_answers():
    roles = [role_of(pid, camid, {3}) for pid, camid in ((3, 0), (3, 1), (7, 0), (7, 1))]
    assert roles == [SplitRole.TRAIN, SplitRole.TRAIN, SplitRole.QUERY, SplitRole.GALLERY]


def test_halves():
    assert people_in(VIEWS) == [3, 7, 9]
    assert set(halve(VIEWS, {7})) == LISTED


def test_lists_of_images_are_found_by_the_last_parts_of_their_paths(tmp_path):
    swapped = {"train": LISTS["train"], "query": LISTS["gallery"], "gallery": LISTS["query"]}
    path = trees_small.write_json(tmp_path / "splits.json", [LISTS, swapped])
    first, second = read_image_lists(path, tmp_path, VIEWS)
    assert set(first) == LISTED
    assert len(first) == 6
    other = {"train": "train", "query": "gallery", "gallery": "query"}
    assert set(second) == {Record(r.path, r.pid, r.camid, other[r.role]) for r in LISTED}


def test_lists_of_file_names_and_of_windows_paths(tmp_path):
    names = [View("0001001.jpg", 1, 1), View("0001002.jpg", 1, 2), View("0002001.jpg", 2, 1)]
    lists = {
        "train": ["0002001.jpg"],
        "query": ["C:\\data\\Persons\\0001002.jpg"],
        "gallery": ["0001001.jpg"],
    }
    (split,) = read_image_lists(trees_small.write_json(tmp_path / "s.json", [lists]), tmp_path, names)
    assert set(split) == {
        Record("0002001.jpg", 2, 1, "train"),
        Record("0001002.jpg", 1, 2, "query"),
        Record("0001001.jpg", 1, 1, "gallery"),
    }


def changed(part, index, *place, value):
    lists = copy.deepcopy(LISTS)
    if place:
        lists[part][index][place[0]] = value
    else:
        lists[part][index] = value
    return [LISTS, lists]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LISTS, "found a dictionary of train, query, gallery, num_train_pids, expected a list of splits"),
        ([], "found \\[\\], expected a list of splits with train, query, gallery"),
        ([LISTS, {"train": [], "query": []}], "split 1 has no list 'gallery'"),
        ([LISTS, 7], "split 1 has no list 'train'"),
        (
            changed("query", 0, value=["/x/cam_a/003_0.bmp", 0]),
            "split 1 has an entry .* expected a file name or \\[path",
        ),
        (
            changed("query", 1, 0, value="/x/VIPeR/cam_a/010_0.bmp"),
            "split 1 lists 1 image that .* lacks: '/x/VIPeR/cam_a/010_0.bmp'",
        ),
        (
            changed("gallery", 1, 2, value=0),
            "split 1 says camera 0 of '/x/VIPeR/cam_b/009_0.bmp', its name says 1",
        ),
        (changed("gallery", 1, 1, value=0), "split 1 gives one person to several: person 0 there, 9 by"),
        (changed("gallery", 1, 1, value=5), "split 1 gives several people to one: person 5 there, 9 by"),
        (
            changed("query", 1, value=LISTS["query"][0]),
            "split 1 lists more than once: 'cam_a/003_0.bmp'",
        ),
        (changed("train", 0, value=LISTS["query"][0]), "split 1"),
    ],
)
def test_wrong_lists_of_images_are_refused(tmp_path, content, message):
    path = trees_small.write_json(tmp_path / "splits.json", content)
    with pytest.raises(DataError, match=message) as error:
        read_image_lists(path, tmp_path, VIEWS)
    assert str(path) in str(error.value)


def test_lists_of_people_by_number_and_by_folder(tmp_path):
    content = [
        {"train": [1, 200], "test": [3]},
        {"train": ["person_0003"], "test": ["person001", "person_0200"]},
    ]
    path = trees_small.write_json(tmp_path / "splits.json", content)
    assert read_people_lists(path, [1, 2, 3, 200], tmp_path) == (
        ({1, 200}, {3}),
        ({3}, {1, 200}),
    )


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": [1], "test": [4]}, "split 0 lists 1 person that .* lacks: 4"),
        ({"train": [1, 2], "test": [2]}, "split 0 lists more than once: 2"),
        ({"train": [1.5], "test": [2]}, "split 0 has an entry 1.5, expected a number or a name"),
        ({"train": [True], "test": [2]}, "split 0 has an entry True"),
        ({"train": ["cam1_person001"], "test": [2]}, "split 0 has an entry cam1_person001"),
        ({"train": [1]}, "split 0 has no list 'test'"),
    ],
)
def test_wrong_lists_of_people_are_refused(tmp_path, split, message):
    path = trees_small.write_json(tmp_path / "splits.json", [split])
    with pytest.raises(DataError, match=message):
        read_people_lists(path, [1, 2, 3], tmp_path)


def test_numbers_of_identities(tmp_path):
    # Four people; identity 0 is a probe, 1 is trained on, 2 is in the gallery only, 3 is not used.
    path = trees_small.write_identity_split(
        tmp_path, views=[(1, 2), (1, 0), (1, 1), (0, 1)], trainval=[1], probe=[0], gallery=[0, 2]
    )
    split = read_identity_split(path)
    views = ((1, 2), (1, 0), (1, 1), (0, 1))
    names = tuple(
        frozenset(
            (number, f"cam_{camera}/{number:05d}_{image:05d}.png")
            for number, counts in enumerate(views)
            for image in range(counts[camera])
        )
        for camera in (0, 1)
    )
    people = frozenset({1}), frozenset({0}), frozenset({0, 2})
    assert split == IdentitySplit(path, *people, views, names)
    views = [
        View("a", 10, 0),
        View("b", 10, 1),
        View("c", 10, 1),
        View("d", 11, 0),
        View("e", 20, 0),
        View("f", 20, 1),
        View("g", 30, 1),
    ]
    assert assign_identities(split, tmp_path, views) == (
        Record("a", 10, 0, "query"),
        Record("b", 10, 1, "gallery"),
        Record("c", 10, 1, "gallery"),
        Record("d", 11, 0, "train"),
        Record("e", 20, 0, "gallery"),
        Record("f", 20, 1, "gallery"),
    )
    with pytest.raises(DataError, match=r"meta\.json: describes 4 people, .* shows 3"):
        assign_identities(split, tmp_path, views[:-1])
    with pytest.raises(
        DataError,
        match=r"identity 2 has 1 and 1 images in the two cameras, person 20 of .* has 2 and 0",
    ):
        assign_identities(split, tmp_path, [*views[:5], View("f", 20, 0), views[6]])


@pytest.mark.parametrize(
    ("trainval", "probe", "gallery", "message"),
    [
        ([0, 4], [1], [1], "trainval holds 4, expected identities 0 to 3 of meta.json"),
        ([0], [-1], [1], "test_probe holds -1"),
        ([0], ["1"], [1], "test_probe holds '1'"),
        ([0], [1], [1, 1], "test_gallery lists more than once: 1"),
        ([0, 2], [1], [1, 2], "1 identity is both trained on and tested: 2"),
        ([0], [1, 2], [1], "1 probe is not in test_gallery: 2"),
    ],
)
def test_wrong_numbers_of_identities_are_refused(tmp_path, trainval, probe, gallery, message):
    path = trees_small.write_identity_split(tmp_path, [(1, 1)] * 4, trainval, probe, gallery)
    with pytest.raises(DataError, match=message):
        read_identity_split(path)


def test_files_of_something_else_are_refused(tmp_path):
    path = trees_small.write_identity_split(tmp_path, [(1, 1)] * 2, [0], [1])
    trees_small.write_json(tmp_path / "meta.json", {"identities": [[["a"], ["b"]], ["c"]]})
    with pytest.raises(DataError, match=r"meta\.json: identity 1 is not a pair of lists of images"):
        read_identity_split(path)
    trees_small.write_json(tmp_path / "meta.json", ["a"])
    with pytest.raises(DataError, match=r"meta\.json: it has no list 'identities'"):
        read_identity_split(path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(DataError, match=r"meta\.json: cannot be read: No such file"):
        read_identity_split(path)
    for content in (b"\x80\x04", b"{", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"split\.json: not a JSON file"):
            read_json(path)
