"""A search by images that nobody has labelled: folders of image files in, a picture and a table out."""

import csv
import json
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from fedreid_mpi.cli import run
from fedreid_mpi.cli.search import PAGE
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.data.folders import list_image_folder
from fedreid_mpi.errors import DataError
from fedreid_mpi.evaluation.search import find_nearest
from fedreid_mpi.model import load_model
from support.launching import ERROR
from support.small import HEIGHT, WIDTH, draw, write_experiment, write_site

PEOPLE = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    site = write_site(folder / "site.h5", 20)
    path = write_experiment(folder / "x.toml", [site], run={"rounds": 1})
    assert run(["train", str(path), "--run-dir", str(folder / "run")]) == 0
    return folder / "run" / "models" / "global.safetensors"


@pytest.fixture
def folders(tmp_path):
    """Queries of two people; a gallery in two folders, of two formats and sizes."""
    queries, gallery = tmp_path / "wanted", tmp_path / "cameras"
    queries.mkdir()
    for person in (1, 4):
        Image.fromarray(draw(5, person, 1)[0]).save(queries / f"{person}.png")
    for camera, ending in ((1, "jpg"), (2, "bmp")):
        (gallery / f"camera {camera}").mkdir(parents=True)
        for person in range(PEOPLE):
            pixels = draw(5 + camera, person, 1, HEIGHT * camera, WIDTH * camera)[0]
            Image.fromarray(pixels).save(gallery / f"camera {camera}" / f"{person}.{ending}")
    shutil.copy(gallery / "camera 2" / "3.bmp", gallery / "a copy of 3.BMP")
    (gallery / "notes.txt").write_text("no image")
    (gallery / ".hidden.jpg").write_text("no image either")
    return queries, gallery


@pytest.fixture
def search(model, folders, monkeypatch):
    monkeypatch.chdir(folders[0].parent)

    def call(output, *words, code=0, queries=folders[0], gallery=folders[1]):
        paths = [str(model), str(queries), str(gallery)]
        assert run(["search", *paths, "-o", str(output), "--device", "cpu", *words]) == code

    return call


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def feature(network, path, mirror):
    """One image at a time, by Pillow and the network alone."""
    image = Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = normalise(torch.from_numpy(np.asarray(image).copy())[None], network.pixel_scale)
    with torch.no_grad():
        found = network.features(pixels) + (network.features(pixels.flip(3)) if mirror else 0)
    return F.normalize(found)[0].double().numpy()


@pytest.mark.parametrize("mirror", [True, False])
def test_every_image_is_ranked_by_its_similarity(mirror, search, model, folders, tmp_path):
    search("found.csv", "--top", "50", *([] if mirror else ["--no-mirror"]))
    queries, gallery = folders
    names = sorted(
        path.relative_to(gallery).as_posix()
        for path in gallery.rglob("*.*")
        if path.suffix in (".jpg", ".bmp", ".BMP") and not path.name.startswith(".")
    )
    assert len(names) == 2 * PEOPLE + 1
    network = load_model(model).network
    features = {name: feature(network, gallery / name, mirror) for name in names}
    rows = table(tmp_path / "found.csv")
    for query in ("1.png", "4.png"):
        own = feature(network, queries / query, mirror)
        similar = {name: own @ features[name] for name in names}
        mine = [row for row in rows if row["query"] == query]
        assert [int(row["rank"]) for row in mine] == list(range(1, len(names) + 1))
        assert sorted(row["image"] for row in mine) == names
        for row in mine:
            assert float(row["similarity"]) == pytest.approx(similar[row["image"]], abs=1e-5)
        shown = [(-float(row["similarity"]), row["image"]) for row in mine]
        assert shown == sorted(shown)  # equal files at equal similarity, by name
    assert len(rows) == 2 * len(names)


