import re

import matplotlib.image
import numpy as np
import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.evaluation import (
    ExtractedFeatures,
    Scoring,
    extract_features,
    query_then_gallery,
    rank_gallery,
    score_split,
)
from fedreid_mpi.model import load_model
from fedreid_mpi.report.ranked_lists import draw_ranked_lists, rank_lists, worst_queries
from support.launching import ERROR
from support.small import write_experiment, write_folds, write_site

GREEN, ORANGE = (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site") / "site.h5", 20, test_people=6, gallery_images=4)


@pytest.fixture(scope="module")
def model(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    path = write_experiment(folder / "x.toml", [site], run={"rounds": 1})
    assert run(["train", str(path), "--run-dir", str(folder / "run")]) == 0
    return folder / "run" / "models" / "global.safetensors"


def extracted(archive, seed=0, levels=None):
    """Random features; few levels give many ties."""
    random = np.random.default_rng(seed)
    images = query_then_gallery(archive)
    values = random.standard_normal((len(images), 3))
    if levels:
        values = np.rint(values * levels)
    return ExtractedFeatures(archive, images, torch.from_numpy(values).float())


@pytest.mark.parametrize(("seed", "levels"), [(0, None), (1, None), (2, 1), (3, 1)])
def test_lists_are_those_that_the_scores_are_of(seed, levels, site):
    """Plain re-derivation: sort by (-cosine, index) after junk is out; AP and first match follow from it."""
    archive = DatasetArchive.open(site)
    found = extracted(archive, seed, levels)
    ranking = score_split(found, 0, Scoring())
    queries, gallery = archive.split("query"), archive.split("gallery")
    lists = rank_lists(found, 0, range(len(queries)), len(gallery), ranking)
    for number, each in enumerate(lists):
        own = found.of(queries[number : number + 1]).double()[0].numpy()
        expected = []
        for image in gallery:
            same = archive.pids[image] == archive.pids[queries[number]]
            if archive.pids[image] == -1 or (
                same and archive.camids[image] == archive.camids[queries[number]]
            ):
                continue
            other = found.of(np.array([image])).double()[0].numpy()
            lengths = np.linalg.norm(own) * np.linalg.norm(other)
            similarity = round(float(own @ other / lengths) if lengths else 0.0, 8)
            expected.append((-similarity, image, same))
        expected.sort()
        assert each.image == queries[number]
        assert each.gallery.tolist() == [image for _, image, _ in expected]
        assert each.similarities == pytest.approx([-minus for minus, _, _ in expected], abs=1e-7)
        assert each.right.tolist() == [same for _, _, same in expected]
        ranks = 1 + np.flatnonzero(each.right)
        assert each.matches == len(ranks)
        assert (each.first, each.ranked) == (ranks[0] if len(ranks) else 0, len(expected))
        if len(ranks):
            assert ranks[0] == ranking.first_match[number]
            precision = np.mean(np.arange(1, len(ranks) + 1) / ranks)
            assert each.average_precision == pytest.approx(precision)
        else:
            assert np.isnan(each.average_precision)


def test_images_of_the_query_by_its_own_camera_are_left_out(tmp_path):
    archive = DatasetArchive.open(write_site(tmp_path / "site.h5", 20))
    archive.camids[archive.split("gallery")[0]] = 1  # of the first query's person, now by its camera
    found = extracted(archive)
    (first,) = rank_lists(found, 0, [0], 99, score_split(found, 0, Scoring()))
    assert archive.split("gallery")[0] not in first.gallery
    assert first.matches == 1


def test_the_worst_come_first_and_those_without_a_match_not_at_all(site):
    archive = DatasetArchive.open(site)
    ranking = score_split(extracted(archive), 0, Scoring())
    precision = ranking.average_precision.tolist()
    assert np.isnan(precision[5])
    assert worst_queries(ranking, 99) == sorted(range(5), key=lambda query: (precision[query], query))
    assert worst_queries(ranking, 2) == worst_queries(ranking, 99)[:2]


def test_the_picture_frames_and_marks_what_is_right(site):
    archive = DatasetArchive.open(site)
    found = extracted(archive)
    lists = rank_lists(found, 0, [5, 0], 4, score_split(found, 0, Scoring()))
    figure = draw_ranked_lists(archive, lists, 4, "a $title")
    labels = [axes.get_xlabel() for axes in figure.axes]
    marks = ["".join(text.get_text() for text in axes.texts) for axes in figure.axes]
    assert len(figure.axes) == 2 * (1 + 4)
    assert labels[0] == "no. 5, camera 1\nno match"
    assert labels[5].startswith("no. 0, camera 1\nAP ")
    assert labels[5].endswith(f"%, 4 matches\nfirst at rank {lists[1].first}")
    for row, each in enumerate(lists):
        for rank in range(4):
            position = 5 * row + 1 + rank
            assert marks[position] == ("✓" if each.right[rank] else "✗")
            assert labels[position] == f"{each.similarities[rank]:.3f}\ncamera 2"
            np.testing.assert_array_equal(
                figure.axes[position].images[0].get_array(), archive.images[each.gallery[rank]]
            )


def count(picture, colour):
    return int((np.rint(picture[..., :3] * 255) == colour).all(-1).sum())


def test_the_command_draws_what_is_asked_for(model, site, tmp_path, capsys):
    picture = tmp_path / "lists.png"
    capsys.readouterr()  # what training said
    words = ["results", "rank-list", str(model), str(site), "-o", str(picture), "--device", "cpu"]
    assert run([*words, "--query", "5", "--query", "query/0025", "--random", "2", "--top", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("query 5: query/")
    assert said[0].endswith("no match among 20 images")
    assert re.search(r"4 matches, the first at rank \d+ of 20$", said[1])
    assert said[-1] == f"Picture: {picture}"
    pixels = matplotlib.image.imread(picture)
    assert count(pixels, ORANGE) > 100
    first = picture.read_bytes()
    assert run([*words, "--query", "5", "--query", "query/0025", "--random", "2", "--top", "3"]) == 0
    assert picture.read_bytes() == first  # the same draw, the same picture
    assert run([*words, "--worst", "2"]) == 0
    assert picture.read_bytes() != first
    assert list(tmp_path.iterdir()) == [picture]


def test_the_first_match_of_the_worst_is_found_beyond_the_list(model, tmp_path, capsys):
    """The rank is that in the whole gallery, the list may end before it; without mirror images too."""
    crowd = write_folds(tmp_path / "crowd.h5", folds=0)  # with strangers, so that some come late
    archive, network = DatasetArchive.open(crowd), load_model(model).network
    words = ["results", "rank-list", str(model), str(crowd), "--device", "cpu", "--worst", "9", "--top", "1"]
    images, found = query_then_gallery(archive), []
    for option in ("--mirror", "--no-mirror"):
        features = extract_features(
            network, archive, images, config.Compute(device="cpu"), option == "--mirror"
        )
        ranking = rank_gallery(features, archive, "standard", 0)
        worst = worst_queries(ranking, 9)
        capsys.readouterr()
        assert run([*words, option, "-o", str(tmp_path / "x.png")]) == 0
        lines = capsys.readouterr().out.splitlines()
        said = [
            re.search(r"query (\d+): .*, 1 match, the first at rank (\d+) of 70$", line)
            for line in lines[:-1]
        ]
        found.append({int(each[1]): int(each[2]) for each in said})
        assert found[-1] == {query: ranking.first_match[query] for query in worst}
    assert max(found[0].values()) > 1
    assert found[0] != found[1]


def test_the_ending_says_the_format(model, site, tmp_path):
    words = ["results", "rank-list", str(model), str(site), "--device", "cpu", "--random", "1", "--top", "2"]
    for name, start in (("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.SVG", b"<?xml")):
        path = tmp_path / name
        assert run([*words, "-o", str(path)]) == 0
        content = path.read_bytes()
        assert content.startswith(start)
        assert run([*words, "-o", str(path)]) == 0
        assert path.read_bytes() == content  # without a date, or anything drawn


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"words": ["--query", "6"]}, 2, "--query 6: expected 0 to 5"),
        ({"words": ["--query", "nobody"]}, 2, "has this in its path, expected a part of e.g. query/00"),
        ({"words": ["--random", "30", "--worst", "30"]}, 2, "are asked for, expected at most 50"),
        ({"words": ["--split", "3"]}, 3, "no split 3 for query"),
        ({"output": "nowhere/x.png"}, 2, "no such folder"),
        ({"output": "."}, 2, "-o .: a folder, expected a file's name, .png, .pdf, .svg"),
        ({"output": "x.jpg"}, 2, "x.jpg: expected a name that ends in .png, .pdf, .svg"),
        ({"model": "none.safetensors"}, 3, "no such model file"),
        ({"site": "none.h5"}, 3, "none.h5"),
    ],
)
def test_bad_input_is_one_line(change, code, said, model, site, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(change.get("model", model)), str(change.get("site", site))]
    words += ["-o", change.get("output", "x.png"), *change.get("words", [])]
    assert run(["results", "rank-list", *words]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(ERROR)
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []
