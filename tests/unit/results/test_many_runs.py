"""Runs listed, compared, exported and watched; scores by dataset whoever holds it."""

import csv
import logging
import re
import struct
import threading

import numpy as np
import pyarrow.parquet
import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.cli.log import run_log
from fedreid_mpi.cli.progress import RunPrinter
from fedreid_mpi.cli.results.places import beside
from fedreid_mpi.cli.results.watch import sparkline
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import ClientReport, ModelKind
from fedreid_mpi.report.score_table import Column, score_table
from fedreid_mpi.report.tensorboard import FILE_NAME
from fedreid_mpi.results import ResultsWriter, read_run
from fedreid_mpi.results.datasets import HeldDataset, datasets_of, mean_over_clients
from fedreid_mpi.storage.run_directory import Status, write_status
from support import runs

BY_CAMERA = {"federation": {"clients": "camera"}}
CDW = '[aggregation]\nweights = "cosine-distance"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two methods, one of three seeds and one of two."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, last, more in (
        ("fedpav", 0, (0.50, 0.30), ""),
        ("fedpav", 1, (0.52, 0.26), ""),
        ("fedpav", 2, (0.54, 0.22), ""),
        ("cdw", 0, (0.51, 0.40), CDW),
        ("cdw", 1, (0.55, 0.38), CDW),
    ):
        more = more or '[aggregation]\nweights = "samples"\n'
        runs.write_run(folder / f"{name}-seed{seed}", last, name=name, seed=seed, more=more)
    return folder


def rows_of(output, heading):
    """The cells of each row of the table under a title, by the row's name; a cell is 'mean ± deviation'."""
    table = re.split("─ *\n", output.partition(heading + "\n")[2])[1]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if re.search(r"\d\.\d", line)]
    return {name: cells for name, *cells in rows}


def test_runs_are_listed(folder, capsys):
    assert fedreid(["results", "list", str(folder)]) == 0
    output = capsys.readouterr().out
    assert "5 runs" in output
    (row,) = [line.split() for line in output.splitlines() if line.split()[:2] == ["cdw", "1"]]
    assert row[2:7] == ["federated", "done", "2/2", "46.5", "23.2"]


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["aggregation.weights=cosine-distance"], "2 runs"),
        (["aggregation.weights=samples", "run.seed=1"], "1 run\n"),
        (["run.rounds=3"], "0 runs"),
    ],
)
def test_runs_are_selected_by_their_configuration(folder, capsys, conditions, count):
    arguments = [word for condition in conditions for word in ("--where", condition)]
    assert fedreid(["results", "list", str(folder), *arguments]) == 0
    assert count in re.sub(" +\n", "\n", capsys.readouterr().out)


def test_conditions_that_make_no_sense_are_refused(folder, capsys):
    for condition, message in (
        ("aggregation.wieghts=samples", "no run has such a key"),
        ("cosine-distance", "expected section.key=value"),
    ):
        assert fedreid(["results", "list", str(folder), "--where", condition]) == 2
        assert message in capsys.readouterr().err


def test_methods_are_compared_and_differences_paired(folder, capsys):
    assert fedreid(["results", "compare", str(folder), "--metric", "rank-1", "--against", "fedpav"]) == 0
    output = capsys.readouterr().out
    assert rows_of(output, "rank-1 in percent, global models, round 2") == {
        "market": ["52.0 ± 2.0", "53.0 ± 2.8"],
        "viper": ["26.0 ± 4.0", "39.0 ± 1.4"],
        "mean of 2": ["39.0 ± 1.0", "46.0 ± 0.7"],
    }
    # Seed 0: +1 and +10, mean 5.5; seed 1: +3 and +12, mean 7.5. t at 1 degree of freedom is 12.7.
    assert rows_of(output, "rank-1 minus fedpav, global models, round 2, by seed") == {
        "market": ["+2.0 ± 1.4"],
        "viper": ["+11.0 ± 1.4"],
        "mean of 2": ["+6.5 ± 1.4"],
    }
    assert "cdw (seed 0, 1): aggregation.weights = cosine-distance\n" in output
    assert "fedpav (seed 0, 1, 2): aggregation.weights = samples\n" in output
    assert "Note" not in output


