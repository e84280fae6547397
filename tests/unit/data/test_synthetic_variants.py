"""The synthetic benchmark in other variants: told, read and counted right by the readers."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.checks import check_split, compare_counts, unmatched_queries
from fedreid_mpi.data.readers import READERS, Choices, market1501, recognise
from fedreid_mpi.data.synthetic import LAYOUTS, ORIGINAL, VARIANTS, count_images, write_benchmark
from fedreid_mpi.data.synthetic.variants import place_of, plan_variant
from fedreid_mpi.errors import ConfigurationError
from support import trees

pytestmark = pytest.mark.slow

PACKED = ("mat-detected", "mat-labeled")
EVERY = [
    (dataset, variant)
    for dataset, variants in VARIANTS.items()
    for variant in variants
    if variant not in PACKED
]


def touch(root, dataset, variant, scale="demo"):
    """Write the plan of a dataset with empty files; return what the reader is given, and the plan."""
    tree, place = plan_variant(dataset, variant, scale, seed=2), place_of(dataset, variant)
    start = root / place.folder / place.root
    trees.touch_tree(start, [shot.path for shot in (*tree.shots, *tree.more) if shot.path])
    trees.touch_tree(start, tree.copies)
    for name, text in tree.texts.items():
        (start / name).write_text(text)
    (start / "counts.json").write_text(json.dumps(tree.counts))
    return root / place.folder, tree


@pytest.mark.parametrize(("dataset", "variant"), EVERY)
def test_the_reader_tells_the_variant_and_agrees_on_everybody(tmp_path, dataset, variant):
    # MSMT17 has two-digit cameras at this scale only.
    folder, tree = touch(tmp_path, dataset, variant, "bench" if dataset == "msmt17" else "demo")
    found = recognise(READERS[dataset], folder)
    assert found.variant.name == (ORIGINAL if variant == "multi-query" else variant)
    listing = found.variant.read(found.folder, Choices())
    records = [record for record in listing.splits[0] if record.role != "multi_query"]
    assert not listing.drawn
    counts = compare_counts(found.variant, Choices(), found.folder, listing)
    assert [str(each) for group in counts for each in group if each.differs] == []
    check_split(found.folder, records)
    assert unmatched_queries(records) == []
    shots = {shot.path: shot for shot in tree.shots if shot.path}
    assert sorted(shots) == sorted(record.path for record in records)
    if dataset in ("msmt17", "dukemtmc-reid", "market1501", "cuhk03-np"):
        assert all(record.camid == shots[record.path].camera + 1 for record in records)
    for halves in (("train",), ("query", "gallery"), ("public",)):
        pids, people = defaultdict(set), defaultdict(set)
        for record in records:
            stranger = dataset == "market1501" and record.pid in (-1, 0)
            if record.role in halves and not stranger:
                pids[shots[record.path].person].add(record.pid)
                people[record.pid].add(shots[record.path].person)
        assert all(len(each) == 1 for each in pids.values())
        assert all(len(each) == 1 for each in people.values())


@pytest.mark.parametrize("variant", ["processed", "cameras"])
def test_small_datasets_have_their_published_sizes_at_full_scale(tmp_path, variant):
    sizes = {}
    for dataset in ("prid2011", "cuhk01", "viper", "3dpes", "ilids"):
        counts = plan_variant(dataset, variant, "full", seed=0).counts
        sizes[dataset] = [
            counts[key] for key in ("train_identities", "train_images", "query_images", "gallery_images")
        ]
    assert sizes["cuhk01"] == [485, 1940, 972, 972]
    assert sizes["viper"] == [316, 632, 316, 316]
    assert [sizes["prid2011"][index] for index in (0, 2, 3)] == [285, 100, 649]
    assert abs(sizes["prid2011"][1] - 3744) < 40
    assert sizes["3dpes"][0] == 93
    assert sum(sizes["3dpes"][1:]) == 1012
    assert sizes["ilids"][0] == 59
    assert sum(sizes["ilids"][1:]) == 476


def test_prid_is_split_by_its_numbers_at_full_scale(tmp_path):
    folder, _ = touch(tmp_path, "prid2011", "cameras", "full")
    whole = recognise(READERS["prid2011"], folder)
    (expected,) = whole.variant.read(folder, Choices()).splits
    for name in ("meta.json", "split.json"):
        (folder / name).unlink()
    found = recognise(READERS["prid2011"], folder)
    assert found.variant.name == "cameras-unsplit"
    (records,) = found.variant.read(folder, Choices()).splits
    assert set(records) == set(expected)


@pytest.mark.parametrize("dataset", ["viper", "cuhk01", "ilids"])
def test_a_split_file_means_the_same_people_in_the_original(tmp_path, dataset):
    theirs, renamed = touch(tmp_path / "theirs", dataset, "cameras")
    folder, original = touch(tmp_path / "original", dataset, ORIGINAL)
    found = recognise(READERS[dataset], theirs)
    (expected,) = found.variant.read(found.folder, Choices()).splits
    found = recognise(READERS[dataset], folder)
    choices = Choices(split_file=theirs / "split.json")
    (records,) = found.variant.read(found.folder, choices).splits
    paths = {new.path: old.path for new, old in zip(renamed.shots, original.shots, strict=True)}
    if dataset == "ilids":  # which images make which camera is drawn, but not how many
        people = {old.path: old.person for old in original.shots}
        one, other = (
            Counter((people[path], record.camid, record.role) for path, record in pairs)
            for pairs in (
                [(paths[record.path], record) for record in expected],
                [(record.path, record) for record in records],
            )
        )
        assert one == other
    else:
        roles = {paths[record.path]: (record.camid, record.role) for record in expected}
        assert {record.path: (record.camid, record.role) for record in records} == roles


def test_pictures_are_the_same_in_every_variant(tmp_path):
    original = tmp_path / "original"
    write_benchmark(original, "demo", 2, ["ilids"])
    for variant in VARIANTS["ilids"]:
        write_benchmark(tmp_path / variant, "demo", 2, ["ilids"], variant=variant)
        first, second = (plan_variant("ilids", name, "demo", 2).shots for name in (ORIGINAL, variant))
        starts = []
        for root, name in ((original, ORIGINAL), (tmp_path / variant, variant)):
            place = place_of("ilids", name)
            starts.append(root / place.folder / place.root)
        for one, other in zip(first, second, strict=True):
            assert one[1:] == other[1:]
            assert (starts[0] / one.path).read_bytes() == (starts[1] / other.path).read_bytes()


def test_what_a_variant_leaves_out_does_not_change_the_others(tmp_path):
    (written,) = write_benchmark(tmp_path, "demo", 0, ["prid2011"], variant="processed")
    tree = plan_variant("prid2011", "processed", "demo", 0)
    named = [shot.path for shot in tree.shots if shot.path]
    assert 0 < written.images == len(named) < len(tree.shots)
    files = list((tmp_path / "prid/pytorch").rglob("*.png"))
    assert len(files) == len(named) + len(tree.copies)
    with Image.open(files[0]) as image:
        assert np.asarray(image).std() > 4


def test_all_prepares_processed_datasets(tmp_path, capsys):
    names = ("viper", "3dpes", "cuhk02")
    only = [argument for name in names for argument in ("--only", name)]
    assert cli.run(["synth", str(tmp_path / "data"), "--variant", "processed", "--jobs", "1", *only]) == 0
    arguments = ["prepare", "--all", str(tmp_path / "data"), str(tmp_path), "--size", "16x8", "--jobs", "1"]
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out.count("variant processed") == 3
    for name in names:
        archive = DatasetArchive.open(tmp_path / f"{name}.h5")
        assert archive.name == name
        assert archive.attributes["layout"] == "processed"


def test_a_variant_that_a_dataset_lacks_is_refused(tmp_path, capsys):
    arguments = ["synth", str(tmp_path / "data"), "--variant", "V2", "--jobs", "1"]
    assert cli.run([*arguments, "--only", "msmt17", "--only", "viper"]) == 2
    error = capsys.readouterr().err
    assert "--variant V2: viper is not written so, expected original, processed, cameras" in error
    assert not (tmp_path / "data").exists()
    for dataset in LAYOUTS:
        with pytest.raises(ConfigurationError):
            place_of(dataset, "nested")
    assert place_of("msmt17", "V2").folder == Path("MSMT17_V2").name


@pytest.mark.parametrize("dataset", sorted({dataset for dataset, variant in EVERY if variant == "processed"}))
def test_train_and_val_are_train_all_again(tmp_path, dataset):
    folder, _ = touch(tmp_path, dataset, "processed", "bench" if dataset == "msmt17" else "demo")
    start = folder / "pytorch"
    if dataset == "cuhk02":
        assert {path.name for path in start.iterdir()} == {"train_all", "counts.json"}
        return
    parts = {
        part: {path.relative_to(start / part) for path in (start / part).rglob("*.*")}
        for part in ("train_all", "train", "val")
    }
    assert parts["train"] | parts["val"] == parts["train_all"]
    assert not parts["train"] & parts["val"]
    people = {path.parent for path in parts["train_all"]}
    assert {path.parent for path in parts["train"]} == people
    if dataset in ("viper", "cuhk01", "prid2011", "3dpes", "ilids"):
        assert len(parts["val"]) == len(parts["train_all"]) // 5
    else:
        assert len(parts["val"]) == len({path.parent for path in parts["val"]}) == len(people)
    found = recognise(READERS[dataset], folder)
    (records,) = found.variant.read(found.folder, Choices(training="train")).splits
    trained = [record.path for record in records if record.role == "train"]
    assert sorted(trained) == sorted(f"train/{path}" for path in parts["train"])


def test_copies_have_the_bytes_of_the_others(tmp_path):
    write_benchmark(tmp_path, "demo", 0, ["viper"], variant="processed")
    copies = plan_variant("viper", "processed", "demo", 0).copies
    assert len(copies) == 100
    start = tmp_path / "viper/pytorch"
    assert all((start / copy).read_bytes() == (start / path).read_bytes() for copy, path in copies.items())


def test_multi_query_adds_boxes_for_every_query_and_changes_nothing_else(tmp_path):
    seen = []
    write_benchmark(tmp_path / "boxes", "demo", 2, ["market1501"], 1, seen.append, "multi-query")
    write_benchmark(tmp_path / "plain", "demo", 2, ["market1501"])
    boxes, plain = (tmp_path / name / "Market-1501-v15.09.15" for name in ("boxes", "plain"))
    assert sum(seen) == count_images("demo", ["market1501"], "multi-query", seed=2)
    for path in sorted(plain.rglob("*.*")):
        assert path.read_bytes() == (boxes / path.relative_to(plain)).read_bytes()
    assert (
        cli.run(["prepare", "--dataset", "market1501", str(boxes), str(tmp_path / "m.h5"), "--jobs", "1"])
        == 0
    )
    archive = DatasetArchive.open(tmp_path / "m.h5")
    assert archive.attributes["layout"] == ORIGINAL
    found = recognise(READERS["market1501"], boxes)
    (records,) = found.variant.read(found.folder, Choices()).splits
    shown = Counter((record.pid, record.camid) for record in records if record.role == "multi_query")
    asked = {(record.pid, record.camid) for record in records if record.role == "query"}
    assert shown == dict.fromkeys(asked, 3)
    assert len(list((boxes / "gt_bbox").iterdir())) > sum(shown.values())  # people who are trained on, too


def test_names_of_boxes_are_unique_and_fit_at_full_scale():
    tree = plan_variant("market1501", "multi-query", "full", 0)
    paths = [shot.path for shot in (*tree.shots, *tree.more)]
    assert len(paths) == len(set(paths))
    assert all(market1501.ANYTHING.fullmatch(shot.path.removeprefix("gt_bbox/")) for shot in tree.more)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    (written,) = write_benchmark(root, "demo", 2, ["cuhk03-np"], variant="mat-detected")
    return root, written


def test_only_the_files_of_the_release_are_there(release):
    root, _ = release
    configs = [f"cuhk03_new_protocol_config_{half}.mat" for half in ("detected", "labeled")]
    paths = [path.relative_to(root / "cuhk03").as_posix() for path in (root / "cuhk03").rglob("*.*")]
    assert sorted(paths) == [*configs, "cuhk03_release/counts.json", "cuhk03_release/cuhk-03.mat"]
    assert (root / "cuhk03/cuhk03_release/cuhk-03.mat").read_bytes()[:10] == b"MATLAB 7.3"


@pytest.mark.parametrize("variant", PACKED)
def test_the_mat_file_shows_the_pictures_of_the_folders(release, tmp_path, variant):
    root, _ = release
    found = recognise(READERS["cuhk03-np"], root / "cuhk03", variant)
    listing = found.variant.read(found.folder, Choices())
    (records,) = listing.splits
    counts = compare_counts(found.variant, Choices(), found.folder, listing)
    assert [str(each) for group in counts for each in group if each.differs] == []
    check_split(found.folder, records)
    assert unmatched_queries(records) == []
    write_benchmark(tmp_path, "demo", 2, ["cuhk03-np"])
    folders = tmp_path / "cuhk03-np/detected"
    original = plan_variant("cuhk03-np", ORIGINAL, "demo", 2).shots
    packed = plan_variant("cuhk03-np", variant, "demo", 2).shots
    sources = {
        f"cuhk-03.mat/{variant[4:]}/{new.path}": old.path
        for new, old in zip(packed, original, strict=True)
        if new.path
    }
    assert {record.path for record in records} == set(sources)
    expected = {
        record.path: record for record in READERS["cuhk03-np"].variants[0].read(folders, Choices()).splits[0]
    }
    for record in records:
        source = expected[sources[record.path]]
        assert (record.pid, record.camid, record.role) == (source.pid, source.camid, source.role)
    for record in records[::7]:
        with Image.open(folders / sources[record.path]) as image:
            assert np.array_equal(listing.load(record.path), np.asarray(image))
    # At most five images of a person and camera fit; nothing else is left out.
    sizes = Counter((record.pid, record.camid) for record in expected.values())
    assert len(records) == sum(min(size, 5) for size in sizes.values()) < len(expected)


def test_the_classic_splits_test_twenty_times_other_people(release):
    root, _ = release
    found = recognise(READERS["cuhk03-np"], root / "cuhk03")
    assert found.variant.name == "mat-detected"
    splits = found.variant.read(found.folder, Choices(splits="classic")).splits
    tested = {frozenset(record.pid for record in records if record.role == "query") for records in splits}
    assert len(tested) == len(splits) == 20
    for records in splits:
        check_split(found.folder, records)
        assert unmatched_queries(records) == []
        assert len({record.pid for record in records if record.role == "query"}) == 60
        assert len({record.pid for record in records if record.role == "train"}) == 60


def test_full_release_has_the_pairs_of_the_original():
    tree = plan_variant("cuhk03-np", "mat-detected", "full", 0)
    people = defaultdict(set)
    for shot in tree.shots:
        if shot.path:
            people[shot.path[0]].add(int(shot.path.split("_")[1]))
    sizes = (843, 440, 77, 58, 49)
    assert people == {str(pair): set(range(1, size + 1)) for pair, size in enumerate(sizes, 1)}
    counts = tree.counts
    assert [counts[key] for key in ("train_identities", "query_identities", "query_images")] == [
        767,
        700,
        1400,
    ]


def test_the_mat_files_have_the_same_bytes_whatever_the_time_and_the_processes(release, tmp_path):
    (again,) = write_benchmark(tmp_path, "demo", 2, ["cuhk03-np"], jobs=2, variant="mat-labeled")
    assert again.digest == release[1].digest


def test_all_prepares_the_mat_file(release, tmp_path, capsys):
    root, _ = release
    arguments = ["prepare", "--all", str(root), str(tmp_path), "--size", "16x8", "--jobs", "1"]
    assert cli.run(arguments) == 0
    assert "variant mat-detected" in capsys.readouterr().out
    archive = DatasetArchive.open(tmp_path / "cuhk03-np.h5")
    assert archive.attributes["layout"] == "mat-detected"
