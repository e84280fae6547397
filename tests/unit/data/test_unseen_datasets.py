"""CAVIAR4REID and GRID, which nobody trains on, and CUHK02 as a client's: each record is checked."""

import json
from collections import Counter, defaultdict

import h5py
import numpy as np
import pytest
import scipy.io

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.prepare import survey
from fedreid_mpi.data.readers import READERS, Choices, Record
from fedreid_mpi.data.readers.mat import read_struct_cells
from fedreid_mpi.data.synthetic import LAYOUTS, SCALES, write_benchmark
from fedreid_mpi.data.synthetic.layouts import plan_tree
from fedreid_mpi.errors import DataError
from support import trees


def read(dataset, folder, **choices):
    return READERS[dataset].variants[0].read(folder, Choices(**choices))


def expected(images):
    return {Record(path, *facts) for path, facts in images.items()}


def by_role(records):
    roles = defaultdict(list)
    for record in records:
        roles[str(record.role)].append(record)
    return roles


# CAVIAR4REID


def test_caviar_tests_those_whom_both_cameras_saw(tmp_path):
    folder = trees.touch_tree(tmp_path, (*trees.CAVIAR, *trees.CAVIAR_ALONE))
    listing = read("caviar4reid", folder)
    (records,) = listing.splits
    assert set(records) == expected(trees.CAVIAR)
    assert listing.drawn
    assert listing.whole == {"people": 4, "images": 10, "shared_people": 3}


@pytest.mark.parametrize("seed", [0, 1, 9])
def test_caviar_draws_36_of_50(tmp_path, seed):
    shots = plan_tree("caviar4reid", "full", 0).shots
    folder = trees.touch_tree(tmp_path, [shot.path for shot in shots])
    listed = survey("caviar4reid", folder, Choices(seed=seed))
    assert listed.complaints == ()
    roles = by_role(listed.listing.splits[0])
    assert {role: len(records) for role, records in roles.items()} == {"query": 360, "gallery": 360}
    tested = [{record.pid for record in records} for records in roles.values()]
    assert tested[0] == tested[1]
    assert len(tested[0]) == 36
    assert all(int(record.path[4:7]) <= 10 and record.camid == 0 for record in roles["query"])
    assert all(int(record.path[4:7]) > 10 and record.camid == 1 for record in roles["gallery"])
    others = {
        record.pid for record in survey("caviar4reid", folder, Choices(seed=seed + 1)).listing.splits[0]
    }
    assert others != tested[0]


def test_a_caviar_that_is_not_whole_is_refused(tmp_path):
    shots = plan_tree("caviar4reid", "full", 0).shots
    folder = trees.touch_tree(tmp_path, [shot.path for shot in shots])
    for image in range(11, 21):
        (folder / f"0007{image:03d}.jpg").unlink()
    complaints = survey("caviar4reid", folder, Choices()).complaints
    assert complaints == ("1210 images instead of 1220", "49 shared_people instead of 50")


@pytest.mark.parametrize("name", ["0001000.jpg", "0001021.jpg", "001001.jpg", "0001001.png", "x0001001.jpg"])
def test_other_names_in_caviar_are_refused(tmp_path, name):
    folder = trees.touch_tree(tmp_path, (*trees.CAVIAR, name))
    with pytest.raises(DataError, match=f"1 of 9 images is named otherwise: '{name}'; expected"):
        read("caviar4reid", folder)


def test_a_caviar_of_one_camera_is_refused(tmp_path):
    folder = trees.touch_tree(tmp_path, ["0001001.jpg", "0002010.jpg"])
    with pytest.raises(DataError, match="no person has images up to 10 and above"):
        read("caviar4reid", folder)


# GRID


def grid_tree(root):
    folder = trees.touch_tree(root / "underground_reid", trees.GRID)
    trees.write_grid_folds(folder)
    return folder


def test_grid_has_the_published_folds(tmp_path):
    folder = grid_tree(tmp_path)
    listing = read("grid", folder, splits="standard")
    assert len(listing.splits) == len(trees.GRID_FOLDS)
    assert set(listing.splits[0]) == expected(trees.GRID)
    for records, trained in zip(listing.splits, trees.GRID_FOLDS, strict=True):
        assert {record.path: (record.pid, record.camid) for record in records} == {
            path: facts[:2] for path, facts in trees.GRID.items()
        }
        roles = by_role(records)
        assert {record.pid for record in roles["train"]} == set(trained)
        assert {record.pid for record in roles["query"]} == {1, 2, 17, 250} - set(trained)
        assert Counter(record.pid for record in roles["gallery"])[0] == 3
    assert "features_and_partitions.mat" in listing.notes[0]
    assert not listing.drawn