def test_a_narrow_terminal_gets_several_tables(folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    assert fedreid(["results", "compare", str(folder), "--metric", "mAP"]) == 0
    output = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    tables = output.partition("fedpav (")[0]
    assert max(map(len, tables.splitlines())) <= 30
    assert tables.count("mAP in percent, global models,\nround 2\n") == 2
    assert "26.5 ± 1.4" in tables
    assert "26.0 ± 1.0" in tables


def test_comparisons_that_would_mislead_are_refused_or_told(folder, tmp_path, capsys):
    unfinished = runs.write_run(tmp_path / "unfinished", name="late", seed=0, rounds=1)
    assert fedreid(["results", "compare", str(folder), str(unfinished)]) == 0
    assert "Note: late, seed 0 (unfinished) has 1 of 2 rounds: left out" in capsys.readouterr().out
    wreck = tmp_path / "wreck.h5"
    wreck.write_bytes(b"nothing")
    for arguments, code, message in (
        ([str(folder), str(wreck)], 3, "skipped"),
        ([str(folder), "--against", "local"], 2, "no such method, expected one of fedpav, cdw"),
        ([str(folder), "--round", "7"], 2, "round 7: not evaluated by every run: fedpav: 1, 2; cdw: 1, 2"),
        ([str(folder), "--round", "x"], 2, "--round x: expected the number of a round, or best"),
        ([str(folder), "--where", "run.seed=7"], 3, "no run that meets run.seed=7"),
    ):
        assert fedreid(["results", "compare", *arguments]) == code
        assert message in capsys.readouterr().err


def test_methods_without_a_common_round_are_named_with_theirs(tmp_path, capsys):
    for name, rounds in (("short", 2), ("long", 4)):
        runs.write_run(tmp_path / name, name=name, rounds=rounds, first=rounds - 1)
    assert fedreid(["results", "compare", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no round was evaluated by every run (" in told
    assert "short: 1, 2" in told
    assert "long: 3, 4" in told
    assert "compare some that share one (--method)" in told


def test_watch_and_the_log_show_one_loss(tmp_path, capsys):
    """Clients of 800 and 300 images, losses of 3 and 1; a third has diverged."""
    losses = ((800, 3.0, True), (300, 1.0, True), (500, float("nan"), False))
    reports = tuple(
        ClientReport(k, images, 25, loss, finite, 2.0) for k, (images, loss, finite) in enumerate(losses)
    )
    writer = ResultsWriter(tmp_path, runs.header(clients=runs.CAMERAS, rounds=1))
    with run_log(logging.INFO, lambda: 0) as console, RunPrinter(1, console) as printer:
        for round in (0, 1):
            values = {ModelKind.GLOBAL: (0.5, 0.5, 0.5)}
            record = runs.record(round, values, reports=reports if round else ())
            writer.write(record)
            printer.finished(record)
    assert "loss 2.455" in capsys.readouterr().out  # (800 · 3 + 300 · 1) / 1100
    assert fedreid(["results", "watch", "--once", str(tmp_path)]) == 0
    assert "training loss 2.455" in capsys.readouterr().out
    np.testing.assert_allclose(read_run(tmp_path).mean_loss, [np.nan, 2700 / 1100])


def test_seconds_per_round_of_phases_that_not_every_round_has(tmp_path, capsys):
    writer = ResultsWriter(tmp_path, runs.header(rounds=2))
    for round, phases in enumerate(({"evaluate": 9.0}, {"train": 3.0}, {"train": 3.0, "evaluate": 1.0})):
        writer.write(runs.record(round, {ModelKind.GLOBAL: (0.5, 0.5)}, phase_seconds=phases))
    write_status(tmp_path, Status("done", round=2, rounds=2, attempt=1))
    assert fedreid(["submit", "status", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "3.5" in told
    assert "nan" not in told


def test_plots_of_a_run_of_a_study_file_are_its_own(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("study.h5", "merged.h5"):
        (tmp_path / name).touch()
    for results, folder in (
        ("run", "run/plots"),
        ("merged.h5", "merged-plots"),
        ("study.h5/fedpav-seed0", "study-plots/fedpav-seed0"),
        ("study.h5/fedpav-seed1", "study-plots/fedpav-seed1"),
    ):
        assert beside(tmp_path / results, "plots") == tmp_path / folder
    with pytest.raises(DataError, match=r"none/x: no such run directory or results file"):
        beside(tmp_path / "none" / "x", "plots")


def test_csv_and_parquet_hold_the_archives_figures(folder, tmp_path, capsys):
    for table in ("scores", "training"):
        arguments = ["results", "export", str(folder), "--where", "run.seed=0", "--table", table, "-o"]
        assert fedreid([*arguments, str(tmp_path / "t.csv")]) == 0
        assert fedreid([*arguments, str(tmp_path / "t.parquet")]) == 0
        with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        same = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
        assert len(rows) == len(same) == 12  # two runs, rounds 0 to 2, two clients
        for text, values in zip(rows, same, strict=True):
            expected = {name: "" if value != value else str(value) for name, value in values.items()}
            assert text == expected
        last = [row for row in same if (row["name"], row["round"], row["client"]) == ("fedpav", 2, 1)]
        assert len(last) == 1
        if table == "scores":
            assert (last[0]["rank_1"], last[0]["rank_5"], last[0]["mean_ap"]) == (0.3, 0.65, 0.15)
            assert (last[0]["client_name"], last[0]["model"]) == ("viper", "global")
        else:
            assert (last[0]["loss"], last[0]["weight"], last[0]["steps"]) == (2.0, 799.0, 25)


def test_latex_has_the_tables_figures_and_escapes_names(folder, tmp_path):
    uniform = '[aggregation]\nweights = "uniform"\n'
    more = runs.write_run(tmp_path / "more", (0.1, 0.2), name="50%_e&5", seed=0, more=uniform)
    path = tmp_path / "t.tex"
    assert fedreid(["results", "export", str(folder), str(more), "-o", str(path)]) == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    assert r"method & viper & market & mean of 2 \\" in lines
    assert r"50\%\_e\&5 & 20.0 & 10.0 & 15.0 \\" in lines
    assert any(
        line.startswith(r"cdw & \textbf{39.0 $\pm$ 1.4} & \textbf{53.0 $\pm$ 2.8} & ") for line in lines
    )
    assert any(line.startswith(r"fedpav & \underline{26.0 $\pm$ 4.0} & ") for line in lines)
    assert lines[2].startswith("% Bold: the highest; underlined: not clearly below it")
    assert (lines[3], lines[-1]) == (r"\begin{tabular}{lrrr}", r"\end{tabular}")


def test_all_metrics_stand_in_one_table_of_latex(folder, tmp_path, capsys):
    path = tmp_path / "t.tex"
    metrics = [word for metric in ("rank-1", "mAP", "mINP") for word in ("--metric", metric)]
    assert fedreid(["results", "compare", str(folder), *metrics, "--latex", str(path)]) == 0
    means = rows_of(capsys.readouterr().out, "mean of 2 datasets in percent, global models, round 2")
    assert means["fedpav"][:2] == ["39.0 ± 1.0", "19.5 ± 0.5"]
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = lines.index(r"\begin{tabular}{lrrrrrrrrr}")
    assert lines[begin + 2] == (
        r" & \multicolumn{3}{c}{viper} & \multicolumn{3}{c}{market} & \multicolumn{3}{c}{mean of 2} \\"
    )
    assert lines[begin + 3] == r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}"
    assert lines[begin + 4] == "method" + " & rank-1 & mAP & mINP" * 3 + r" \\"
    assert [line.partition(" &")[0] for line in lines[begin + 6 : begin + 8]] == ["fedpav", "cdw"]


def test_a_narrow_terminal_lists_paths_in_one_piece(folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert fedreid(["results", "list", str(folder)]) == 0
    table, *paths = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).rpartition("\n  1  ")
    assert max(map(len, table.splitlines())) <= 80
    assert f"{folder}/cdw-seed0, written 20" in "".join(paths)


def fields(data):
    """The fields of a protocol buffer, as (number, value)."""
    place, found = 0, []

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            found.append((key >> 3, varint()))
            continue
        size = varint() if key & 7 == 2 else size
        found.append((key >> 3, data[place : place + size]))
        place += size
    return found


def test_tensorboard_gets_every_curve(folder, tmp_path):
    arguments = ["--where", "run.seed=0", "--format", "tensorboard", "-o", str(tmp_path / "tb")]
    assert fedreid(["results", "export", str(folder), *arguments]) == 0
    assert sorted(each.name for each in (tmp_path / "tb").iterdir()) == ["cdw-seed0", "fedpav-seed0"]
    data = (tmp_path / "tb" / "fedpav-seed0" / FILE_NAME).read_bytes()
    events = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(dict(fields(data[12 : 12 + length])))
        data = data[16 + length :]
    assert events[0][3] == b"brain.Event:2"
    assert [event.get(2, 0) for event in events[1:]] == [0, 1, 2]
    assert [struct.unpack("<d", event[1])[0] for event in events[1:]] == [2.0, 5.0, 9.0]
    values = [dict(fields(value)) for _, value in fields(events[-1][5])]
    scalars = {value[1].decode(): struct.unpack("<f", value[2])[0] for value in values}
    assert scalars["rank-1 global/viper"] == pytest.approx(0.30)
    assert scalars["mAP global/market"] == pytest.approx(0.25)
    assert scalars["loss/viper"] == pytest.approx(2.0)
    assert scalars["weight/market"] == 800.0


def test_exports_that_cannot_be_are_refused(folder, tmp_path, capsys):
    arguments = ["results", "export", str(folder), "-o"]
    assert fedreid([*arguments, str(tmp_path / "t.xlsx")]) == 2
    assert "expected .csv, .parquet or .tex, or --format" in capsys.readouterr().err
    for ending in ("csv", "parquet", "tex"):
        assert fedreid([*arguments, str(tmp_path / "none" / f"t.{ending}")]) == 1
        assert f"t.{ending}: cannot be written: " in capsys.readouterr().err


def test_means_over_a_datasets_clients():
    datasets = datasets_of(runs.CAMERAS, BY_CAMERA)
    assert datasets == (HeldDataset("market", (0, 1), 90), HeldDataset("viper", (2,), 60))
    assert [dataset.name for dataset in datasets_of(runs.SITES, {})] == ["market", "viper"]
    values = np.array([[0.1, 0.2, np.nan], [0.1, 0.4, np.nan], [0.7, np.nan, 0.5]])
    np.testing.assert_allclose(mean_over_clients(values, datasets), [[0.1, 0.3, np.nan], [0.7, np.nan, 0.5]])
    assert mean_over_clients(values, datasets)[0, 0] == 0.1  # of equal values to the bit


@pytest.fixture(scope="module")
def cameras(tmp_path_factory):
    """A run by cameras; those of one dataset are in different groups."""
    folder = tmp_path_factory.mktemp("cameras")
    writer = ResultsWriter(
        folder, runs.header(clients=runs.CAMERAS, rounds=1, more='[federation]\nclients = "camera"\n')
    )
    final = {
        ModelKind.GLOBAL: (0.60, 0.40, 0.20),
        ModelKind.LOCAL: (0.30, 0.10, 0.30),
        ModelKind.REESTIMATED: (0.62, 0.62, 0.25),
    }
    writer.write(runs.record(1, final, groups={0: 0, 1: 1, 2: 0}))
    return folder


def test_cameras_are_shown_by_dataset(cameras, tmp_path, capsys):
    table = score_table(read_run(cameras))
    assert (table.clients, table.groups) == ((2, 1), ((0, 1), (0,)))
    assert list(table.scores) == [Column.GLOBAL, Column.REESTIMATED, Column.LOCAL]
    np.testing.assert_allclose([scores[:, 0] for scores in table.scores.values()],
                               [[0.5, 0.2], [0.62, 0.25], [0.2, 0.3]])  # fmt: skip
    assert fedreid(["results", "show", str(cameras), "--plots", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    market = "market 2 0 1 50.0 75.0 25.0 62.0 81.0 31.0 20.0 60.0 10.0"
    means = "mean 35.0 67.5 17.5 43.5 71.8 21.8 25.0 62.5 12.5"
    assert market.split() in lines
    assert means.split() in lines


def test_a_sparkline_spans_its_values():
    assert sparkline([0.0, 1.0, np.nan, 2.0]) == "▁▅ █"
    assert sparkline([5.0, 10.0], least=0) == "▅█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == sparkline([np.nan]) == ""
    assert len(sparkline(list(range(300)))) <= 20
    assert sparkline(list(range(300)))[-1] == "█"


def test_a_run_is_watched_until_its_job_ends(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()

    def job():
        write_status(folder, Status("running", round=0, rounds=2, attempt=1))
        runs.write_run(folder)
        write_status(folder, Status("done", round=2, rounds=2, attempt=1))

    thread = threading.Thread(target=job)
    thread.start()
    code = fedreid(["results", "watch", str(folder), "--every", "0.1"])
    thread.join()
    assert code == 0
    output = capsys.readouterr().out
    assert "fedpav · seed 0 · done · round 2/2" in output
    assert re.search(r"viper +25\.0 +▁▅█ +12\.5 +▁▅█", output)
    assert "training loss 1.500" in output


def test_watching_once_and_what_cannot_be_watched(folder, tmp_path, capsys):
    assert fedreid(["results", "watch", "--once", str(folder / "cdw-seed0")]) == 0
    assert "state unknown · round 2/2" in capsys.readouterr().out
    assert fedreid(["results", "watch", str(folder / "cdw-seed0")]) == 0  # all rounds are there: it ends
    for arguments in ([str(tmp_path), "--once"], [str(tmp_path / "none")]):
        assert fedreid(["results", "watch", *arguments]) == 3
        assert re.fullmatch("fedreid-mpi: error: .*\n", capsys.readouterr().err)
