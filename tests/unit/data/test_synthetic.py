import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.cli import run
from fedreid_mpi.data.synthetic import LAYOUTS, SCALES, count_images, join_digests, write_benchmark
from fedreid_mpi.data.synthetic.domains import draw_domain
from fedreid_mpi.data.synthetic.layouts import Tree, plan_tree
from fedreid_mpi.data.synthetic.sightings import share_out
from fedreid_mpi.errors import ConfigurationError

MSMT_NAME = (
    r"(?P<pid>\d{4})_(?P<idx>\d{3,})_(?P<cam>0[1-9]|1[0-5])_(?P<date>\d{4})(?P<slot>morning|noon|afternoon)"
    r"_(?P<n>\d+)_(?P<m>\d+)(?P<ex>_ex)?\.jpg"
)
FOLDER = r"(bounding_box_train|bounding_box_test|query)/"
PATTERNS = {
    "market1501": FOLDER
    + r"(?P<pid>-1|\d{4})_c(?P<cam>[1-6])s(?P<seq>[1-6])_(?P<frame>\d{6})_(?P<box>\d{2})\.jpg",
    "dukemtmc-reid": FOLDER + r"(?P<pid>\d{4})_c(?P<cam>[1-8])_f(?P<frame>\d{7})\.jpg",
    "msmt17": rf"(train|test)/\d{{4}}/{MSMT_NAME}",
    "cuhk03-np": FOLDER + r"(?P<pid>\d{4})_c(?P<cam>[12])_(?P<num>\d+)\.png",
    "prid2011": r"(single_shot/cam_[ab]/person_\d{4}|multi_shot/cam_[ab]/person_\d{4}/\d{4})\.png",
    "cuhk01": r"(?P<pid>\d{4})(?P<img>00[1-4])\.png",
    "viper": r"cam_[ab]/(?P<pid>\d{3})_(?P<angle>0|45|90|135|180)\.bmp",
    "3dpes": r"(?P<pid>\d+)_(?P<seq>\d+)_FRAME_(?P<frame>\d+)_RGB\.bmp",
    "ilids": r"(?P<pid>\d{4})(?P<img>\d{3})\.jpg",
    "cuhk02": r"P[1-5]/cam[12]/(?P<pid>\d+)_(?P<img>\d+)\.png",
    "caviar4reid": r"(?P<pid>\d{4})(?P<img>0[01]\d|020)\.jpg",
    "grid": r"(probe|gallery)/(?P<pid>\d{4})_(?P<cam>[1-8])_\d{5}(_\d+){4}\.jpeg",
}
PUBLISHED = {  # cameras, train identities and images, query identities and images, gallery images
    "msmt17": (15, 1041, 32621, 3060, 11659, 82161),
    "dukemtmc-reid": (8, 702, 16522, 702, 2228, 17661),
    "market1501": (6, 751, 12936, 750, 3368, 19732),
    "cuhk03-np": (2, 767, 7365, 700, 1400, 5332),
    "cuhk01": (2, 485, 1940, 486, 972, 972),
    "viper": (2, 316, 632, 316, 316, 316),
}
KEYS = ("cameras", "train_identities", "train_images", "query_identities", "query_images", "gallery_images")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    return root, write_benchmark(root, "demo", seed=0)


def start_of(root: Path, dataset: str) -> Path:
    return root / LAYOUTS[dataset].folder / LAYOUTS[dataset].root


