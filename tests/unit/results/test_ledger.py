"""What the server saw of each client, from archives with known ledgers."""

import csv
import dataclasses

import pytest

from fedreid_mpi import cli
from fedreid_mpi.records import (
    ClientReport,
    Evaluation,
    Event,
    Message,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
)
from fedreid_mpi.report.ledger import Line, Seen, in_lines, seen_by_the_server
from fedreid_mpi.results import ResultsWriter, read_run
from support import made_up
from support.runs import CAMERAS, header, scores

RANKS = (
    RankInfo(0, "node1", "server", "cpu", (), (0,)),
    RankInfo(1, "node1", "client", "cpu", (0, 2), (1,)),
    RankInfo(2, "node1", "client", "cpu", (1,), (2,)),
)
REPORT = "loss, images, steps, seconds, diverged or not"
DOWN = Message("models", "float32", (100,), 400)
SUM = Message("models", "int64", (100,), 800)
HIDDEN = Message("models", "uint64", (100,), 800)
TEACHERS = Message("features", "int64", (36,), 288)
TESTED = Message("features", "float32", (90, 16), 5760)
LENT = Message("models", "float32", (1, 8), 32)
SMALL = Message("ClientReport", "pickle", (), 300)


def report(client, finite=True, distance=None):
    return ClientReport(client, 100, 3, 1.5, finite, 0.1, cosine_distance=distance)


def record(round, clients, ranks, **changes):
    reports = changes.pop("reports", tuple(map(report, clients)))
    return RoundRecord(
        RoundPlan(round, tuple(clients), 0.1, evaluate=True),
        reports,
        messages={rank: dict.fromkeys(messages, 1) for rank, messages in ranks.items()},
        **changes,
    )


def written(folder, *records, more=""):
    folder.mkdir()
    known = dataclasses.replace(header(clients=CAMERAS, more=more), ranks=RANKS)
    writer = ResultsWriter(folder, known)
    for each in (record(0, (), {0: [DOWN], 1: [TESTED]}), *records):
        writer.write(each)
    return read_run(folder)


def test_a_sum_is_of_the_rank_s_clients_that_did_not_diverge(tmp_path):
    results = written(
        tmp_path / "run",
        record(1, (0, 1, 2), {0: [DOWN], 1: [SUM, SMALL, TESTED], 2: [SUM]}),
        record(2, (0, 1, 2), {1: [SUM], 2: [SUM]}, reports=(report(0), report(1), report(2, finite=False))),
    )
    found = seen_by_the_server(results)
    arrays = [(each.round, each.client, each.how) for each in found if each.what == "model"]
    assert arrays == [
        (1, 0, "in a sum of 2"),
        (1, 1, "as it is"),
        (1, 2, "in a sum of 2"),
        (2, 0, "as it is"),
        (2, 1, "as it is"),
    ]
    assert {(each.shape, each.bits) for each in found if each.what == "model"} == {((100,), 64)}
    assert [(each.round, each.client) for each in found if each.what == REPORT] == [
        (round, client) for round in (1, 2) for client in range(3)
    ]


def test_what_a_method_adds_is_there(tmp_path):
    own = Evaluation(1, 0, ModelKind.LOCAL, scores(0.5))
    ranks = {1: [HIDDEN, TEACHERS], 2: [HIDDEN, LENT]}
    reports = report(0, distance=0.25), report(1)
    results = written(tmp_path / "run", record(1, (0, 1), ranks, reports=reports, evaluations=(own,)))
    of_client = {0: [], 1: []}
    for each in seen_by_the_server(results):
        of_client[each.client].append((each.what, each.shape, each.bits, each.how))
    assert of_client[0] == [
        (REPORT, (5,), 64, "as it is"),
        ("cosine distance of its logits", (1,), 64, "as it is"),
        ("scores of its own model", (54,), 64, "as it is"),
        ("model", (100,), 64, "masked"),
        ("teacher features", (36,), 64, "as it is"),
    ]
    assert of_client[1] == [
        (REPORT, (5,), 64, "as it is"),
        ("model", (100,), 64, "masked"),
        ("model, or statistics, of one client", (8,), 32, "as it is"),
    ]


def test_before_clients_were_placed_anew_nobody_says_who_was_with_whom(tmp_path):
    results = written(
        tmp_path / "run",
        record(1, (0, 1), {1: [SUM], 5: [SUM]}),
        record(2, (0, 1), {1: [SUM], 2: [SUM]}, events=(Event(2, "resumed", "after round 1"),)),
    )
    how = {
        (each.round, each.client): each.how for each in seen_by_the_server(results) if each.what == "model"
    }
    assert how == {
        (1, 0): "in its rank's sum",
        (1, 1): "in its rank's sum",
        (2, 0): "as it is",
        (2, 1): "as it is",
    }


def test_lines_put_rounds_and_clients_together(tmp_path):
    results = written(tmp_path / "run", *(record(n, (0, 1, 2), {}) for n in (1, 2, 3, 5)))
    entries = [Seen(n, client, "x", (2,), 32, "masked") for n in (1, 2, 3, 5) for client in range(3)]
    entries += [Seen(2, 1, "y", (1,), 64, "as it is")]
    assert in_lines(results, entries) == [
        Line("all 3", "1 to 3, 5", entries[0]),
        Line("market-camera2", "2", entries[-1]),
    ]


@pytest.mark.parametrize("more", ["", "[privacy]\nclip = 0.5\nnoise_multiplier = 2.0\ndelta = 1e-5\n"])
def test_the_command_prints_the_ledger(more, tmp_path, capsys):
    written(
        tmp_path / "run",
        record(1, (0, 1, 2), {1: [HIDDEN], 2: [HIDDEN]}, epsilon=1.25 if more else None),
        more=more,
    )
    assert cli.run(["results", "show", str(tmp_path / "run"), "--ledger"]) == 0
    printed = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    what = "clipped update of its model" if more else "model"
    assert f"all 3 1 {what} 100 64 masked" in rows
    assert f"all 3 1 {REPORT} 5 64 as it is" in rows
    assert ("ε = 1.25" in printed) == bool(more)
    assert not (tmp_path / "run" / "plots").exists()


def private_run(folder, name, seed, rank1, multiplier, epsilon=None):
    sections = {"aggregation": {"weights": "uniform"}}
    if multiplier:
        sections["privacy"] = {"clip": 0.5, "noise_multiplier": multiplier}
    datasets = {"viper": 100, "prid2011": 200}
    made_up.write_run(
        folder, name, seed, lambda round, *_: rank1 * round / 4, datasets, epsilon=epsilon, **sections
    )


def test_the_report_draws_accuracy_against_epsilon(tmp_path, capsys):
    for seed in range(3):
        private_run(tmp_path / "runs", "plain", seed, 0.5 + seed / 100, 0.0)
        private_run(tmp_path / "runs", "little", seed, 0.4 + seed / 100, 1.0, 1.0)
        private_run(tmp_path / "runs", "much", seed, 0.2 + seed / 100, 4.0, 0.125)
    assert cli.run(["results", "report", str(tmp_path / "runs"), "-o", str(tmp_path / "report")]) == 0
    with (tmp_path / "report" / "f-epsilon.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["ε"], row["noise_multiplier"]) for row in rows] == [
        ("little", "4.00", "1"),
        ("much", "0.50", "4"),
    ]
    assert [float(row["mean rank-1"]) for row in rows] == [41.0, 21.0]
    assert (tmp_path / "report" / "f-epsilon.png").stat().st_size > 5000
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "What leaves a client, and what bounds it" in page
