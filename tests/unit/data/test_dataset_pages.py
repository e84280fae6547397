"""The pages on datasets say what the readers do."""

import re
import types
from pathlib import Path

import pytest

from fedreid_mpi.data import prepare, readers
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.readers import READERS, Choices, Record, recognise
from fedreid_mpi.data.readers.base import About
from support import trees

DOCS = Path(__file__).parents[3] / "docs"
KEYS = {
    7: ("cameras", "train_identities", "train_images", "query_identities", "query_images", "gallery_images"),
    4: ("cameras", "identities", "images"),
}


def sections():
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    parts = re.split(r"^## .*\(`([a-z0-9-]+)`\)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(section, heading):
    """Rows of the table whose first heading is ``heading``."""
    rows, inside = [], False
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith(f"| {heading} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|--"):
            rows.append(cells)
    return rows


def test_every_dataset_has_a_section():
    assert set(sections()) == set(READERS)


@pytest.mark.parametrize("dataset", READERS)
def test_every_variant_is_named(dataset):
    named = [row[0].strip("`") for row in table(sections()[dataset], "variant")]
    assert named == [variant.name for variant in READERS[dataset].variants]


@pytest.mark.parametrize("dataset", [name for name in READERS if name != "custom"])
def test_counts_are_the_readers(dataset):
    reader = READERS[dataset]
    expected = set()
    for variant in reader.variants:
        for splits, counts in variant.splits.items():
            keys = KEYS[7] if "images" not in counts else KEYS[4]
            cells = ["–" if (value := counts.get(key)) is None else f"{value:,}" for key in keys]
            about = ["≈ " if isinstance(counts.get(key), About) else "" for key in keys]
            expected.add((splits, tuple(mark + cell for mark, cell in zip(about, cells, strict=True))))
    found = {(row[0].split("`")[1], tuple(row[1:])) for row in table(sections()[dataset], "splits")}
    assert found == expected


def test_the_manifest_of_the_page_is_read(tmp_path):
    (example,) = re.findall(r"```csv\n(.*?)```", sections()["custom"], flags=re.DOTALL)
    (tmp_path / "list.csv").write_text(example)
    trees.touch_tree(tmp_path, [f"images/000{number}.jpg" for number in (1, 2, 3, 4)])
    found = recognise(READERS["custom"], tmp_path / "list.csv")
    (records,) = found.variant.read(found.folder, Choices()).splits
    assert records == (
        Record("images/0001.jpg", 1, 0, "train"),
        Record("images/0002.jpg", 1, 1, "train"),
        Record("images/0003.jpg", 2, 0, "query"),
        Record("images/0004.jpg", 2, 1, "gallery"),
    )


def test_the_reader_of_the_page_works(tmp_path, monkeypatch):
    page = (DOCS / "adding-a-reader.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    module = types.ModuleType("campus_walk")
    exec(compile(source, "campus_walk.py", "exec"), module.__dict__)
    assert module.READER not in readers._OTHERS
    monkeypatch.setitem(READERS, module.READER.name, module.READER)
    names = {
        "train/p0001/cam1_00001.jpg": (1, 1, "train"),
        "train/p0001/cam2_00017.jpg": (1, 2, "train"),
        "train/p0300/cam1_00002.jpg": (300, 1, "train"),
        "train/p0300/cam2_00005.jpg": (300, 2, "train"),
        "query/p0002/cam1_00001.jpg": (2, 1, "query"),
        "gallery/p0002/cam2_00001.jpg": (2, 2, "gallery"),
        "gallery/p0004/cam2_00001.jpg": (4, 2, "gallery"),
    }
    for name in names:
        trees.write_image(tmp_path / "CampusWalk" / name, name)
    listed = prepare.survey("campus-walk", tmp_path / "CampusWalk", Choices())
    assert set(listed.listing.splits[0]) == {Record(name, *facts) for name, facts in names.items()}
    assert listed.complaints == ()
    assert prepare.find_datasets(tmp_path) == {"campus-walk": tmp_path / "CampusWalk"}
    prepare.prepare(listed, tmp_path / "campus.h5", prepare.Options(16, 8), lambda _: None)
    assert DatasetArchive.open(tmp_path / "campus.h5").paths == sorted(names)
