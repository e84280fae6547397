import statistics

import h5py
import numpy as np
import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.errors import DataError
from fedreid_mpi.evaluation import (
    ExtractedFeatures,
    Scoring,
    extract_features,
    extract_parts,
    images_to_score,
    mean_and_deviation,
    multi_query_images,
    query_then_gallery,
    rank_gallery,
    score_split,
)
from fedreid_mpi.evaluation.ranking import evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from fedreid_mpi.model import load_model
from support.launching import ERROR
from support.many_splits import SPLITS, write

COMPUTE = config.Compute(device="cpu")


def listed(parts):
    return [part.tolist() for part in parts]


def test_each_image_is_extracted_once_and_the_first_splits_batches_are_kept(archive):
    assert listed(images_to_score(archive, [0])) == [[0, 2, 1, 3, 5]]
    assert listed(images_to_score(archive, [0, 1, 2])) == [[0, 2, 1, 3, 5], [4, 6, 7], []]
    assert listed(images_to_score(archive, [2])) == [[1, 3, 0, 4, 6]]
    # Of the multi-query images those of a query's person and camera.
    assert listed(images_to_score(archive, [0, 1], multi_query=True)) == [
        [0, 2, 1, 3, 5],
        [8, 9],
        [4, 6, 7],
        [10],
    ]


def test_every_split_scores_as_if_it_were_alone(archive, model):
    network = load_model(model).network
    together = extract_parts(network, archive, images_to_score(archive, [0, 1, 2]), COMPUTE, True)
    assert sorted(together.images) == [0, 1, 2, 3, 4, 5, 6, 7]
    for split in range(3):
        images = query_then_gallery(archive, split)
        alone = extract_features(network, archive, images, COMPUTE, True)
        torch.testing.assert_close(together.of(images), alone)
        found = score_split(together, split, Scoring())
        told: list[int] = []
        expected = rank_gallery(alone, archive, "standard", 0, split, told.append)
        assert sum(told) == len(archive.split("query", split))  # long work gives signs of life
        np.testing.assert_array_equal(found.average_precision, expected.average_precision)
    first = query_then_gallery(archive, 0)
    assert torch.equal(together.of(first), extract_features(network, archive, first, COMPUTE, True))


def test_a_gallery_in_a_row_is_not_copied():
    archive = type("Archive", (), {"pids": np.zeros(9)})()
    features = torch.arange(12.0).reshape(6, 2)
    extracted = ExtractedFeatures(archive, np.array([8, 0, 1, 2, 5, 7]), features)
    assert extracted.rows(np.array([5, 8])).tolist() == [4, 0]
    assert extracted.of(np.array([1, 2, 5])).data_ptr() == features[2].data_ptr()
    assert extracted.of(np.array([7, 8])).tolist() == [[10, 11], [0, 1]]
    assert extracted.of(np.array([0, 5])).tolist() == [[2, 3], [8, 9]]


def by_hand(archive, rows):
    """Features that are given by hand, in two dimensions, for some images."""
    features = torch.tensor(list(rows.values()), dtype=torch.float32)
    return ExtractedFeatures(archive, np.array(list(rows)), torch.nn.functional.normalize(features))


def test_multi_query_images_are_of_the_querys_person_and_camera(archive):
    assert listed(multi_query_images(archive, 0)) == [[8, 9], []]
    assert listed(multi_query_images(archive, 1)) == [[10], []]
    assert listed(multi_query_images(archive, 2)) == [[], [11]]


def test_a_multi_query_is_the_mean_of_features_of_length_one(archive):
    # Query 0 lies at 0 degrees; its person's images in its camera at 0 and 90: their mean is at 45, whatever
    # their lengths before. Its match lies at 60, the others at 20 and -20. Query 2 has no such images.
    def at(degrees, length=1.0):
        return [length * np.cos(np.radians(degrees)), length * np.sin(np.radians(degrees))]

    extracted = by_hand(
        archive,
        {0: at(0), 2: at(22), 1: at(60), 3: at(20), 5: at(-20), 8: at(0, 9.0), 9: at(90, 0.1)},
    )
    single = score_split(extracted, 0, Scoring())
    assert single.first_match.tolist() == [3, 1]
    assert single.average_precision.tolist() == [1 / 3, 1]
    several = score_split(extracted, 0, Scoring(multi_query=True))
    assert several.first_match.tolist() == [1, 1]
    assert extracted.features[0].tolist() == [1, 0]  # left as it was

    # The mean of 0 and 90 degrees is 45: the match at 70 comes before an image at 19, not before one at 21.
    rows = extracted.rows(np.array([1, 3, 5]))
    for other, rank in ((19, 1), (21, 2)):
        extracted.features[rows] = torch.tensor([at(70), at(other), at(180)], dtype=torch.float32)
        assert score_split(extracted, 0, Scoring(multi_query=True)).first_match[0] == rank


