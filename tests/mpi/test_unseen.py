"""Datasets that nobody trains on: what a run scores on them, keeps and shows."""

import csv
import json
import logging
import shutil

import h5py
import numpy as np
import pytest
import torch

from fedreid_mpi import cli
from fedreid_mpi.cli.log import run_log
from fedreid_mpi.cli.progress import RunPrinter
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.federated import scoring
from fedreid_mpi.model import load_model
from fedreid_mpi.records import UnseenDataset
from fedreid_mpi.report.loading import make_run, make_study
from fedreid_mpi.report.values import compare_unseen
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.storage.hdf5.digest import content_digest
from support.on_ranks.mpi_runs import VARIANTS
from support.small import Silent, write_experiment, write_folds, write_public


def play(path, run_dir, *overrides, observer=None, **options):
    experiment = load_experiment(path, overrides)
    run_federation(SingleCommunicator(), experiment, run_dir, observer or Silent(), **options)
    return run_dir


@pytest.fixture(scope="module")
def experiment_path(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unseen")
    write_public(folder / "public.h5")
    write_folds(folder / "folds.h5")
    write_folds(folder / "whole.h5", folds=0, seed=12)
    return write_experiment(folder / "unseen.toml", archives, **VARIANTS["unseen"])


@pytest.fixture(scope="module")
def run_dir(experiment_path, tmp_path_factory):
    return play(experiment_path, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def results(run_dir):
    return read_run(run_dir)


def rank_1_and_map(archive, split, features):
    """Rank-1 and mean AP of a split, image by image."""
    firsts, precisions = [], []
    gallery = archive.split("gallery", split)
    for query in archive.split("query", split):
        same = archive.pids[gallery] == archive.pids[query]
        kept = gallery[~(same & (archive.camids[gallery] == archive.camids[query]))]
        order = kept[np.argsort(-features[kept] @ features[query], kind="stable")]
        hits = np.flatnonzero(archive.pids[order] == archive.pids[query]) + 1
        firsts.append(hits[0] == 1)
        precisions.append(np.mean(np.arange(1, len(hits) + 1) / hits))
    return np.mean(firsts), np.mean(precisions)


def features_of(model, archive):
    network = load_model(model).network.eval()
    pixels = torch.from_numpy(archive.images[:]).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = (pixels - mean) / deviation
    with torch.no_grad():
        both = network.features(images) + network.features(images.flip(3))
    return torch.nn.functional.normalize(both).double().numpy()


def test_scores_are_those_of_each_groups_model_on_every_split(results, run_dir, experiment_path):
    groups = sorted(set(results.group[-1].tolist()))
    assert groups == [0, 1, 2]
    for number, name in enumerate(("folds", "whole")):
        archive = DatasetArchive.open(experiment_path.parent / f"{name}.h5")
        for group in groups:
            features = features_of(run_dir / "models" / f"group_{group}.safetensors", archive)
            figures = [rank_1_and_map(archive, split, features) for split in range(archive.splits)]
            (found,) = (
                each
                for each in results.unseen
                if (each.round, each.dataset, each.group) == (2, number, group)
            )
            np.testing.assert_allclose(
                [found.scores.cmc[0], found.scores.mean_ap], np.mean(figures, axis=0), rtol=0, atol=1e-9
            )
            queries = sum(len(archive.split("query", split)) for split in range(archive.splits))
            assert (found.scores.queries, found.scores.unmatched) == (queries, 0)


def test_every_evaluated_round_and_group_has_a_row(results):
    assert results.header.unseen == (UnseenDataset(0, "folds", 90, 3), UnseenDataset(1, "whole", 90, 1))
    expected = [
        (round, group, dataset)
        for round, groups in zip(results.rounds.tolist(), results.group.tolist(), strict=True)
        for group in sorted(set(groups))
        for dataset in (0, 1)
    ]
    assert [(each.round, each.group, each.dataset) for each in results.unseen] == expected
    assert results.evaluations.tolist() == [0, 1, 2]
    assert len({each.scores.mean_ap for each in results.unseen if each.round == 2}) == 6


def test_groups_count_by_their_clients(results):
    members = np.bincount(results.group[-1])
    for dataset in (0, 1):
        each = [e.scores for e in results.unseen if (e.round, e.dataset) == (2, dataset)]
        mean = results.unseen_score(2, dataset)
        assert mean.mean_ap == pytest.approx(
            sum(m * s.mean_ap for m, s in zip(members, each, strict=True)) / 5
        )
        np.testing.assert_allclose(
            mean.cmc, sum(m * s.cmc for m, s in zip(members, each, strict=True)) / 5, atol=1e-12
        )
        assert mean.queries == each[0].queries
    assert results.unseen_score(0, 0) is results.unseen[0].scores
    assert results.unseen_score(3, 0) is None


def test_unseen_datasets_change_nothing_else(experiment_path, run_dir, tmp_path):
    without = play(experiment_path, tmp_path / "run", "data.unseen=[]")
    for name in ("group_0", "group_1", "group_2"):
        file = f"models/{name}.safetensors"
        assert (without / file).read_bytes() == (run_dir / file).read_bytes()
    ours, theirs = read_run(without), read_run(run_dir)
    np.testing.assert_array_equal(ours.cmc, theirs.cmc)
    assert ours.unseen == ours.header.unseen == ()
    assert ours.unseen_score(2, 0) is None


def test_the_model_of_a_pool_is_scored(experiment_path, archives, tmp_path):
    data = {"unseen": [str(experiment_path.parent / "whole.h5")]}
    path = write_experiment(
        tmp_path / "pool.toml", archives[:2], data=data, federation={"mode": "centralised"}
    )
    pooled = read_run(play(path, tmp_path / "run", "run.rounds=1"))
    assert [(each.round, each.group, each.dataset) for each in pooled.unseen] == [(0, 0, 0), (1, 0, 0)]


def test_a_resumed_run_has_the_same_figures(experiment_path, run_dir, tmp_path):
    play(experiment_path, tmp_path / "run", "run.rounds=1")
    play(experiment_path, tmp_path / "run", resume=True)
    resumed = read_run(tmp_path / "run")
    for mine, other in zip(resumed.unseen, read_run(run_dir).unseen, strict=True):
        assert (mine.round, mine.group, mine.dataset) == (other.round, other.group, other.dataset)
        np.testing.assert_array_equal(mine.scores.cmc, other.scores.cmc)
    for changed, said in (
        ('["folds.h5"]', "data.unseen has 1 archive, expected 2"),
        ('["whole.h5", "folds.h5"]', "whole.h5 has other content than when the run was begun"),
    ):
        experiment = load_experiment(experiment_path, ["run.rounds=3"])
        names = [experiment_path.parent / name for name in json.loads(changed)]
        data = experiment.data.model_copy(update={"unseen": tuple(names)})
        with pytest.raises(Exception, match=said):
            run_federation(
                SingleCommunicator(),
                experiment.model_copy(update={"data": data}),
                tmp_path / "run",
                Silent(),
                resume=True,
            )


def test_features_that_are_not_finite_are_told(experiment_path, tmp_path, monkeypatch):
    rank = scoring._rank
    monkeypatch.setattr(
        scoring, "_rank", lambda state, test, rows: None if test.splits > 1 else rank(state, test, rows)
    )
    results = read_run(play(experiment_path, tmp_path / "run", "run.rounds=1"))
    assert {each.dataset for each in results.unseen} == {1}
    texts = [event.text for event in results.events if event.round == 0]
    assert texts == ["group 0 is not scored on folds: features of its model are not finite"]
    assert results.unseen_score(1, 0) is None


def test_archives_of_before_are_read(results, run_dir, tmp_path):
    path = tmp_path / "results_001_001.h5"
    shutil.copy(run_dir / path.name, path)
    with h5py.File(path, "r+") as file:
        for name in ("unseen", "unseen_scores"):
            del file[name]
        file.attrs["content_digest"] = content_digest(file)
    old = read_run(tmp_path)
    assert old.unseen == old.header.unseen == ()
    np.testing.assert_array_equal(old.cmc, results.cmc)
    assert cli.run(["inspect", "--verify", str(path)]) == 0
    assert cli.run(["results", "collect", str(path), "-o", str(tmp_path / "study.h5")]) == 0
    assert cli.run(["inspect", "--verify", str(tmp_path / "study.h5")]) == 0


def test_study_files_keep_unseen_scores(run_dir, results, tmp_path):
    assert cli.run(["results", "collect", str(run_dir), "-o", str(tmp_path / "study.h5")]) == 0
    assert cli.run(["inspect", "--verify", str(tmp_path / "study.h5")]) == 0
    copied = read_run(tmp_path / "study.h5" / "small-seed3")
    assert copied.header.unseen == results.header.unseen
    assert len(copied.unseen) == len(results.unseen)


def test_show_lists_them_below_the_mean(run_dir, results, tmp_path, capsys):
    assert cli.run(["results", "show", str(run_dir), "--plots", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line[1:2] == ["unseen"]]
    assert [row[0] for row in rows] == ["folds,"] * 4 + ["whole,"] * 4
    assert [row[2:5] for row in rows][:2] == [["0", "1", "2"], ["0", "–", "–"]]
    mean = results.unseen_score(2, 0)
    shown = [f"{100 * value:.1f}" for value in (mean.cmc[0], mean.cmc[4], mean.mean_ap)]
    assert rows[0][8:11] == shown
    assert lines.index(next(line for line in lines if line[:1] == ["mean"])) < lines.index(rows[0])


def test_export_marks_them(run_dir, results, tmp_path):
    assert cli.run(["results", "export", str(run_dir), "-o", str(tmp_path / "scores.csv")]) == 0
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    unseen = [row for row in rows if row["unseen"] == "True"]
    assert len(unseen) == len(results.unseen)
    for row, each in zip(unseen, results.unseen, strict=True):
        assert row["client"] == "-1"
        assert row["client_name"] == results.header.unseen[each.dataset].name
        assert (int(row["round"]), int(row["group"])) == (each.round, each.group)
        assert (float(row["rank_1"]), float(row["mean_ap"])) == (each.scores.cmc[0], each.scores.mean_ap)


def test_compare_has_a_table_of_them(run_dir, results, capsys):
    assert cli.run(["results", "compare", str(run_dir), "--metric", "mAP", "--model", "global"]) == 0
    printed = capsys.readouterr().out
    title = "mAP in percent, global models on unseen datasets, round 2"
    assert title in printed
    means = [f"{100 * results.unseen_score(2, dataset).mean_ap:.1f}" for dataset in (0, 1)]
    assert [f"{name} {mean}" for name, mean in zip(("folds", "whole"), means, strict=True)] == [
        " ".join(line.split()) for line in printed.split(title)[1].splitlines() if line.split()[1:2]
    ][:2]
    study = make_study([make_run(run_dir, results)])
    best = compare_unseen(study.methods, "best")
    rounds = [100 * np.array([results.unseen_score(r, d).cmc[0] for d in (0, 1)]) for r in (1, 2)]
    np.testing.assert_allclose(best.series[0].values[3], np.mean(rounds, axis=0))


def test_they_are_printed_while_the_run_goes_on(experiment_path, tmp_path, capsys):
    with run_log(logging.INFO, lambda: 0) as console, RunPrinter(1, console) as printer:
        play(experiment_path, tmp_path / "run", "run.rounds=1", observer=printer)
    printed = capsys.readouterr().out
    assert "unseen: folds, whole" in printed
    results = read_run(tmp_path / "run")
    mean = np.mean([results.unseen_score(1, dataset).cmc[0] for dataset in (0, 1)])
    weighted = f"unseen rank-1 {100 * mean:.1f} mAP"
    assert weighted in " ".join(printed[printed.index("round 1/1") :].split())