def test_ties_rank_by_name_and_zero_features_are_no_accident():
    queries = torch.eye(2)
    gallery = torch.tensor([[1.0, 1.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    first, second = find_nearest(queries, gallery, 4)
    assert first.images.tolist() == [2, 0, 1, 3]
    assert second.images.tolist() == [1, 4, 0, 2]
    assert first.similarities == pytest.approx([1, 0.5**0.5, 0, 0])
    assert not np.signbit(first.similarities).any()


def test_a_folder_gets_a_table_and_a_picture(search, folders, tmp_path, capsys):
    search("found", "--top", "3")
    said = capsys.readouterr().out
    assert f"{folders[1]}: 1 file is not an image: 'notes.txt'" in said
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["search.csv", "search.png"]
    pixels = matplotlib.image.imread(tmp_path / "found" / "search.png")
    assert pixels.shape[0] > 2 * 160 * 0.8 * HEIGHT / WIDTH  # two rows of images 0.8 inches wide
    content = (tmp_path / "found" / "search.png").read_bytes()
    search("again", "--top", "3", "--jobs", "3")
    for name in ("search.csv", "search.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "found" / name).read_bytes()
    assert content.startswith(b"\x89PNG")
    search("found", code=2)
    assert capsys.readouterr().err.startswith(f"{ERROR} -o found: this folder is not empty")


def test_many_queries_get_several_pictures(search, folders, tmp_path, capsys):
    for number in range(PAGE):
        shutil.copy(folders[0] / "1.png", folders[0] / f"x{number:02}.png")
    search("found", "--top", "1")
    names = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert names == ["search.csv", "search_1.png", "search_2.png"]
    assert [row["query"] for row in table(tmp_path / "found" / "search.csv")][:2] == ["1.png", "4.png"]
    for number in range(30):
        shutil.copy(folders[0] / "1.png", folders[0] / f"y{number:02}.png")
    search("found.png", code=2)
    assert "52 queries in one picture, expected at most 50" in capsys.readouterr().err


def test_one_image_is_a_query(search, folders, tmp_path):
    for name, start in (("x.pdf", b"%PDF"), ("x.svg", b"<?xml"), ("x.csv", b"query,rank,image,similarity")):
        search(name, "--top", "2", queries=folders[0] / "4.png")
        assert (tmp_path / name).read_bytes().startswith(start)
    assert {row["query"] for row in table(tmp_path / "x.csv")} == {"4.png"}


def test_damaged_images_are_refused_by_name_or_left_out(search, folders, tmp_path, capsys):
    damaged = folders[1] / "camera 1" / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    search("found.csv", code=3)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "1 of 13 images cannot be decoded: camera 1/2.jpg" in captured.err
    assert "--skip-broken leaves them out" in captured.err
    assert not (tmp_path / "found.csv").exists()
    search("found.csv", "--skip-broken", "--top", "50")
    assert f"{folders[1]}: broken and left out: camera 1/2.jpg" in capsys.readouterr().out
    assert len(table(tmp_path / "found.csv")) == 2 * 12
    for path in folders[0].iterdir():
        path.write_bytes(b"")
    search("found", "--skip-broken", code=3)
    assert "2 of 2 images cannot be decoded: 1.png (empty), 4.png (empty)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"output": "x.jpg"}, 2, "-o x.jpg: expected a folder, or .csv, .png, .pdf, .svg"),
        ({"output": "none/x.csv"}, 2, "-o none/x.csv: no such folder"),
        ({"queries": "none"}, 3, "none: no such folder"),
        ({"gallery": "empty"}, 3, "empty: holds no images, expected .bmp, .jpeg, .jpg, .png files"),
        ({"queries": "cameras/notes.txt"}, 3, "cameras/notes.txt: no image by its name"),
    ],
)
def test_bad_input_is_one_line(change, code, said, search, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    search(change.pop("output", "found"), code=code, **change)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"{ERROR} {said}")
    assert not (tmp_path / "found").exists()


def test_links_are_followed_but_not_in_circles(folders):
    queries, gallery = folders
    (queries / "round").symlink_to(queries)
    (queries / "cameras").symlink_to(gallery)
    found = list_image_folder(queries)
    assert found.paths[:3] == ("1.png", "4.png", "cameras/a copy of 3.BMP")
    assert len(found.paths) == 2 + 13
    (queries / "gone.jpg").symlink_to(queries / "nowhere.jpg")
    with pytest.raises(DataError, match=r"1 link leads nowhere: 'gone.jpg'"):
        list_image_folder(queries)


def test_the_page_loads_a_model_in_plain_pytorch(search, model, folders, tmp_path, capsys):
    """docs/which-model.md, as it stands: two images are as similar as the search says."""
    page = (Path(__file__).parents[3] / "docs" / "which-model.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 22
    shutil.copy(model, tmp_path / "global.safetensors")
    shutil.copy(folders[0] / "4.png", tmp_path / "a.jpg")
    shutil.copy(folders[1] / "camera 1" / "4.jpg", tmp_path / "b.jpg")
    search("found.csv", "--top", "50")
    capsys.readouterr()
    exec(example, {})
    (expected,) = (
        float(row["similarity"])
        for row in table(tmp_path / "found.csv")
        if (row["query"], row["image"]) == ("4.png", "camera 1/4.jpg")
    )
    assert float(capsys.readouterr().out) == pytest.approx(expected, abs=1e-5)


def test_inspect_describes_a_model(model, capsys):
    assert run(["inspect", str(model)]) == 0
    rows = dict(re.findall(r"│ ([\w -]+?) +│ (.+?) +│", capsys.readouterr().out))
    stored = load_model(model)
    with safe_open(model, framework="pt") as file:
        about = json.loads(file.metadata()["fedreid_mpi"])
    tensors = sum(leaf.numel() for name, leaf in load_file(model).items() if "running" not in name)
    assert (rows["backbone"], rows["embedding_dim"], rows["images"]) == ("small", "16", f"{HEIGHT}x{WIDTH}")
    assert (rows["round"], rows["feature"]) == ("1", "16")
    assert (rows["mean of pixels"], rows["deviation"]) == ("0.485 0.456 0.406", "0.229 0.224 0.225")
    assert rows["parameters"] == f"{tensors:,}"
    assert rows["SHA-256"] == f"{about['digest']}, as it was written"
    assert (stored.round, stored.digest) == (1, about["digest"])
