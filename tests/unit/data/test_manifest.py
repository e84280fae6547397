"""Datasets of the user's own, by a CSV or Parquet manifest."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.readers import READERS, Choices, Record, recognise
from fedreid_mpi.errors import ConfigurationError, DataError
from support import trees

ROWS = [
    ("shop/a/1.jpg", 5, 0, "train"),
    ("shop/a/2.jpg", 5, 3, "train"),
    ("shop/b/1.png", 7, 1, "query"),
    ("shop/b/2.bmp", 7, 2, "gallery"),
    ("shop/ein Bild, größer.jpg", -1, 2, "gallery"),
    ("shop/b/3.jpg", 7, 1, "multi_query"),
    ("zero.jpg", 0, 999_999_999, "gallery"),
]
HEADER = "path,pid,camid,split"
RECORDS = {Record(path, pid, camid, split) for path, pid, camid, split in ROWS}


def line(row):
    path, *others = row
    return ",".join([f'"{path}"' if "," in path else path, *map(str, others)])


@pytest.fixture
def folder(tmp_path):
    for path, *_ in ROWS:
        trees.write_image(tmp_path / path, path)
    return tmp_path


def write(folder, lines, name="manifest.csv", **options):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", **{"encoding": "utf-8", **options})
    return path


def read(path):
    found = recognise(READERS["custom"], path)
    assert found.folder == path
    return found.variant.read(path, Choices())


def fault(path):
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv(folder, encoding, newline):
    path = write(folder, [HEADER, *map(line, ROWS)], encoding=encoding, newline=newline)
    listing = read(path)
    assert set(listing.splits[0]) == RECORDS
    assert len(listing.splits[0]) == len(ROWS)
    assert not listing.drawn
    assert listing.load(ROWS[0][0]) == (folder / ROWS[0][0]).read_bytes()


def test_columns_may_stand_in_any_order_among_others(folder):
    rows = [f'{split},"box 1, 2",{camid},"{path}",{pid}' for path, pid, camid, split in ROWS]
    path = write(folder, ["split,note,camid,path,pid", *rows])
    assert set(read(path).splits[0]) == RECORDS


def test_paths_are_relative_to_the_manifest_and_may_start_with_a_dot(folder):
    rows = [("./" + path, *others) for path, *others in ROWS]
    assert set(read(write(folder, [HEADER, *map(line, rows)], "LIST.CSV")).splits[0]) == RECORDS


def test_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(("path", "pid", "camid", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
    path = folder / "list.parquet"
    for table in (
        pyarrow.table({**columns, "note": ["x"] * len(ROWS)}),
        pyarrow.table({**columns, "pid": pyarrow.array(columns["pid"], pyarrow.int16())}),
        pyarrow.table({**columns, "split": pyarrow.array(columns["split"]).dictionary_encode()}),
    ):
        parquet.write_table(table, path, row_group_size=3)
        assert set(read(path).splits[0]) == RECORDS
    parquet.write_table(pyarrow.table({**columns, "pid": [5, 5, 7, None, 1, 7, 0]}), path)
    assert fault(path) == "row 4: a value is missing"
    parquet.write_table(pyarrow.table({**columns, "pid": [5.0] * 7}), path)
    assert fault(path).startswith("row 1: pid is '5.0', expected a whole number from 0")
    parquet.write_table(pyarrow.table({"path": columns["path"]}), path)
    assert fault(path) == "no column 'pid', found path"
    path.write_bytes(b"PAR1 but not really PAR1")
    assert fault(path).startswith("cannot be read as Parquet: ")


def test_parquet_without_pyarrow_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigurationError, match="Parquet needs pyarrow, which is not installed"):
        read(folder / "list.parquet")


NUMBER = "expected a whole number from 0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone.jpg,1,1,train", "line 3: no file 'gone.jpg'"),
        ("shop,1,1,train", "line 3: no file 'shop'"),
        ("shop/a/1.jpg,5,0,train", "line 3: 'shop/a/1.jpg' again, first in line 2"),
        ("shop//a/./1.jpg,5,0,train", "line 3: 'shop/a/1.jpg' again, first in line 2"),
        ("zero.jpg,five,1,train", f"line 3: pid is 'five', {NUMBER} (-1 is junk, in the gallery)"),
        ("zero.jpg,-1,1,train", f"line 3: pid is '-1', {NUMBER} (-1 is junk, in the gallery)"),
        ("zero.jpg,-2,1,gallery", f"line 3: pid is '-2', {NUMBER} (-1 is junk, in the gallery)"),
        (
            "zero.jpg,9999999999,1,train",
            f"line 3: pid is '9999999999', {NUMBER} (-1 is junk, in the gallery)",
        ),
        ("zero.jpg,1,1.5,train", f"line 3: camid is '1.5', {NUMBER}"),
        ("zero.jpg,1,٣,train", f"line 3: camid is '٣', {NUMBER}"),
        ("zero.jpg,1,,train", f"line 3: camid is '', {NUMBER}"),
        (
            "zero.jpg,1,1,test",
            "line 3: split is 'test', expected one of train, query, gallery, multi_query, public",
        ),
        ("zero.jpg,1,1", "line 3: a value is missing"),
        ("zero.jpg,1,1,train,more", "line 3: too many values"),
        (
            "/etc/hostname,1,1,train",
            "line 3: path is '/etc/hostname', expected a file below the manifest's folder",
        ),
        ("../x.jpg,1,1,train", "line 3: path is '../x.jpg', expected a file below the manifest's folder"),
        (",1,1,train", "line 3: path is '', expected a file below the manifest's folder"),
        ("x" * 300 + ",1,1,train", f"line 3: no file '{'x' * 200}'"),
        ("zero.jpg,1,1,public", "split is 'public' in some rows, expected it in all or in none"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(folder, row, message):
    assert fault(write(folder, [HEADER, "shop/a/1.jpg,5,0,train", row])) == message


def test_several_wrong_rows_are_counted(folder):
    rows = ["shop/a/1.jpg,5,0,train", *(f"{n}.jpg,1,1,train" for n in range(5))]
    message = "line 3: no file '0.jpg'; line 4: no file '1.jpg'; line 5: no file '2.jpg'; and 2 more"
    assert fault(write(folder, [HEADER, *rows])) == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no column 'path', found nothing"),
        (["path,pid,camid", "a,1,1"], "no column 'split', found path, pid, camid"),
        (["path;pid;camid;split"], "no column 'path', found path;pid;camid;split"),
        (["path,pid,camid,split,pid"], "twice a column 'pid', found path, pid, camid, split, pid"),
        ([HEADER], "lists no images"),
        ([HEADER, '"a,1,1,train'], "not a CSV file in UTF-8: unexpected end of data"),
    ],
)
def test_a_wrong_table_is_refused(folder, lines, message):
    path = folder / "list.csv"
    path.write_text("\n".join(lines))
    assert fault(path) == message


def test_a_file_of_something_else_is_refused(folder):
    (folder / "list.csv").write_bytes(b"path,pid,camid,split\nb\xe4r.jpg,1,1,train\n")
    assert fault(folder / "list.csv").startswith("not a CSV file in UTF-8: ")
    with pytest.raises(DataError, match="not recognised as custom"):
        read(folder)
    (folder / "list.txt").touch()
    with pytest.raises(DataError, match="not recognised as custom"):
        read(folder / "list.txt")
    with pytest.raises(DataError, match=r"absent\.csv"):
        read(folder / "absent.csv")


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.text("abé ,'\"_-", min_size=1, max_size=6).filter(lambda name: name.strip(" ")),
            st.integers(0, 999_999_999),
            st.integers(0, 99),
            st.sampled_from(["train", "query", "gallery"]),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_what_csv_writers_write_is_read(rows, tmp_path_factory):
    import csv

    folder = tmp_path_factory.mktemp("manifest")
    trees.touch_tree(folder, [name + ".png" for name, *_ in rows])
    with (folder / "m.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "camid", "split"])
        writer.writerows((name + ".png", *others) for name, *others in rows)
    (records,) = read(folder / "m.csv").splits
    assert records == tuple(Record(name + ".png", *others) for name, *others in rows)


def prepare(*arguments):
    return cli.run(["prepare", "--size", "16x8", "--jobs", "1", *map(str, arguments)])


def test_prepare_makes_an_archive_by_the_users_name(folder, capsys):
    path = write(folder, [HEADER, *map(line, ROWS)])
    output = folder / "shop.h5"
    assert prepare("--dataset", "custom", "--name", "shop", path, output) == 0
    assert "shop" in capsys.readouterr().out
    archive = DatasetArchive.open(output)
    assert (archive.name, archive.attributes["layout"]) == ("shop", "csv")
    assert archive.attributes["split_rule"] == "given"
    assert archive.paths == sorted(path for path, *_ in ROWS)
    for role in ("train", "query", "gallery", "multi_query"):
        expected = {(path, pid, camid) for path, pid, camid, split in ROWS if split == role}
        indices = archive.split(role)
        assert {(archive.paths[i], int(archive.pids[i]), int(archive.camids[i])) for i in indices} == expected
    assert len(archive.digest) == 64


def test_prepare_makes_a_public_archive(folder):
    path = write(folder, [HEADER, "zero.jpg,1,1,public", "shop/a/1.jpg,2,1,public"])
    assert prepare("--dataset", "custom", "--name", "crowd", path, folder / "crowd.h5") == 0
    assert len(DatasetArchive.open(folder / "crowd.h5").split("public")) == 2


def test_prepare_checks_a_manifests_splits(folder, capsys):
    output = folder / "shop.h5"
    path = write(folder, [HEADER, "zero.jpg,1,1,train", "shop/a/1.jpg,1,2,gallery"])
    assert prepare("--dataset", "custom", "--name", "shop", path, output) == 3
    assert "1 person is both in training and in test: 1" in capsys.readouterr().err
    path = write(folder, [HEADER, "zero.jpg,1,1,train", "shop/a/1.jpg,2,2,query", "shop/a/2.jpg,2,2,gallery"])
    assert prepare("--dataset", "custom", "--name", "shop", path, output) == 3
    assert "1 query without a match in another camera: 'shop/a/1.jpg'" in capsys.readouterr().err
    assert not output.exists()


def test_the_name_goes_with_a_manifest_only(folder, capsys):
    path = write(folder, [HEADER, *map(line, ROWS)])
    assert prepare("--dataset", "custom", path, folder / "shop.h5") == 2
    assert "--name" in capsys.readouterr().err
    assert prepare("--dataset", "viper", "--name", "shop", folder, folder / "shop.h5") == 2
    assert "--name" in capsys.readouterr().err