def test_all_of_grid_is_tested_without_the_folds(tmp_path):
    folder = grid_tree(tmp_path)
    (folder / "features_and_partitions.mat").unlink()
    (records,) = read("grid", folder, splits="all").splits
    assert {role: len(images) for role, images in by_role(records).items()} == {"query": 4, "gallery": 7}
    with pytest.raises(DataError, match=r"features_and_partitions\.mat: no such file"):
        read("grid", folder, splits="standard")


def test_grid_at_full_size_has_the_published_counts(tmp_path):
    tree = plan_tree("grid", "full", 0)
    folder = trees.touch_tree(tmp_path, [shot.path for shot in tree.shots])
    tree.pack(folder)
    listed = survey("grid", folder, Choices())
    assert listed.complaints == ()
    assert len(listed.listing.splits) == 10
    for records in listed.listing.splits:
        sizes = {role: len(images) for role, images in by_role(records).items()}
        assert sizes == {"train": 250, "query": 125, "gallery": 900}
    assert survey("grid", folder, Choices(splits="all")).complaints == ()
    stranger = next(path for path in sorted(folder.glob("gallery/*")) if path.name.startswith("0000"))
    stranger.unlink()
    assert survey("grid", folder, Choices()).complaints == ("899 gallery_images instead of 900",)
    assert survey("grid", folder, Choices(splits="all")).complaints == (
        "1024 gallery_images instead of 1025",
    )


@pytest.mark.parametrize(
    "name",
    ["probe/0000_1_25004_1_1_1_1.jpeg", "gallery/0003_9_1.jpeg", "probe/3_1_25.jpeg", "gallery/0003_1_2.png"],
)
def test_other_names_in_grid_are_refused(tmp_path, name):
    folder = grid_tree(tmp_path)
    (folder / name).touch()
    with pytest.raises(DataError, match=f"images is named otherwise: '{name.split('/')[1]}'; expected"):
        read("grid", folder)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (((1, 3), (2, 17)), r"trainIdxAll\{1\} lists 1 person that .*probe lacks: 3"),
        (((1, 2), (2, 17, 1)), r"trainIdxAll\{2\} lists 3 people, 3 of them different, expected 2"),
        (((1, 2), (2, 2)), r"trainIdxAll\{2\} lists 2 people, 1 of them different, expected 2"),
        (((1, 2), (2, 1.5)), r"trainIdxAll\{2\}: found float64 of shape \(1, 2\), expected whole numbers"),
    ],
)
def test_folds_that_do_not_fit_are_refused(tmp_path, folds, message):
    folder = grid_tree(tmp_path)
    trees.write_grid_folds(folder, folds)
    with pytest.raises(DataError, match=message):
        read("grid", folder)


def test_damaged_files_of_folds_are_refused(tmp_path):
    folder = grid_tree(tmp_path)
    path = folder / "features_and_partitions.mat"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            read("grid", folder)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    for variables in ({"other": np.ones(3)}, {"trainIdxAll": np.ones((1, 10))}, {"trainIdxAll": {"a": 1}}):
        scipy.io.savemat(path, variables)
        with pytest.raises(DataError, match="trainIdxAll"):
            read("grid", folder)
    cells = np.empty((1, 1), object)
    cells[0, 0] = {"a": 1, "b": 2}
    scipy.io.savemat(path, {"trainIdxAll": cells})
    with pytest.raises(DataError, match=r"trainIdxAll\{1\} has 2 fields, expected the people in the third"):
        read("grid", folder)


def test_structs_of_matlab_7_3_keep_the_order_of_their_fields(tmp_path):
    path = tmp_path / "folds.mat"
    fields, letters = ("zebra", "b", "a"), h5py.vlen_dtype(np.dtype("S1"))
    with h5py.File(path, "w") as file:
        references = []
        for fold in ((1, 250), (2, 17)):
            struct = file.create_group(f"#refs#/{fold[0]}")
            for number, field in enumerate(fields):
                struct[field] = np.array([fold], np.float64).T + number
            names = np.empty(len(fields), object)
            names[:] = [np.array([letter.encode() for letter in field], "S1") for field in fields]
            struct.attrs.create("MATLAB_fields", names, dtype=letters)
            references.append([struct.ref])
        file.create_dataset("trainIdxAll", data=np.array(references, h5py.ref_dtype), dtype=h5py.ref_dtype)
        file["numbers"] = np.ones((1, 1))
    people = [struct[2].ravel().tolist() for struct in read_struct_cells(path, "trainIdxAll")]
    assert people == [[3.0, 252.0], [4.0, 19.0]]
    for name in ("numbers", "missing"):
        with pytest.raises(DataError, match=f"folds.mat: cannot be read as a MATLAB file with '{name}' in"):
            read_struct_cells(path, name)


