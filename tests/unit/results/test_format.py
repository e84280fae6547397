"""docs/format.md is true: its tables are the schemas', and its digests are those of real files.

``make pages`` writes the tables into the page.
"""

import hashlib
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedreid_mpi import cli
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.archive.layout import DATASET
from fedreid_mpi.results import features
from fedreid_mpi.results.file_kinds import FEATURES, RESULTS, STUDY
from fedreid_mpi.results.schema import FIELDS, SCALES
from support import hand_made, trees

PAGE = Path(__file__).parents[3] / "docs" / "format.md"
TABLE = re.compile(r"(?s)<!-- table: ([a-z ]+) -->\n(.*?)<!-- end -->")
VOLATILE = {field.path for field in FIELDS if field.volatile}


def table(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def attributes(schema):
    rows = [
        [f"`{each.name}`", each.type + ", optional" * each.optional, each.description]
        for each in schema.attributes
    ]
    return table(["Attribute", "Type", "Meaning"], rows)


def columns(schema):
    rows = [
        [
            f"`/{each.path}`",
            each.type + ", optional" * each.optional + ", volatile" * (each.path in VOLATILE),
            " × ".join("any" if axis is None else str(axis) for axis in each.axes),
            each.units or "–",
            each.description,
        ]
        for each in schema.columns
    ]
    return table(["Dataset", "Type", "Shape", "Units", "Meaning"], rows)


def tables():
    schemas = {"dataset": DATASET, "results": RESULTS, "study": STUDY, "features": FEATURES}
    written = {f"{name} attributes": attributes(schema) for name, schema in schemas.items()}
    written |= {f"{name} columns": columns(schema) for name, schema in schemas.items()}
    written["results scales"] = table(
        ["Axis", "Scale"], [[axis, f"`/{name}`"] for axis, name in SCALES.items()]
    )
    return written


def renewed(text):
    return TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n{tables()[match[1]]}<!-- end -->", text)


def test_the_pages_tables_are_the_schemas(generated):
    text = PAGE.read_text(encoding="utf-8")
    assert {match[1] for match in TABLE.finditer(text)} == set(tables())
    generated(PAGE, renewed)


def test_the_page_knows_the_kind_of_feature_files():
    assert (FEATURES.kind, FEATURES.version) == (features.KIND, features.FORMAT_VERSION)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Archives of all ten datasets."""
    root, out = tmp_path_factory.mktemp("folders"), tmp_path_factory.mktemp("archives")
    for dataset in trees.FOLDERS:
        trees.write_tree(root, dataset)
    assert cli.run(["prepare", "--all", str(root), str(out), "--allow-subset", "--size", "40x16"]) == 0
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    records = [hand_made.record(number) for number in range(1, 4)]
    return hand_made.write_run(tmp_path_factory.mktemp("run"), records) / "results_001_001.h5"


def everything(path):
    """Names of attributes and datasets of a file, numbers of splits as ``<k>``."""
    with h5py.File(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return set(file.attrs), {re.sub(r"(?<=splits/)\d+", "<k>", name) for name in names}


def test_what_real_archives_hold_is_documented_and_the_other_way_round(archives):
    found = [everything(path) for path in archives]
    known = {each.name for each in DATASET.attributes}
    written = set.union(*(names for names, _ in found))
    assert written <= known
    assert known - written <= {"multi_query_images"}
    columns = {each.path for each in DATASET.columns}
    assert columns - set.union(*(names for _, names in found)) <= {"splits/<k>/multi_query"}
    assert set.union(*(names for _, names in found)) <= columns
    for names, held in found:
        assert {each.name for each in DATASET.attributes if not each.optional} <= names
        assert {each.path for each in DATASET.columns if not each.optional} <= held


def test_what_real_results_hold_is_documented_and_the_other_way_round(segment):
    names, held = everything(segment)
    assert {each.name for each in RESULTS.attributes if not each.optional} <= names
    assert names <= {each.name for each in RESULTS.attributes}
    assert held == {each.path for each in RESULTS.columns}


def as_read(value):
    return value.decode() if isinstance(value, bytes) else value


def value_text(value):
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value.item())


def content_digest(path, group="/"):
    """The digest by the words of the page."""
    digest = hashlib.sha256()
    with h5py.File(path) as whole:
        file = whole[group]
        names = []
        file.visit(names.append)
        for name in ["/", *sorted((f"/{name}" for name in names), key=str.encode)]:
            digest.update(name.encode() + b"\0")
            item = file[name.strip("/")] if name != "/" else file
            for key in sorted(item.attrs, key=str.encode):
                own = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"}
                if key in own or (name == "/" and key == "content_digest"):
                    continue
                digest.update(f"{key}\0{value_text(as_read(item.attrs[key]))}\0".encode())
            if not isinstance(item, h5py.Dataset):
                continue
            kind = item.dtype.name
            if h5py.check_string_dtype(item.dtype):
                kind = "text"
            elif item.dtype == object:
                kind = "lists of int32"
            digest.update(f"{kind}\0{','.join(map(str, item.shape))}\0".encode())
            if name == "/images":
                continue
            if kind == "text":
                for word in item.asstr()[()].ravel():
                    digest.update(word.encode() + b"\0")
            elif kind == "lists of int32":
                for numbers in item[()]:
                    digest.update(",".join(str(number) for number in numbers).encode() + b"\0")
            else:
                digest.update(item[()].tobytes())
    return digest.hexdigest()


def test_the_digests_are_as_the_page_says(archives):
    for path in archives:
        archive = DatasetArchive.open(path)
        assert archive.attributes["content_digest"] == content_digest(path)
        with h5py.File(path) as file:
            sources, pixels = file["source_sha256"][()], file["pixel_sha256"][()]
        digest = hashlib.sha256()
        for number, name in enumerate(archive.paths):
            digest.update(name.encode() + b"\0" + sources[number].tobytes())
            assert hashlib.sha256(archive.images[number].tobytes()).digest() == pixels[number].tobytes()
        assert archive.digest == digest.hexdigest()
        assert archive.paths == sorted(archive.paths)


def test_the_digest_of_results_is_as_the_page_says(segment):
    from fedreid_mpi.storage.hdf5 import digest

    with h5py.File(segment) as file:
        computed = digest.content_digest(file)
    assert computed == content_digest(segment)


def test_study_files_hold_what_is_documented(segment, tmp_path):
    path = tmp_path / "study.h5"
    assert cli.run(["results", "collect", str(segment), "-o", str(path)]) == 0
    label = "unit test – θ-seed7"
    with h5py.File(path) as file:
        assert set(file.attrs) == {each.name for each in STUDY.attributes}
        assert {f"index/{name}" for name in file["index"]} == {each.path for each in STUDY.columns}
        assert file["index"].attrs["content_digest"] == content_digest(path, "index")
        digest = file["index/digest"].asstr()[0]
        assert digest == file[f"runs/{label}"].attrs["content_digest"] == content_digest(segment)
        assert digest == content_digest(path, f"runs/{label}")
