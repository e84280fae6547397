import json
import re
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.checks import check_split, count, unmatched_queries
from fedreid_mpi.data.decoding import CHUNK, decode_images
from fedreid_mpi.data.prepare import survey
from fedreid_mpi.data.readers import READERS, Choices, Record
from fedreid_mpi.data.synthetic.layouts import plan_tree
from fedreid_mpi.errors import DataError
from support import trees

SIZE = (40, 16)


def prepare(*arguments):
    return cli.run(["prepare", "--size", "40x16", *map(str, arguments)])


def prepare_market(source, output, *flags):
    return prepare("--dataset", "market1501", source, output, *flags)


def set_counts(folder, **counts):
    (folder / "counts.json").write_text(json.dumps(counts))


@pytest.fixture
def market(tmp_path):
    """A Market-1501 of nine images that counts itself right."""
    folder = trees.write_tree(tmp_path, "market1501")
    set_counts(
        folder,
        cameras=6,
        train_identities=2,
        train_images=3,
        query_identities=1,
        query_images=2,
        gallery_images=4,
    )
    return folder


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "market1501.h5"


def error_line(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fedreid-mpi: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def all_ten(tmp_path_factory):
    """Small folders of all ten datasets, and their archives."""
    root, archives = tmp_path_factory.mktemp("folders"), tmp_path_factory.mktemp("archives") / "new"
    for dataset in trees.FOLDERS:
        trees.write_tree(root, dataset)
    assert prepare("--all", root, archives, "--allow-subset", "--split-seed", 4, "--jobs", 2) == 0
    assert sorted(path.stem for path in archives.iterdir()) == sorted(trees.FOLDERS)
    return root, archives


@pytest.mark.parametrize("dataset", trees.FOLDERS)
def test_an_archive_holds_what_the_files_hold(all_ten, dataset):
    root, archives = all_ten
    archive = DatasetArchive.open(archives / f"{dataset}.h5")
    folder = root / trees.FOLDERS[dataset]
    listing = READERS[dataset].variants[0].read(folder, Choices(4))
    records = {record.path: record for record in listing.splits[0]}
    assert archive.paths == sorted(records)
    for index, path in enumerate(archive.paths):
        with Image.open(folder / path) as image:
            expected = np.asarray(image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(archive.images[index], expected)
        assert archive.pids[index] == records[path].pid
        assert archive.camids[index] == records[path].camid
    roles = {
        path: role for role in archive.roles() for path in (archive.paths[i] for i in archive.split(role))
    }
    assert roles == {path: str(record.role) for path, record in records.items()}
    assert sum(len(archive.split(role)) for role in archive.roles()) == len(records)
    with h5py.File(archives / f"{dataset}.h5") as file:
        np.testing.assert_array_equal(file["images"][...], archive.images)
    facts = archive.attributes
    assert facts["name"] == dataset
    assert facts.get("split_seed") == (4 if listing.drawn else None)
    assert facts["layout"] == READERS[dataset].variants[0].name
    assert facts["subset_allowed"] is True
    assert (facts["image_height"], facts["image_width"], facts["resampling"]) == (*SIZE, "bicubic")
    assert facts["skipped_files"] == 0


def test_the_same_folder_gives_the_same_bytes(all_ten, tmp_path):
    root, archives = all_ten
    time.sleep(1.1)
    assert prepare("--all", root, tmp_path, "--allow-subset", "--split-seed", 4, "--jobs", 1) == 0
    for path in archives.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_more_images_than_a_chunk_come_in_order(tmp_path):
    names = [f"{number}.png" for number in range(5 * CHUNK + 3)]
    for name in names:
        trees.write_image(tmp_path / name, name)
    done = []
    images = [pixels for pixels, _ in decode_images(tmp_path, names, 48, 24, 3, done.append)]
    assert sum(done) == len(names)
    for name, pixels in zip(names, images, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(trees.picture(name)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    name = "image.jpg" if mode in ("CMYK", "YCbCr") else "image.png"
    trees.picture("any").convert(mode).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB"))
    ((pixels, _),) = decode_images(tmp_path, [name], 48, 24, 1, lambda _: None)
    np.testing.assert_array_equal(pixels, expected)
    if mode in ("1", "L", "LA"):
        assert (pixels == pixels[:, :, :1]).all()


def test_a_whole_dataset_needs_no_flag(market, output, capsys):
    assert prepare_market(market, output) == 0
    assert "market1501.h5: 9 images" in capsys.readouterr().out
    assert DatasetArchive.open(output).attributes["subset_allowed"] is False
    assert DatasetArchive.open(output).attributes["gallery_images"] == 4


def test_published_counts_are_asked_for_where_a_folder_has_none(market, output, capsys):
    (market / "counts.json").unlink()
    assert prepare_market(market, output) == 3
    found, error = capsys.readouterr()
    assert (
        f"fedreid-mpi: error: {market}: not the whole of market1501: 2 train_identities instead of 751"
        in error
    )
    assert "4 gallery_images instead of 19732" in error
    assert "19,732" in found
    assert not output.exists()
    assert prepare_market(market, output, "--allow-subset") == 0
    assert DatasetArchive.open(output).attributes["subset_allowed"] is True
    assert DatasetArchive.open(output).notes == [
        "not the whole: 2 train_identities instead of 751; 3 train_images instead of 12936; "
        "1 query_identities instead of 750; 2 query_images instead of 3368; 4 gallery_images instead of 19732"
    ]


def test_a_folders_own_counts_are_enforced(market, output, capsys):
    set_counts(market, gallery_images=5, cameras=6)
    assert prepare_market(market, output) == 3
    assert error_line(capsys).endswith(
        "not the whole of market1501: 4 gallery_images instead of 5 (--allow-subset accepts it)"
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"images": 3}', '{"cameras": "6"}', '{"cameras": true}', b"\xff"]
)
def test_counts_that_cannot_be_understood_are_refused(market, output, capsys, text):
    (market / "counts.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert prepare_market(market, output, "--allow-subset") == 3
    assert str(market / "counts.json") in error_line(capsys)


def test_counts_that_are_drawn_may_differ_by_what_a_draw_can(tmp_path, output, capsys):
    folder = trees.write_tree(tmp_path, "ilids")
    fixed = {"cameras": 2, "train_identities": 2, "query_identities": 3}
    sizes = sorted(trees.ILIDS_VIEWS.values())
    for expected in (sum(sizes[:2]), sum(sizes[-2:])):
        set_counts(folder, **fixed, train_images=expected)
        assert prepare("--dataset", "ilids", folder, output) == 0
        assert f"(about {expected})" in capsys.readouterr().out
    output.unlink()
    for expected in (sum(sizes[:2]) - 1, sum(sizes[-2:]) + 1):
        set_counts(folder, **fixed, train_images=expected)
        assert prepare("--dataset", "ilids", folder, output) == 3
        assert f"7 train_images, by any draw 4 to 9, instead of about {expected}" in error_line(capsys)
    assert not output.exists()


@pytest.mark.parametrize(
    "told", [{"images": 16}, {"train_images": 7, "query_images": 4, "gallery_images": 5}]
)
def test_a_drawn_splits_sum_is_enforced(tmp_path, output, capsys, told):
    folder = trees.write_tree(tmp_path, "ilids")
    set_counts(folder, **told)
    assert prepare("--dataset", "ilids", folder, output) == 0
    (folder / trees.ILIDS[3]).unlink()
    assert prepare("--dataset", "ilids", folder, output) == 3
    assert "15 images instead of 16" in error_line(capsys)
    assert prepare("--dataset", "ilids", folder, output, "--allow-subset") == 0
    archive = DatasetArchive.open(output)
    assert archive.attributes["subset_allowed"] is True
    assert "15 images instead of 16" in archive.notes[0]


def plan(root, dataset):
    """The synthetic stand-in in full size, of empty files, without counts of its own: published ones hold."""
    return trees.touch_tree(root, [shot.path for shot in plan_tree(dataset, "full", 0).shots])


@pytest.mark.parametrize("splits", ["benchmark", "standard"])
@pytest.mark.parametrize("dataset", ["prid2011", "cuhk01", "viper", "3dpes", "ilids"])
def test_published_counts_hold_at_full_size_and_miss_one_image(tmp_path, dataset, splits):
    if splits not in READERS[dataset].variants[0].splits:
        pytest.skip("3DPeS has one kind of split")
    folder, choices = plan(tmp_path, dataset), Choices(splits=splits)
    assert survey(dataset, folder, choices).complaints == ()
    shots = folder / "single_shot/cam_b" if dataset == "prid2011" else folder
    min(path for path in shots.rglob("*.*") if path.is_file()).unlink()
    assert "instead of" in survey(dataset, folder, choices).complaints[-1]


def test_a_fifth_less_of_3dpes_is_not_the_whole(tmp_path):
    folder = plan(tmp_path, "3dpes")
    for path in sorted(folder.iterdir())[:1_015:5]:
        path.unlink()
    assert "809 images instead of 1012" in survey("3dpes", folder, Choices()).complaints


def test_missing_shots_of_prid2011_change_whom_a_draw_may_take(tmp_path):
    folder = plan(tmp_path, "prid2011")
    (folder / "single_shot/cam_b/person_0001.png").unlink()
    listed = survey("prid2011", folder, Choices())
    assert not any(each.differs for each in listed.counts)
    assert listed.complaints == (
        "748 camera_b_people instead of 749", "199 shared_people instead of 200"
    )  # fmt: skip


def test_missing_frames_of_prid2011_are_told(tmp_path):
    folder = plan(tmp_path, "prid2011")
    assert survey("prid2011", folder, Choices()).listing.notes == ()
    (folder / "multi_shot/cam_a/person_0300/0003.png").unlink()
    listed = survey("prid2011", folder, Choices())
    assert listed.complaints == ("1767 camera_a_only_frames instead of 1768",)
    assert listed.listing.notes == ("1 track leaves out numbers of frames: 'multi_shot/cam_a/person_0300'",)


def test_a_query_without_a_match_is_named(market, output, capsys):
    set_counts(market)
    for path in (market / "bounding_box_test").glob("0001_*"):
        path.rename(path.with_name(path.name.replace("0001_c2", "0001_c5").replace("0001_c4", "0001_c5")))
    assert prepare_market(market, output) == 3
    message = "1 query without a match in another camera: 'query/0001_c5s1_001051_00.jpg'"
    assert message in error_line(capsys)
    assert prepare_market(market, output, "--allow-subset") == 0


def test_a_broken_image_is_named_and_refused(market, output, capsys):
    broken = market / "query/0001_c5s1_001051_00.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    (market / "bounding_box_test/0000_c3s1_000151_01.jpg").write_bytes(b"")
    output.write_text("the old one")
    assert prepare_market(market, output) == 3
    assert error_line(capsys).endswith(
        f"{market}: 2 of 9 images cannot be decoded: bounding_box_test/0000_c3s1_000151_01.jpg (empty), "
        "query/0001_c5s1_001051_00.jpg (damaged) (--skip-broken leaves them out)"
    )
    assert output.read_text() == "the old one"
    assert list(output.parent.iterdir()) == [output]


def test_broken_images_are_left_out_when_asked(market, output, capsys):
    broken = market / "query/0001_c5s1_001051_00.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    assert prepare_market(market, output, "--skip-broken") == 0
    said = capsys.readouterr().out
    assert ": 8 images; " in said
    assert "market1501: broken and left out: query/0001_c5s1_001051_00.jpg" in said
    archive = DatasetArchive.open(output)
    assert archive.skipped == ["query/0001_c5s1_001051_00.jpg"]
    assert archive.attributes["skipped_files"] == 1
    assert archive.attributes["query_images"] == 1
    assert archive.paths == sorted(set(trees.MARKET) - set(archive.skipped))
    assert [archive.paths[i] for i in archive.split("query")] == ["query/0001_c1s1_001051_00.jpg"]
    np.testing.assert_array_equal(archive.images, _decoded(market, archive.paths))
    assert list(output.parent.iterdir()) == [output]


def _decoded(folder, paths):
    return [pixels for pixels, _ in decode_images(folder, paths, *SIZE, 1, lambda _: None)]


def test_a_folder_of_broken_images_alone_is_refused(market, output, capsys):
    for path in trees.MARKET:
        (market / path).write_bytes(b"not an image")
    assert prepare_market(market, output, "--skip-broken") == 3
    assert "9 of 9 images cannot be decoded" in error_line(capsys)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_images_cut_anywhere_are_broken_or_whole_but_never_an_error(tmp_path, suffix):
    name = f"image.{suffix}"
    trees.write_image(tmp_path / name, name)
    content = (tmp_path / name).read_bytes()
    for length in range(0, len(content), max(1, len(content) // 60)):
        (tmp_path / name).write_bytes(content[:length])
        try:
            list(decode_images(tmp_path, [name], 48, 24, 1, lambda _: None))
        except DataError as error:
            assert error.paths == (name,)  # noqa: PT017 (not every cut breaks an image)
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError):
        list(decode_images(tmp_path, [name], 48, 24, 1, lambda _: None))


def test_an_unreadable_file_is_no_broken_image(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file"):
        list(decode_images(tmp_path, ["gone.png"], 48, 24, 1, lambda _: None))


def test_wrong_folders_end_with_3(market, output, capsys):
    (market / "query/portrait.jpg").write_bytes(b"")
    assert prepare_market(market, output) == 3
    assert "'portrait.jpg'" in error_line(capsys)
    assert prepare_market(market / "absent", output) == 3
    assert error_line(capsys).endswith(f"{market}/absent: no such file or folder")
    for path in (market / "query").iterdir():
        path.unlink()
    assert prepare_market(market, output) == 3
    assert "query: holds no images" in error_line(capsys)
    assert not output.exists()


def test_a_place_that_cannot_be_written_ends_with_2(market, output, capsys):
    for target in (market / "counts.json" / "x.h5", output.parent / "absent" / "x.h5", output.parent):
        assert prepare_market(market, target) == 2
        assert f"{target}: cannot be written: " in error_line(capsys)
    assert prepare("--all", market.parent, market / "counts.json", "--allow-subset") == 2
    assert "cannot be made" in error_line(capsys)


def test_usage(market, output, capsys):
    assert prepare(market, output) == 2
    assert "expected either --dataset NAME or --all" in error_line(capsys)
    assert prepare_market(market, output, "--all") == 2
    assert prepare_market(market, output, "--size", "256") == 2
    assert "'256' is not HEIGHTxWIDTH" in capsys.readouterr().err
    assert prepare("--dataset", "market", market, output) == 2


def test_all_needs_one_of_the_ten_folders(tmp_path, capsys):
    assert prepare("--all", tmp_path, tmp_path / "out") == 3
    line = error_line(capsys)
    assert all(folder in line for folder in trees.FOLDERS.values())
    assert prepare("--all", tmp_path / "absent", tmp_path / "out") == 3
    assert "no such folder" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_all_checks_every_dataset_before_it_writes_one(market, tmp_path, capsys):
    trees.write_tree(tmp_path, "viper")
    assert prepare("--all", tmp_path, tmp_path / "out") == 3
    assert "not the whole of viper" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_checks_of_splits(tmp_path):
    train, query = Record("a", 1, 0, "train"), Record("b", 2, 0, "query")
    gallery = [Record("c", 2, 1, "gallery"), Record("d", 2, 0, "gallery"), Record("e", 3, 1, "gallery")]
    records = [train, query, *gallery]
    check_split(tmp_path, records)
    assert unmatched_queries(records) == []
    assert unmatched_queries([*records, Record("f", 3, 1, "query"), Record("g", 4, 1, "query")]) == ["f", "g"]
    assert count(records) == {
        "cameras": 2,
        "train_identities": 1,
        "train_images": 1,
        "query_identities": 1,
        "query_images": 1,
        "gallery_images": 3,
    }
    with pytest.raises(DataError, match="1 image is in more than one split: 'c'"):
        check_split(tmp_path, [*records, Record("c", 5, 0, "gallery")])
    with pytest.raises(DataError, match="1 person is both in training and in test: 3"):
        check_split(tmp_path, [*records, Record("f", 3, 0, "train")])


def test_inspect_counts_a_dataset(market, output, capsys):
    prepare_market(market, output)
    capsys.readouterr()
    assert cli.run(["inspect", str(output)]) == 0
    text = capsys.readouterr().out
    assert "market1501: 9 images of 40x16 pixels" in text
    for row in ("0 train 3 2 3", "0 query 2 1 2", "0 gallery 4 2 4"):
        assert row in re.sub(r"[│\s]+", " ", text)
    assert "source_digest" in text


def test_inspect_lists_other_archives(tmp_path, capsys):
    path = tmp_path / "results.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"kind": "fedreid_mpi results", "configuration": "[optimizer]\n" + "lr = 0.05\n" * 50}
        )
        file["rounds/loss"] = np.zeros((12, 9))
        file["rounds/loss"].attrs.update({"description": "mean training loss", "units": "nat"})
        file["rounds/round"] = np.arange(12)
        file["rounds/round"].make_scale("round")
        file["rounds/loss"].dims[0].attach_scale(file["rounds/round"])
        file.create_dataset("ranks/cores", (2,), h5py.vlen_dtype(np.int32))
        file["events/text"] = np.array(["a rank was lost"], dtype=h5py.string_dtype())
    assert cli.run(["inspect", str(path)]) == 0
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "/rounds/loss 12 × 9 float64 nat mean training loss" in text
    assert "/events/text 1 text" in text
    assert "/ranks/cores 2 lists of int32" in text
    assert "[optimizer] lr = 0.05 lr = 0.05" in text
    assert "…" in text


def test_inspect_refuses_other_files(tmp_path, capsys):
    (tmp_path / "x.h5").write_text("text")
    assert cli.run(["inspect", str(tmp_path / "x.h5")]) == 3
    assert error_line(capsys).endswith("x.h5: not an HDF5 file")


@pytest.mark.parametrize("command", ["prepare", "inspect"])
def test_help_does_not_import_torch(command):
    code = f"import sys, fedreid_mpi.cli as c; c.run(['{command}', '-h']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