# CUHK02


def test_cuhk02_as_a_client(tmp_path):
    folder = trees.touch_tree(tmp_path, trees.CUHK02)
    (everything,) = read("cuhk02", folder, splits="all").splits
    assert {record.role for record in everything} == {"train"}
    (records,) = read("cuhk02", folder, splits="standard").splits
    for part in (everything, records):
        assert {record.path: (record.pid, record.camid) for record in part} == {
            path: facts[:2] for path, facts in trees.CUHK02.items()
        }
    for record in records:
        role = {"P5/cam1": "query", "P5/cam2": "gallery"}.get(record.path.rsplit("/", 1)[0], "train")
        assert record.role == role


def test_cuhk02_as_a_client_at_full_size(tmp_path):
    shots = plan_tree("cuhk02", "full", 0).shots
    folder = trees.touch_tree(tmp_path, [shot.path for shot in shots])
    for splits in ("benchmark", "standard", "all"):
        assert survey("cuhk02", folder, Choices(splits=splits)).complaints == ()
    (folder / "P5/cam1/001_1.png").unlink()
    assert survey("cuhk02", folder, Choices(splits="standard")).complaints == (
        "477 query_images instead of 478",
    )


# What synth writes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    write_benchmark(root / "data", "demo", 2, ["caviar4reid", "grid"])
    assert cli.run(["prepare", "--all", str(root / "data"), str(root), "--size", "32x16", "--jobs", "1"]) == 0
    return root


def test_synthetic_caviar_is_read_with_its_people(written):
    archive, counts = DatasetArchive.open(written / "caviar4reid.h5"), SCALES["demo"].counts["caviar4reid"]
    assert archive.roles() == ("query", "gallery")
    queries, gallery = archive.split("query"), archive.split("gallery")
    assert set(archive.pids[queries]) == set(archive.pids[gallery])
    assert len(set(archive.pids)) == 36
    assert (set(archive.camids[queries]), set(archive.camids[gallery])) == ({0}, {1})
    assert len(queries) == len(gallery) == 36 * counts.frames


def test_synthetic_grid_is_read_with_its_folds(written):
    archive, counts = DatasetArchive.open(written / "grid.h5"), SCALES["demo"].counts["grid"]
    assert archive.splits == 10
    assert len(archive.paths) == 2 * counts.pairs + counts.others
    assert set(archive.camids) == set(range(1, 9))
    folds = [frozenset(archive.pids[archive.split("train", fold)].tolist()) for fold in range(10)]
    assert len(set(folds)) == 10
    for fold, trained in enumerate(folds):
        queries, gallery = archive.split("query", fold), archive.split("gallery", fold)
        asked = set(archive.pids[queries].tolist())
        assert asked | trained == set(range(1, 1 + counts.pairs))
        assert not asked & trained
        assert Counter(archive.pids[gallery].tolist())[0] == counts.others
        for query in queries:
            (match,) = gallery[archive.pids[gallery] == archive.pids[query]]
            assert archive.camids[match] != archive.camids[query]


def test_a_synthetic_grid_with_an_image_less_is_refused(written, tmp_path, capsys):
    write_benchmark(tmp_path, "demo", 2, ["grid"])
    folder = tmp_path / LAYOUTS["grid"].folder
    next(path for path in sorted(folder.glob("gallery/*")) if path.name.startswith("0000")).unlink()
    assert json.loads((folder / "counts.json").read_text())["gallery_images"] == 250
    assert cli.run(["prepare", "--dataset", "grid", str(folder), str(tmp_path / "grid.h5")]) == 3
    assert "not the whole of grid: 249 gallery_images instead of 250" in capsys.readouterr().err


def test_variants_leave_out_datasets_that_do_not_come_so(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("fedreid_mpi.data.synthetic.write_benchmark", lambda *args: asked.append(args) or [])
    assert cli.run(["synth", str(tmp_path), "--variant", "cameras"]) == 0
    assert asked[0][3] == ["prid2011", "cuhk01", "viper", "3dpes", "ilids"]
    assert cli.run(["synth", str(tmp_path), "--variant", "nonsense"]) == 2
