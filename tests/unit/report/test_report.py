import dataclasses
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import (
    CMC_RANKS,
    ClientReport,
    ClientSpec,
    Evaluation,
    Event,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
    RunHeader,
    Scores,
)
from fedreid_mpi.report.plots import plot_scores_by_dataset, write_plots
from fedreid_mpi.report.score_table import Column, mean_over_datasets, score_table, shares
from fedreid_mpi.results import ResultsWriter, read_run

NAMES = ("MSMT17", "DukeMTMC", "Market-1501", "CUHK03", "PRID2011", "CUHK01", "VIPeR", "3DPeS", "iLIDS-VID")
IMAGES = (32621, 16522, 12936, 7365, 3744, 1940, 632, 450, 248)
ROUNDS = 12


def header(mode: str) -> RunHeader:
    return RunHeader(
        name="demo",
        seed=1,
        configuration=f'[federation]\nmode = "{mode}"\n',
        clients=tuple(
            ClientSpec(k, name, k, images, images // 12 + 1, images // 2)
            for k, (name, images) in enumerate(zip(NAMES, IMAGES, strict=True))
        ),
        ranks=(RankInfo(0, "node1", "solo", "cpu", tuple(range(9)), (0,)),),
        versions={},
        git_commit="",
        parameters=1000,
    )


def curve(rank1: float) -> Scores:
    """Scores whose rank-5 and mAP follow from rank-1 as given in the tests."""
    cmc = np.full(CMC_RANKS, 1.0)
    cmc[:4] = rank1
    cmc[4:10] = (1 + rank1) / 2
    return Scores(cmc, mean_ap=rank1 / 2, mean_inp=rank1 / 4, queries=100, unmatched=0)


def final_rank1(client: int, mode: str) -> float:
    """0.30, 0.35 ... for the global model; alone, big sites are 0.10 better and small ones 0.08 worse."""
    together = 0.30 + 0.05 * client
    return together if mode == "federated" else together + (0.10 if client < 3 else -0.08)


def made_up_run(run_dir: Path, mode: str = "federated", rounds: int = ROUNDS) -> Path:
    """Plausible learning curves of nine clients, written as a run would."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    trained = ModelKind.GLOBAL if mode == "federated" else ModelKind.LOCAL
    writer = ResultsWriter(run_dir, header(mode), rounds_per_segment=5)
    for number in range(rounds + 1):
        progress = (1 - np.exp(-number / 4)) / (1 - np.exp(-rounds / 4)) if rounds else 0.0
        evaluations, reports = [], []
        for client in range(9):
            rank1 = 0.04 + (final_rank1(client, mode) - 0.04) * progress
            evaluations.append(Evaluation(number, client, trained, curve(rank1)))
            if number:
                if mode == "federated":
                    local = curve(0.9 * rank1 + 0.03 * noise.random())
                    evaluations.append(Evaluation(number, client, ModelKind.LOCAL, local))
                loss = 6.5 * np.exp(-number / (3 + client / 2)) + 0.3 * noise.random()
                seconds = IMAGES[client] / 4000 * (1 + 0.3 * noise.random())
                steps = IMAGES[client] // 32
                reports.append(ClientReport(client, IMAGES[client], steps, loss, True, seconds))
        traffic = {"models down": 900_000_000, "models up": 850_000_000, "reports": 20_000}
        writer.write(
            RoundRecord(
                plan=RoundPlan(number, tuple(range(9)) if number else (), 0.05, evaluate=True),
                reports=tuple(reports),
                weights=dict.fromkeys(range(9), 1.0) if number else {},
                evaluations=tuple(evaluations),
                events=(Event(3, "rank lost", "rank 4 of node2"),) if number == 3 else (),
                phase_seconds={"train": 30.0, "aggregate": 6.0, "evaluate": 24.0}
                if number
                else {"evaluate": 9.0},
                bytes_sent=traffic if number else {},
            )
        )
    return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return made_up_run(folder / "federated"), made_up_run(folder / "local", mode="local")


def figures_of(output: str, dataset: str) -> list[float]:
    """The numbers in a dataset's row of the printed table, NaN for a dash."""
    (row,) = [line for line in output.splitlines() if line.strip().startswith(dataset + " ")]
    return [float(word.replace("–", "nan")) for word in row.split()[1:]]


def test_table_values(runs):
    federated, local = map(read_run, runs)
    table = score_table(federated, local)
    assert (table.round, table.baseline_round, table.datasets) == (12, 12, NAMES)
    assert list(table.scores) == [Column.UNTRAINED, Column.GLOBAL, Column.LOCAL, Column.STANDALONE]
    np.testing.assert_allclose(table.scores[Column.UNTRAINED], [[0.04, 0.52, 0.02]] * 9)
    np.testing.assert_allclose(table.scores[Column.GLOBAL][3], [0.45, 0.725, 0.225])
    np.testing.assert_allclose(table.scores[Column.STANDALONE][3], [0.37, 0.685, 0.185])
    assert list(table.gains) == [Column.GLOBAL, Column.LOCAL]
    np.testing.assert_allclose(table.gains[Column.GLOBAL][:, 0], [-0.10] * 3 + [0.08] * 6)
    local = table.scores[Column.LOCAL] - table.scores[Column.STANDALONE]
    np.testing.assert_array_equal(table.gains[Column.LOCAL], local)
    assert score_table(federated).gains == {}


def test_the_table_of_an_earlier_round(runs, tmp_path):
    federated, local = map(read_run, runs)
    table = score_table(federated, local, round=6)
    assert (table.round, table.baseline_round) == (6, 6)
    expected = federated.score(6, 8, ModelKind.GLOBAL).cmc[0]
    assert 0.04 < table.scores[Column.GLOBAL][8, 0] == expected < 0.70
    shorter = read_run(made_up_run(tmp_path / "shorter", mode="local", rounds=4))
    assert score_table(federated, shorter, round=6).baseline_round == 4
    with pytest.raises(ConfigurationError, match="round 13 was not evaluated; evaluated rounds: 0, 1, 2"):
        score_table(federated, round=13)


def test_a_local_run_has_no_global_model(runs):
    table = score_table(read_run(runs[1]))
    assert list(table.scores) == [Column.UNTRAINED, Column.STANDALONE]
    np.testing.assert_allclose(table.scores[Column.UNTRAINED][:, 0], 0.04)
    np.testing.assert_allclose(table.scores[Column.STANDALONE][0], [0.40, 0.70, 0.20])


def test_means_are_over_all_tested_datasets_or_none():
    scores = np.array([[0.2, 0.4], [0.4, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(mean_over_datasets(scores, (5, 5, 0)), [0.3, np.nan])
    np.testing.assert_array_equal(mean_over_datasets(scores, (0, 0, 0)), [np.nan, np.nan])


def test_shares():
    assert shares({"a": 1, "b": 3}) == [("b", 0.75), ("a", 0.25)]
    assert shares({"a": 0}) == shares({}) == []


def test_results_show_prints_scores_changes_costs_and_paths(runs, capsys, tmp_path):
    federated, local = runs
    plots = tmp_path / "plots"
    assert fedreid(["results", "show", str(federated), "--baseline", str(local), "--plots", str(plots)]) == 0
    output = capsys.readouterr().out
    untrained = [4.0, 52.0, 2.0]
    row = figures_of(output, "MSMT17")
    assert row[:6] == [*untrained, 30.0, 65.0, 15.0]
    assert row[9:14] == [40.0, 70.0, 20.0, -10.0, -5.0]
    assert row[14] == pytest.approx(row[6] - 40.0, abs=0.11)
    assert figures_of(output, "iLIDS-VID")[9:14] == [62.0, 81.0, 31.0, 8.0, 4.0]
    assert figures_of(output, "mean")[3:6] == [50.0, 75.0, 25.0]
    assert figures_of(output, "mean")[12:14] == [2.0, 1.0]
    assert "as the paper counts it, per client: 12 rounds × 2 × 4.0 kB = 96.0 kB" in output
    assert "+8.0" in output
    assert "Time:    12 min 9 s (train 49%, evaluate 41%, aggregate 10%)" in output
    assert "Traffic: 21.0 GB (models down 51%, models up 49%, reports 0%)" in output
    assert "round 3, rank lost: rank 4 of node2" in output
    assert str(federated / "results_001_003.h5") in output
    assert str(plots) in output


def test_a_narrow_terminal_gets_a_table_a_metric(runs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    federated, local = map(str, runs)
    assert fedreid(["results", "show", federated, "--baseline", local, "--plots", str(tmp_path)]) == 0
    coloured, _ = capsys.readouterr().out.split("Time:")
    output = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= 80
    rows = [line.split()[1:] for line in output.splitlines() if "Market-1501" in line]
    assert rows == [
        ["4.0", "40.0", "38.1", "50.0", "-10.0", "-11.9"],
        ["52.0", "70.0", "69.1", "75.0", "-5.0", "-5.9"],
        ["2.0", "20.0", "19.1", "25.0", "-5.0", "-5.9"],
    ]
    assert re.search(r"\x1b\[31m *-10\.0", coloured)  # red
    assert re.search(r"\x1b\[32m *\+8\.0", coloured)  # green


def test_results_show_of_a_local_run(runs, capsys, tmp_path):
    assert fedreid(["results", "show", str(runs[1]), "--round", "12", "--plots", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert figures_of(output, "Market-1501") == [4.0, 52.0, 2.0, 50.0, 75.0, 25.0]
    assert "global" not in output


def test_what_was_not_scored_is_a_dash(capsys, tmp_path):
    evaluations = tuple(Evaluation(1, client, ModelKind.GLOBAL, curve(0.5)) for client in range(8))
    ResultsWriter(tmp_path, header("federated")).write(
        RoundRecord(RoundPlan(1, (), 0.1, evaluate=True), evaluations=evaluations)
    )
    assert fedreid(["results", "show", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    np.testing.assert_array_equal(figures_of(output, "VIPeR"), [50.0, 75.0, 25.0])
    np.testing.assert_array_equal(figures_of(output, "iLIDS-VID"), [np.nan] * 3)
    np.testing.assert_array_equal(figures_of(output, "mean"), [np.nan] * 3)


def test_a_run_without_any_evaluation_yet(capsys, tmp_path):
    ResultsWriter(tmp_path, header("federated")).write(RoundRecord(RoundPlan(1, (0,), 0.1, evaluate=False)))
    assert fedreid(["results", "show", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "results_001_001.h5" in output
    assert "Plots:" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{missing}"], 3, "no such run directory"),
        (
            ["{federated}", "--baseline", "{federated}"],
            2,
            "has mode 'federated', a baseline must have mode 'local'",
        ),
        (["{local}", "--baseline", "{local}"], 2, "takes no baseline"),
        (["{federated}", "--baseline", "{other}"], 2, "was run on other datasets"),
        (["{federated}", "--round", "99"], 2, "round 99 was not evaluated"),
        (["{federated}", "--plots", "{file}"], 2, "plots cannot be written"),
    ],
)
def test_results_show_refuses_in_one_line(runs, capsys, tmp_path, arguments, code, message):
    other = dataclasses.replace(header("local"), clients=header("local").clients[:4])
    (tmp_path / "other").mkdir()
    ResultsWriter(tmp_path / "other", other).write(RoundRecord(RoundPlan(1, (), 0.1, evaluate=False)))
    (tmp_path / "file").touch()
    paths = {name: tmp_path / name for name in ("missing", "other", "file")}
    paths |= {"federated": runs[0], "local": runs[1]}
    assert fedreid(["results", "show", *(argument.format_map(paths) for argument in arguments)]) == code
    error = capsys.readouterr().err
    assert re.fullmatch(r"fedreid-mpi: error: .*\n", error)
    assert message in error


def test_plots_are_png_files_that_show_something(runs, tmp_path):
    federated, local = map(read_run, runs)
    files = write_plots(federated, score_table(federated, local), tmp_path / "plots", local)
    assert sorted(path.name for path in files) == sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert len(files) == 5
    (bars,) = plot_scores_by_dataset("run", score_table(federated, local)).legends
    names = {text.get_text() for text in bars.get_texts()}
    assert {"global model", "local models", "standalone"} <= names
    drawn = write_plots(federated, score_table(federated), tmp_path / "vector", formats=("pdf", "svg"))
    assert {path.suffix for path in drawn} == {".pdf", ".svg"}
    assert len(drawn) == 10
    contents = [path.read_bytes() for path in drawn]
    assert all(content.startswith((b"%PDF-", b"<?xml")) for content in contents)
    assert sum(b"/Subtype /Type0" in content for content in contents) == 5  # letters, no drawings of letters
    assert not any(b"/Type3" in content for content in contents)
    for path in files:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 300, path.name
        red, green, blue = (np.rint(255 * pixels[..., channel]) for channel in range(3))
        assert ((red == 0x00) & (green == 0x72) & (blue == 0xB2)).any(), path.name  # the global model's blue
        ink = (pixels[..., :3] < 0.9).any(axis=-1)
        assert 0.01 < ink.mean() < 0.6, path.name