def test_multi_query_needs_its_images(tmp_path):
    plain = [{role: images for role, images in split.items() if role != "multi_query"} for split in SPLITS]
    archive = write(tmp_path / "plain.h5", plain)
    with pytest.raises(DataError, match="no split 0 for multi_query, found 0: train, query, gallery"):
        images_to_score(archive, [0], multi_query=True)


def test_reranking_is_that_of_query_and_gallery(archive, model):
    network = load_model(model).network
    extracted = extract_parts(network, archive, images_to_score(archive, [1]), COMPUTE, True)
    reranking = Reranking(k1=2, k2=2)
    found = score_split(extracted, 1, Scoring(distances=reranking))
    sides = []
    for role in ("query", "gallery"):
        images = archive.split(role, 1)
        sides += [extracted.of(images), archive.pids[images], archive.camids[images]]
    expected = evaluate_ranking(*sides, distances=reranking)
    np.testing.assert_array_equal(found.average_precision, expected.average_precision)


def test_mean_and_deviation():
    mean, deviation = mean_and_deviation([0.5, 0.25, 0.75, 0.25])
    assert mean == 0.4375
    assert deviation == pytest.approx(statistics.stdev([0.5, 0.25, 0.75, 0.25]), abs=1e-15)
    assert mean_and_deviation([0.5])[0] == 0.5
    assert np.isnan(mean_and_deviation([0.5])[1])
    assert np.isnan(mean_and_deviation([np.nan, np.nan])).all()


def cells(printed):
    rows = [
        [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in printed.splitlines()
    ]
    return [row for row in rows if row]


@pytest.fixture
def scores(archive, model):
    extracted = extract_parts(
        load_model(model).network, archive, images_to_score(archive, [0, 1, 2], True), COMPUTE, True
    )

    def of(split, **scoring):
        return score_split(extracted, split, Scoring(**scoring))

    return of


def test_the_command_reports_mean_and_deviation_over_splits(archive, model, scores, capsys):
    assert run(["evaluate", str(model), str(archive.path), "--device", "cpu"]) == 0
    header, row = cells(capsys.readouterr().out)
    assert header[0] == "dataset"
    assert header[-1] == "splits"
    found = dict(zip(header, row, strict=True))
    means = [scores(split).mean_ap for split in range(3)]
    assert len(set(means)) > 1
    assert found["mAP"] == f"{100 * statistics.mean(means):.1f} ± {100 * statistics.stdev(means):.1f}"
    firsts = [scores(split).cmc[0] for split in range(3)]
    assert found["rank-1"] == f"{100 * statistics.mean(firsts):.1f} ± {100 * statistics.stdev(firsts):.1f}"
    assert (found["splits"], found["queries"], found["unmatched"]) == ("3", "1 to 2", "0 to 1")


def test_one_split_can_be_asked_for(archive, model, scores, capsys):
    assert run(["evaluate", str(model), str(archive.path), "--split", "2"]) == 0
    header, row = cells(capsys.readouterr().out)
    found = dict(zip(header, row, strict=True))
    assert "splits" not in found
    assert found["mAP"] == f"{100 * scores(2).mean_ap:.1f}"
    assert run(["evaluate", str(model), str(archive.path), "--split", "3"]) == 3
    assert capsys.readouterr().err.startswith(f"{ERROR} {archive.path}: no split 3 for query, found 0: train")


def test_the_command_reranks_and_pools_queries(archive, model, scores, capsys):
    options = ["--split", "0", "--multi-query", "--rerank", "--k1", "2", "--k2", "2", "--lambda", "0.1"]
    assert run(["evaluate", str(model), str(archive.path), *options]) == 0
    printed = capsys.readouterr().out
    assert "multi-query, re-ranked (k1 2, k2 2, lambda 0.1)" in " ".join(printed.split())
    header, row = cells(printed)
    expected = scores(0, multi_query=True, distances=Reranking(k1=2, k2=2, weight=0.1))
    assert dict(zip(header, row, strict=True))["mAP"] == f"{100 * expected.mean_ap:.1f}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k1", "5"], "--k1, --k2 and --lambda belong to --rerank, which is not given"),
        (["--lambda", "0"], "--k1, --k2 and --lambda belong to --rerank, which is not given"),
        (["--rerank", "--k1", "3"], "--rerank: k1 = 3, k2 = 6, expected k1 >= k2 >= 1"),
        (["--rerank", "--protocol", "single-gallery-shot"], "--rerank uses the whole gallery"),
    ],
)
def test_options_without_a_meaning_are_refused(archive, model, options, message, capsys):
    assert run(["evaluate", str(model), str(archive.path), *options]) == 2
    assert capsys.readouterr().err.startswith(f"{ERROR} {message}")