def images_below(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.suffix in {".jpg", ".jpeg", ".png", ".bmp"})
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def full_plan(dataset: str) -> Tree:
    return plan_tree(dataset, "full", seed=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dataset", LAYOUTS)
def test_planned_names_are_original_and_unique(scale, dataset):
    paths = [shot.path for shot in plan_tree(dataset, scale, seed=3).shots]
    assert len(paths) == len(set(paths)) == count_images(scale, [dataset])
    assert [path for path in paths if not re.fullmatch(PATTERNS[dataset], path)] == []


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_disk_holds_what_was_planned_and_nothing_else(demo, dataset):
    root, written = demo
    start = start_of(root, dataset)
    tree = plan_tree(dataset, "demo", seed=0)
    assert images_below(start) == sorted(shot.path for shot in tree.shots)
    others = {path.name for path in start.rglob("*") if path.is_file()} - {
        Path(s.path).name for s in tree.shots
    }
    lists = {
        "msmt17": {f"list_{part}.txt" for part in ("train", "val", "query", "gallery")},
        "grid": {"features_and_partitions.mat"},
    }
    assert others == {"counts.json"} | lists.get(dataset, set())
    assert next(each for each in written if each.dataset == dataset).images == len(tree.shots)
    assert not list(root.glob(".*"))


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_images_decode_at_the_scales_size(demo, dataset):
    start = start_of(demo[0], dataset)
    for path in images_below(start)[::17]:
        with Image.open(start / path) as image:
            assert (image.height, image.width) == (64, 32)
            assert image.mode == "RGB"
            assert np.asarray(image).std() > 4


@pytest.mark.parametrize("dataset", ["market1501", "dukemtmc-reid", "cuhk03-np"])
def test_counts_of_folders_with_a_split(demo, dataset):
    start = start_of(demo[0], dataset)
    counts = json.loads((start / "counts.json").read_text())
    found = defaultdict(list)
    for path in images_below(start):
        folder, name = path.split("/")
        found[folder].append(re.fullmatch(PATTERNS[dataset], path).groupdict())
        assert name
    train, query, gallery = (found[name] for name in ("bounding_box_train", "query", "bounding_box_test"))
    assert counts["train_images"] == len(train)
    assert counts["train_identities"] == len({name["pid"] for name in train})
    assert counts["query_images"] == len(query) == len({(name["pid"], name["cam"]) for name in query})
    assert counts["query_identities"] == len({name["pid"] for name in query})
    assert counts["gallery_images"] == len(gallery)
    assert counts["cameras"] == len({name["cam"] for name in train + query + gallery})
    assert not {name["pid"] for name in train} & {name["pid"] for name in query + gallery}
    seen = defaultdict(set)
    for name in gallery:
        seen[name["pid"]].add(name["cam"])
    assert all(seen[name["pid"]] - {name["cam"]} for name in query)
    strangers = set(seen) - {name["pid"] for name in query}
    expected = {"market1501": {"-1", "0000"}, "cuhk03-np": set()}
    assert strangers == expected[dataset] if dataset in expected else len(strangers) == 20


def test_msmt17_lists_name_every_image_once(demo):
    start = start_of(demo[0], "msmt17")
    counts = json.loads((start / "counts.json").read_text())
    lines = {
        part: (start / f"list_{part}.txt").read_text().splitlines()
        for part in ("train", "val", "query", "gallery")
    }
    assert len(lines["train"]) + len(lines["val"]) == counts["train_images"]
    assert (len(lines["query"]), len(lines["gallery"])) == (counts["query_images"], counts["gallery_images"])
    listed = []
    pids = {"train": set(), "test": set()}
    for part, entries in lines.items():
        half = "train" if part in ("train", "val") else "test"
        for entry in entries:
            path, pid = entry.split(" ")
            assert int(path[:4]) == int(pid)
            listed.append(f"{half}/{path}")
            pids[half].add(int(pid))
    assert sorted(listed) == images_below(start)
    assert pids["train"] == set(range(counts["train_identities"]))
    assert pids["test"] == set(range(counts["query_identities"]))


def test_prid_shares_people_up_to_number_200_only():
    tree = full_plan("prid2011")
    people = defaultdict(dict)
    frames = defaultdict(int)
    for shot in tree.shots:
        shots, camera, person = Path(shot.path).with_suffix("").parts[:3]
        if shots == "single_shot":
            people[camera][int(person[-4:])] = shot.person
        else:
            frames[camera, int(person[-4:])] += 1
    assert (len(people["cam_a"]), len(people["cam_b"])) == (385, 749)
    same = {number for number, person in people["cam_a"].items() if people["cam_b"].get(number) == person}
    assert same == set(range(1, 201))
    assert not {p for n, p in people["cam_a"].items() if n > 200} & {
        p for n, p in people["cam_b"].items() if n > 200
    }
    assert (tree.counts["train_identities"], tree.counts["query_images"], tree.counts["gallery_images"]) == (
        285,
        100,
        649,
    )
    # The reader trains on up to ten frames; of the shared people on half, 980 + 996 frames on average.
    usable = {key: min(count, 10) for key, count in frames.items()}
    assert sum(count for (camera, number), count in usable.items() if number <= 200) == 2 * (980 + 996)
    assert (
        sum(count for (camera, number), count in usable.items() if number > 200 and camera == "cam_a") == 1768
    )


def test_full_scale_has_the_published_counts():
    for dataset, published in PUBLISHED.items():
        counts = full_plan(dataset).counts
        assert tuple(counts[key] for key in KEYS) == published, dataset
    # PRID2011, 3DPeS and i-LIDS: their training images depend on the split that the reader draws.
    assert sum(published[2] for published in PUBLISHED.values()) + 3744 + 450 + 248 == 76_458
    assert count_images("full", ["msmt17"]) == 126_441
    assert count_images("full", ["dukemtmc-reid"]) == 36_411
    people = {name: {shot.person for shot in full_plan(name).shots} for name in ("3dpes", "ilids", "cuhk02")}
    assert {name: len(persons) for name, persons in people.items()} == {
        "3dpes": 193,
        "ilids": 119,
        "cuhk02": 1816,
    }
    assert count_images("full", ["3dpes"]) == 1012
    assert count_images("full", ["ilids"]) == 476
    assert full_plan("cuhk02").counts == {"identities": 1816, "images": 7264, "cameras": 10}
    caviar, grid = (
        {key: counts[key] for key in (*KEYS, "people", "images", "shared_people") if key in counts}
        for counts in (full_plan(name).counts for name in ("caviar4reid", "grid"))
    )
    assert tuple(caviar.values()) == (2, 0, 0, 36, 360, 360, 72, 1220, 50)
    assert tuple(grid.values()) == (8, 125, 250, 125, 125, 900)


def test_full_market_gallery_has_its_distractors_and_junk():
    gallery = [
        shot.path for shot in full_plan("market1501").shots if shot.path.startswith("bounding_box_test/")
    ]
    assert sum(path.startswith("bounding_box_test/0000_") for path in gallery) == 2798
    assert sum(path.startswith("bounding_box_test/-1_") for path in gallery) == 3819


def test_full_cuhk02_pairs_restart_their_numbers():
    people = defaultdict(set)
    for shot in full_plan("cuhk02").shots:
        pair, _, name = shot.path.split("/")
        people[pair].add(int(name.split("_")[0]))
    sizes = {"P1": 971, "P2": 306, "P3": 107, "P4": 193, "P5": 239}
    assert people == {pair: set(range(1, size + 1)) for pair, size in sizes.items()}


def test_full_3dpes_and_ilids_have_their_rare_people():
    sequences, images = defaultdict(set), defaultdict(int)
    for shot in full_plan("3dpes").shots:
        person, sequence, *_ = shot.path.split("_")
        sequences[person].add(sequence)
    assert sum(len(each) == 1 for each in sequences.values()) == 29
    for shot in full_plan("ilids").shots:
        images[shot.person] += 1
    assert min(images.values()) >= 2


def test_a_small_full_dataset_is_written_at_native_size(tmp_path):
    (written,) = write_benchmark(tmp_path, "full", seed=0, datasets=["viper"])
    assert (written.images, written.identities, written.cameras) == (1264, 632, 2)
    start = start_of(tmp_path, "viper")
    with Image.open(start / images_below(start)[0]) as image:
        assert image.size == (48, 128)


def test_bytes_depend_on_the_seed_and_not_on_the_processes(tmp_path):
    datasets = ["ilids", "viper"]
    seen = []
    digests = {}
    for name, seed, jobs in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        advance = seen.append if name == "two" else None
        written = write_benchmark(tmp_path / name, "demo", seed, datasets, jobs, advance)
        digests[name] = [each.digest for each in written] + [join_digests(written)]
    assert digests["one"] == digests["two"]
    assert not set(digests["one"]) & set(digests["other"])
    assert sum(seen) == count_images("demo", datasets) == 506


def test_a_dataset_does_not_depend_on_the_others_written(demo, tmp_path):
    (alone,) = write_benchmark(tmp_path, "demo", seed=0, datasets=["3dpes"])
    assert alone.digest == next(each.digest for each in demo[1] if each.dataset == "3dpes")


def test_a_person_looks_like_themselves(demo):
    """Mean colours of shirt and legs find the same person, in the other camera, far above chance."""
    start = start_of(demo[0], "cuhk01")

    def colours(person: int, image: int) -> np.ndarray:
        pixels = np.asarray(Image.open(start / f"{person:04d}{image:03d}.png"), np.float64)
        return np.concatenate([pixels[16:30, 12:20].mean((0, 1)), pixels[38:52, 12:20].mean((0, 1))])

    first, second, third = (
        np.array([colours(person, image) for person in range(1, 101)]) for image in (1, 2, 3)
    )

    def share_found(queries: np.ndarray, gallery: np.ndarray) -> float:
        distances = np.linalg.norm(queries[:, None] - gallery[None], axis=-1)
        return float(np.mean(distances.argmin(axis=1) == np.arange(100)))

    centred = [each - each.mean(axis=0) for each in (first, second, third)]
    assert share_found(centred[0], centred[1]) > 0.2
    assert share_found(centred[0], centred[2]) > 0.08


def test_the_shift_is_how_far_datasets_differ():
    names = sorted(LAYOUTS)

    def spread(shift):
        drawn = [draw_domain(0, name, shift) for name in names]
        traits = [(each.gain, *each.cast, each.gamma, *each.background) for each in drawn]
        return np.std(traits, axis=0)

    assert (spread(0.0) < 1e-12).all()
    assert (spread(0.5) < spread(1.0)).all()
    assert (spread(1.0) < spread(2.0)).all()
    # What sets people apart is left alone.
    palettes = [draw_domain(0, "viper", shift).upper_palette for shift in (0.0, 1.0, 2.0)]
    assert (palettes[0] == palettes[1]).all()
    assert (palettes[1] == palettes[2]).all()


def test_datasets_differ_in_colour(demo):
    means = []
    for dataset in LAYOUTS:
        start = start_of(demo[0], dataset)
        pixels = [np.asarray(Image.open(start / path)).mean((0, 1)) for path in images_below(start)[::20]]
        means.append(np.mean(pixels, axis=0))
    distances = np.linalg.norm(np.array(means)[:, None] - np.array(means)[None], axis=-1)
    assert np.median(distances[np.triu_indices(len(means), 1)]) > 15


def test_parts_sum_to_the_total():
    rng = generator(0, "parts")
    for total, shares, least in ((12_936, 751, 2), (1400, 700, 2), (5, 3, 1), (7, 7, 1)):
        parts = share_out(rng, total, shares, least)
        assert (parts.sum(), len(parts), parts.min() >= least) == (total, shares, True)


def test_an_existing_dataset_is_refused_and_left_alone(tmp_path, capsys):
    occupied = tmp_path / "VIPeR"
    occupied.mkdir()
    (occupied / "mine.txt").write_text("kept")
    assert run(["synth", str(tmp_path), "--only", "ilids", "--only", "viper", "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedreid-mpi: error:")
    assert error.count("\n") == 1
    assert str(occupied) in error
    assert [path.name for path in tmp_path.iterdir()] == ["VIPeR"]
    assert (occupied / "mine.txt").read_text() == "kept"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "VIPeR").mkdir()
    write_benchmark(tmp_path, "demo", seed=0, datasets=["viper"])
    assert len(images_below(tmp_path / "VIPeR")) == 200


def test_an_interrupted_dataset_leaves_nothing(tmp_path):
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_benchmark(tmp_path, "demo", seed=0, datasets=["viper"], advance=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        write_benchmark(tmp_path / "file" / "data", "demo", seed=0, datasets=["viper"])


def test_the_command_prints_every_dataset_and_the_digest(tmp_path, capsys):
    assert run(["synth", str(tmp_path), "--only", "viper", "--seed", "4", "--jobs", "1"]) == 0
    output = capsys.readouterr().out
    (written,) = write_benchmark(tmp_path / "again", "demo", seed=4, datasets=["viper"])
    assert written.digest[:16] in output
    assert join_digests([written]) in output


def test_unknown_names_are_refused(tmp_path, capsys):
    assert run(["synth", str(tmp_path), "--only", "market"]) == 2
    assert "market1501" in capsys.readouterr().err
    assert run(["synth", str(tmp_path), "--scale", "huge"]) == 2