def test_multi_query_images_that_are_not_there_are_a_data_error(tmp_path, model, capsys):
    plain = write(tmp_path / "plain.h5", [{"query": [0], "gallery": [1]}])
    saved = tmp_path / "features.h5"
    assert run(["evaluate", str(model), str(plain.path), "--multi-query", "--save", str(saved)]) == 3
    assert "no split 0 for multi_query" in capsys.readouterr().err
    assert not saved.exists()


def test_features_of_all_splits_are_saved_once(archive, model, scores, tmp_path):
    saved = tmp_path / "features.h5"
    assert run(["evaluate", str(model), str(archive.path), "--save", str(saved)]) == 0
    with h5py.File(saved) as file:
        assert file.attrs["kind"] == "fedreid_mpi features"
        assert file.attrs["protocol"] == "standard"
        assert not file.attrs["multi_query"]
        assert not file.attrs["reranked"]
        group = file["small"]
        assert group.attrs["source_digest"] == archive.digest
        paths = group["path"].asstr()[...]
        assert sorted(paths) == [f"{number:04d}.png" for number in range(8)]
        np.testing.assert_allclose(np.linalg.norm(group["features"], axis=1), 1, atol=1e-6)
        for split in range(3):
            part = group[f"splits/{split}"]
            assert "multi_query" not in part
            for role in ("query", "gallery"):
                wanted = archive.split(role, split)
                rows = part[role][...]
                assert paths[rows].tolist() == [archive.paths[image] for image in wanted]
                assert group["pid"][...][rows].tolist() == archive.pids[wanted].tolist()
                assert group["camid"][...][rows].tolist() == archive.camids[wanted].tolist()
            ranking = scores(split)
            for name in ("average_precision", "inverse_negative_penalty", "first_match"):
                np.testing.assert_array_equal(part[name], getattr(ranking, name))
        described = []
        file.visititems(
            lambda _, item: described.append(isinstance(item, h5py.Group) or item.attrs["description"])
        )
        assert all(described)


def test_how_scores_were_made_is_saved(archive, model, scores, tmp_path):
    saved = tmp_path / "features.h5"
    options = ["--multi-query", "--rerank", "--k1", "2", "--k2", "1", "--save", str(saved)]
    assert run(["evaluate", str(model), str(archive.path), *options]) == 0
    with h5py.File(saved) as file:
        assert (file.attrs["k1"], file.attrs["k2"], file.attrs["lambda"]) == (2, 1, 0.3)
        assert file.attrs["multi_query"]
        part = file["small/splits/1"]
        paths = file["small/path"].asstr()[...]
        # All that were extracted, for whichever split; nobody needs image 12.
        assert paths[part["multi_query"][...]].tolist() == ["0008.png", "0009.png", "0010.png", "0011.png"]
        expected = scores(1, multi_query=True, distances=Reranking(k1=2, k2=1))
        np.testing.assert_array_equal(part["average_precision"], expected.average_precision)


def test_nothing_is_saved_when_scoring_fails(archive, model, tmp_path, monkeypatch):
    def fail(*_):
        raise DataError("broken")

    monkeypatch.setattr("fedreid_mpi.evaluation.score_split", fail)
    saved = tmp_path / "out" / "features.h5"
    saved.parent.mkdir()
    saved.write_text("old")
    assert run(["evaluate", str(model), str(archive.path), "--save", str(saved)]) == 3
    assert [path.name for path in saved.parent.iterdir()] == ["features.h5"]
    assert saved.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(archive, model, tmp_path, capsys):
    saved = tmp_path / "folder.h5"
    saved.mkdir()
    assert run(["evaluate", str(model), str(archive.path), "--save", str(saved)]) == 2
    assert capsys.readouterr().err.startswith(f"{ERROR} {saved}: cannot be written: ")
