"""The paper's tables from made-up runs, against figures worked out by hand."""

import csv
import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.appendix import bytes_sent
from fedreid_mpi.report.loading import load_study
from fedreid_mpi.report.paper import groups, table_3, table_4
from fedreid_mpi.report.terms import DATASETS, column, term
from fedreid_mpi.report.values import best_rows, common_rounds, compare, fluctuation
from support.made_up import write_run

SITES = {"viper": 60, "Market-1501": 1200}  # the paper has them the other way round
ROUNDS = 4
COSINE = {"aggregation": {"weights": "cosine-distance"}}

# Rank-1 of seeds 0, 1 and 2 after the last round: VIPeR, Market-1501.
STANDALONE = ((0.40, 0.60), (0.50, 0.60), (0.42, 0.66))
FEDPAV_GLOBAL = ((0.60, 0.50), (0.64, 0.52), (0.62, 0.54))
FEDPAV_LOCAL = ((0.66, 0.58), (0.70, 0.60), (0.70, 0.62))  # minus standalone: 26, 20, 28 and -2, 0, -4
CDW_LOCAL = ((0.70, 0.63), (0.78, 0.64), (0.71, 0.69))  # 30, 28, 29 and 3, 4, 3


def scores(of_kind, share=lambda round, kind: round / ROUNDS, every=1):
    """Rank-1 of each kind of model that is there, a share of its last by round."""

    def rank1(round, dataset, kind):
        last = of_kind.get(kind)
        if last is None or round % every:
            return None
        return last[dataset] * share(round, kind)

    return rank1


def best_apart(round, kind):
    """The global model is at its best from round 1 on, the local ones from round 2."""
    early = {ModelKind.GLOBAL: (0, 1, 0.9, 0.8, 0.7), ModelKind.LOCAL: (0, 0.5, 0.8, 1, 0.9)}
    return early[kind][round]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for seed in range(3):
        local = {ModelKind.LOCAL: STANDALONE[seed]}
        write_run(folder, "alone", seed, scores(local), SITES, federation={"mode": "local"})
        both = {ModelKind.GLOBAL: FEDPAV_GLOBAL[seed], ModelKind.LOCAL: FEDPAV_LOCAL[seed]}
        write_run(folder, "fedpav", seed, scores(both), SITES)
        cdw = {ModelKind.GLOBAL: (0.5, 0.5), ModelKind.LOCAL: CDW_LOCAL[seed]}
        write_run(folder, "cosine", seed, scores(cdw, every=2), SITES, **COSINE)
    pool = {ModelKind.GLOBAL: (0.8, 0.9)}
    write_run(folder, "pool", 0, scores(pool), SITES, federation={"mode": "centralised"})
    return folder


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert fedreid(["results", "report", str(study), "-o", str(folder)]) == 0
    return folder


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def test_table_3_has_the_papers_rows_and_columns(report):
    rows = read_csv(report / "table-3-rank-1.csv")
    assert list(rows) == [
        *("centralised (pool)", "standalone (alone)", "FedPav, global model", "FedPav, local models"),
    ]
    heading = [name for name in next(iter(rows.values())) if ":" not in name]
    assert heading == ["method", "Market-1501", "viper", "mean of 2", "mean of 1 large", "mean of 1 small"]
    assert float(rows["centralised (pool)"]["Market-1501"]) == pytest.approx(90)
    assert float(rows["standalone (alone)"]["viper"]) == pytest.approx(44)
    assert float(rows["FedPav, global model"]["Market-1501"]) == pytest.approx(52)
    assert float(rows["FedPav, local models"]["viper"]) == pytest.approx(206 / 3)
    assert float(rows["FedPav, local models"]["viper: deviation"]) == pytest.approx(
        np.std([66, 70, 70], ddof=1)
    )
    mean_ap = read_csv(report / "table-3-map.csv")
    assert float(mean_ap["FedPav, global model"]["Market-1501"]) == pytest.approx(26)
    every = read_csv(report / "table-3-all-rank-1.csv")
    assert list(every)[4:] == ["CDW (cosine), global model", "CDW (cosine), local models"]


def test_table_4_is_local_models_minus_standalone_by_seed(report):
    rows = read_csv(report / "table-4-local-rank-1.csv")
    assert list(rows) == ["FedPav", "CDW (cosine)"]
    fedpav, cdw = rows.values()
    assert float(fedpav["viper"]) == pytest.approx((26 + 20 + 28) / 3, rel=1e-5)
    assert float(fedpav["viper: deviation"]) == pytest.approx(np.std([26, 20, 28], ddof=1), rel=1e-5)
    assert float(fedpav["Market-1501"]) == pytest.approx(-2)  # -2 ± 2: 4.303 × 2 / √3 is 4.97
    assert float(fedpav["Market-1501: 95 % interval ±"]) == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert (fedpav["Market-1501: clear"], fedpav["viper: clear"]) == ("no", "yes")
    assert (float(cdw["viper"]), float(cdw["Market-1501"])) == pytest.approx((29, 10 / 3), rel=1e-5)
    assert (cdw["viper: clear"], cdw["Market-1501: clear"]) == ("yes", "yes")  # 3.33 ± 1.43
    together = read_csv(report / "table-4-global-rank-1.csv")["FedPav"]
    assert float(together["viper"]) == pytest.approx((20 + 14 + 20) / 3, rel=1e-5)
    latex = (report / "table-4-local-rank-1.tex").read_text(encoding="utf-8")
    assert r"FedPav & $-$2.0 $\pm$ 2.0 & \textbf{+24.7 $\pm$ 4.2} & " in latex


def test_gains_in_words_and_what_is_missing(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert page.index('id="table-3"') < page.index('id="table-4"') < page.index('id="open"')
    assert page.index('id="open"') < page.index("Table 2: one dataset, by camera and by identity</dt>")
    assert (
        "CDW (cosine), local models: clearly above standalone on 2 of 2 datasets, clearly below on 0" in page
    )
    assert "FedPav, local models: clearly above standalone on 1 of 2 datasets, clearly below on 0" in page
    assert "add FedNova (aggregation.rule = &quot;fednova&quot;); FedProx (" in page
    assert "Evaluated rounds differ: pool 4, alone 4, fedpav 4, cosine 2. Only the 2 that all have" in page
    assert "<td><b>+24.7 ± 4.2</b></td>" in page


def test_the_terminal_shows_the_same_gains(study, capsys):
    arguments = [
        "results",
        "compare",
        str(study),
        "--metric",
        "rank-1",
        "--model",
        "local",
        "--against",
        "alone",
    ]
    assert fedreid(arguments) == 0
    output = capsys.readouterr().out
    table = output.partition("rank-1 minus alone, local models, round 4, by seed\n")[2]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[:9]]
    assert ["viper", "–", "+24.7 ± 4.2 *", "+29.0 ± 1.0 *"] in rows
    assert ["Market-1501", "–", "−2.0 ± 2.0", "+3.3 ± 0.6 *"] in rows
    assert fedreid(["results", "compare", str(study), "--round", "best"]) == 0
    output = capsys.readouterr().out
    assert output.index("rank-1 in percent, global models, best 2 of 2 rounds") < output.index("local models")
    assert "Note: Evaluated rounds differ: " in output


def test_the_best_three_are_chosen_by_the_model_that_is_reported(tmp_path):
    both = {ModelKind.GLOBAL: (0.5, 0.5), ModelKind.LOCAL: (0.6, 0.6)}
    write_run(tmp_path, "fedpav", 0, scores(both, best_apart), SITES)
    write_run(tmp_path, "cosine", 0, scores(both, best_apart, every=2), SITES, **COSINE)
    fedpav, cosine = load_study([tmp_path]).methods
    run = fedpav.runs[0]
    assert run.results.evaluations[best_rows(run)].tolist() == [1, 2, 3]
    assert run.results.evaluations[best_rows(run, ModelKind.LOCAL)].tolist() == [2, 3, 4]
    rounds = common_rounds([fedpav, cosine])
    assert rounds == [2, 4]  # round 0 is the untrained model
    assert run.results.evaluations[best_rows(run, None, rounds)].tolist() == [2, 4]
    for kind, expected in ((ModelKind.GLOBAL, 50 * 0.8), (ModelKind.LOCAL, 60 * 0.85)):
        sides = [(method.name, method, kind) for method in (fedpav, cosine)]
        compared = compare(sides, "best")
        assert compared.when == "best 2 of 2 rounds"
        assert [series.values[0][0] for series in compared.series] == pytest.approx([expected] * 2)


def test_steadiness_is_of_the_same_rounds(tmp_path):
    """Two runs with the same course are as steady as each other, however often each was scored."""
    course = (0, 3, 1, 5, 2, 8, 4, 9, 6, 12, 5, 13, 9)

    def rank1(every):
        return lambda round, dataset, kind: (
            course[round] / 100 if kind is ModelKind.GLOBAL and round % every == 0 else None
        )

    public = {"public": "cuhk02.h5"}
    write_run(tmp_path, "fedpav", 0, rank1(1), SITES, rounds=12)
    write_run(tmp_path, "kd", 0, rank1(2), SITES, rounds=12, data=public, distillation={"enabled": True})
    folder = tmp_path / "report"
    assert fedreid(["results", "report", str(tmp_path), "-o", str(folder)]) == 0
    rows = read_csv(folder / "4-fluctuation.csv")
    expected = fluctuation(np.array([1, 2, 4, 6, 5, 9.0]))
    for name, evaluated in (("fedpav", "12"), ("kd", "6")):
        assert rows[name]["evaluated rounds"] == evaluated
        assert float(rows[name]["fluctuation, rank-1"]) == pytest.approx(expected, rel=1e-5)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.search(r"over the same 6 evaluated rounds: [^<]*; difference 0\.0\.<", page)


def test_table_2_has_a_part_for_each_dataset(tmp_path):
    def rank1(last):
        return lambda round, dataset, kind: (
            last * round / ROUNDS if kind in (ModelKind.GLOBAL, ModelKind.LOCAL) else None
        )

    market, names = {"market1501": 1200}, {"viper": 60}
    write_run(tmp_path, "m-camera", 0, rank1(0.6), market, cameras=3, federation={"clients": "camera"})
    write_run(tmp_path, "m-pool", 0, rank1(0.8), market, federation={"mode": "centralised"})
    write_run(tmp_path, "v-identity", 0, rank1(0.4), names, cameras=2, federation={"clients": "identity"})
    folder = tmp_path / "report"
    assert fedreid(["results", "report", str(tmp_path), "-o", str(folder)]) == 0
    with (folder / "table-2.csv").open(encoding="utf-8", newline="") as file:
        rows = [[row[name] for name in ("dataset", "split", "clients", "models", "rank-10", "mAP")]
                for row in csv.DictReader(file)]  # fmt: skip
    assert rows == [
        ["market1501", "by camera", "3", "global models", "60", "30"],
        ["market1501", "by camera", "3", "local models", "60", "30"],
        ["market1501", "centralised", "1", "global models", "80", "40"],
        ["viper", "by identity", "2", "global models", "40", "20"],
        ["viper", "by identity", "2", "local models", "40", "20"],
    ]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "add market1501 by identity; viper by camera, centralised." in page


def test_table_5_has_global_models_on_datasets_that_nobody_trained_on(tmp_path):
    both = {ModelKind.GLOBAL: (0.5, 0.5), ModelKind.LOCAL: (0.6, 0.6)}
    public = {"data": {"public": "cuhk02.h5"}}
    for seed in range(2):
        kd = {"caviar4reid": lambda round, group, s=seed: 0.1 * round + 0.02 * s, "grid": lambda *_: 0.3}
        write_run(tmp_path, "kd", seed, scores(both, best_apart), SITES, unseen=kd, **public, **COSINE,
                  distillation={"enabled": True})  # fmt: skip
        cc = {"caviar4reid": lambda round, group, s=seed: 0.05 * round + 0.1 * group + 0.02 * s}
        write_run(tmp_path, "cc", seed, scores(both, best_apart), SITES, unseen=cc, **public, **COSINE,
                  clustering={"enabled": True}, groups=lambda round, client: client)  # fmt: skip
    write_run(tmp_path, "fedpav", 0, scores(both), SITES)
    folder = tmp_path / "report"
    assert fedreid(["results", "report", str(tmp_path), "-o", str(folder)]) == 0
    rows = read_csv(folder / "table-5-rank-1.csv")
    first, second = rows.values()  # the mean of two groups; KD & CDW
    assert (float(first["caviar4reid"]), first["grid"]) == (pytest.approx(20 + 5 + 1), "")
    assert (float(second["caviar4reid"]), float(second["grid"])) == pytest.approx((40 + 1, 30))
    best = list(read_csv(folder / "table-5-best-rank-1.csv").values())[1]
    assert float(best["caviar4reid"]) == pytest.approx(20 + 1)  # rounds 1, 2 and 3, by the clients' datasets
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "never by the unseen ones" in page
    assert "no figures of the same seed" not in page  # one of them was not scored on GRID
    table_5 = page.partition('id="table-5"')[2].partition("</section>")[0]
    assert 'class="missing"' not in table_5


def test_communication_is_counted_as_the_paper_counts_it(report):
    rows = read_csv(report / "c-communication.csv")
    fedpav = rows["fedpav"]
    assert fedpav["rounds T"] == "4"
    assert float(fedpav["M (MB)"]) == pytest.approx(0.004)  # 1,000 values of 4 bytes
    assert float(fedpav["T × 2 × M per client (MB)"]) == pytest.approx(4 * 2 * 0.004)
    assert float(fedpav["of all turns of clients (MB)"]) == pytest.approx(2 * 4 * 2 * 0.004)
    assert float(fedpav["travelled between ranks (MB)"]) == pytest.approx(4 * 15)
    assert rows["alone"]["T × 2 × M per client (MB)"] == ""


def test_control_variates_are_counted_with_the_model(tmp_path):
    write_run(tmp_path, "fedpav", 0, scores({ModelKind.GLOBAL: (0.5, 0.5)}), SITES)
    plain = bytes_sent(load_study([tmp_path]))
    write_run(
        tmp_path, "s", 0, scores({ModelKind.GLOBAL: (0.5, 0.5)}), SITES, aggregation={"rule": "scaffold"}
    )
    answer = bytes_sent(load_study([tmp_path]))
    rows = {row[0]: row[2:4] for row in answer.exhibits[0].rows}
    assert rows == {
        "fedpav": pytest.approx((0.004, 4 * 2 * 0.004)),
        "s": pytest.approx((0.008, 4 * 4 * 0.004)),
    }
    (said,) = set(answer.claims) - set(plain.claims)
    assert said.startswith("With SCAFFOLD control variates")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "FedPav"),
        ({"federation.mode": "local"}, "standalone"),
        ({"federation.mode": "centralised"}, "centralised"),
        ({"objective.proximal": 0.01, "aggregation.rule": "average"}, "FedProx"),
        ({"aggregation.rule": "fednova"}, "FedNova"),
        ({"clustering.enabled": True, "aggregation.weights": "cosine-distance"}, "CC & CDW"),
        ({"distillation.enabled": True, "aggregation.weights": "cosine-distance"}, "KD & CDW"),
        ({"server.optimizer": "adam", "distillation.enabled": False}, "FedAdam"),
    ],
)
def test_methods_are_known_by_their_configuration(settings, name):
    assert term(settings) == name


def test_datasets_are_in_the_papers_order_however_they_are_written():
    names = ["iLIDS", "new", "3dpes", "DukeMTMC-reID", "CUHK03-NP", "msmt17"]
    assert sorted(names, key=column) == ["msmt17", "DukeMTMC-reID", "CUHK03-NP", "3dpes", "iLIDS", "new"]
    assert column("new") == len(DATASETS)


def test_methods_come_in_the_order_of_their_suite_under_its_labels(tmp_path, capsys):
    alike = scores({ModelKind.GLOBAL: (0.5, 0.5)})
    for position, (name, label, sections) in enumerate(
        (("b", "Ours", COSINE), ("a", "", {}), ("c", "", {"federation": {"mode": "local"}}))
    ):
        run = {"run": {"position": position, "label": label}}
        write_run(tmp_path, name, 0, alike, SITES, **sections, **run)
    study = load_study([tmp_path])
    assert [method.name for method in study.methods] == ["Ours", "a", "c"]
    assert [method.titled for method in study.methods] == ["Ours", "FedPav (a)", "standalone (c)"]
    (group,) = groups(study)
    assert [method.name for method in group.methods] == ["c", "Ours", "a"]
    for wanted in ("Ours", "b"):  # by the label, or by the name that the suite gives it
        assert fedreid(["results", "compare", str(tmp_path), "--method", "a", "--against", wanted]) == 0
        printed = capsys.readouterr().out
        assert "rank-1 minus Ours" in printed
        assert "0.0" in printed


def test_a_baseline_fits_whatever_the_server_does(tmp_path):
    """Standalone has no server, so that its settings of one need not be those of the federated runs."""
    alike = scores({ModelKind.GLOBAL: (0.5, 0.5), ModelKind.LOCAL: (0.5, 0.5)})
    server = {"aggregation": {"bn": "local"}, "federation": {"clients_per_round": 1}}
    write_run(tmp_path, "fedbn", 0, alike, SITES, **server)
    write_run(tmp_path, "alone", 0, alike, SITES, federation={"mode": "local"})
    write_run(tmp_path, "fast", 0, alike, SITES, federation={"mode": "local"}, optimizer={"lr": 0.1})
    (group,) = groups(load_study([tmp_path]))
    assert [method.name for method in group.methods] == ["alone", "fedbn"]
    study = load_study([tmp_path / "fast-seed0"])
    assert table_3(study).missing.startswith("Not answerable: add centralised (")
    assert table_4(study).exhibits == ()


def test_a_study_of_before_is_shown_reported_and_collected(tmp_path, capsys):
    """Two methods of two seeds, written by the version of commit 2f2df15: FedPav and standalone."""
    golden = Path(__file__).parents[2] / "golden" / "study-2f2df15.h5.gz"
    with gzip.open(golden) as packed, (tmp_path / "old.h5").open("wb") as file:
        shutil.copyfileobj(packed, file)
    old, report, new = (str(tmp_path / name) for name in ("old.h5", "report", "new.h5"))
    assert fedreid(["results", "report", old, "-o", report]) == 0
    rows = read_csv(tmp_path / "report" / "table-4-local-rank-1.csv")
    assert float(rows["FedPav"]["viper"]) == pytest.approx(100 * (0.61 - 0.4))
    assert float(rows["FedPav"]["market1501"]) == pytest.approx(100 * (0.5 - 0.51))
    assert fedreid(["results", "collect", old, "-o", new]) == 0
    assert fedreid(["results", "show", f"{new}/fedpav-seed1", "--plots", str(tmp_path / "plots")]) == 0
    assert re.search(r"viper +0.0 +0.0 +0.0 +52.0 +52.0 +26.0 +62.0", capsys.readouterr().out)


def test_methods_that_share_nothing_are_not_compared(study, tmp_path, capsys):
    alike = scores({ModelKind.GLOBAL: (0.5,)})
    write_run(tmp_path, "apart", 0, alike, {"cuhk01": 300})
    arguments = ["results", "compare", str(study), str(tmp_path)]
    assert fedreid(arguments) == 2
    told = capsys.readouterr().err
    assert "no dataset is tested by every method (" in told
    assert "apart: cuhk01" in told
    assert fedreid([*arguments, "--method", "fedpav", "--method", "cosine", "--against", "alone"]) == 0
    assert "apart" not in capsys.readouterr().out
    assert fedreid([*arguments, "--method", "fedprox"]) == 2
    assert "--method fedprox: no such method, expected one of " in capsys.readouterr().err


def test_figure_2_is_at_as_many_epochs(tmp_path):
    early = {ModelKind.GLOBAL: (0.4, 0.4)}
    write_run(tmp_path, "fedpav", 0, scores(early), SITES)
    write_run(tmp_path, "b64", 0, scores(early), SITES, federation={"batch_size": 64})
    double = scores({ModelKind.GLOBAL: (0.3, 0.3)}, lambda round, kind: round / 2)
    twice = {"federation": {"local_epochs": 2}, "run": {"label": "E = 2"}}
    write_run(tmp_path, "e2", 0, double, SITES, rounds=2, **twice)
    folder = tmp_path / "report"
    assert fedreid(["results", "report", str(tmp_path), "-o", str(folder)]) == 0
    rows = read_csv(folder / "figure-2-local-epochs-rank-1.csv")
    assert {name: float(row["viper"]) for name, row in rows.items()} == {"E = 1 (fedpav)": 40, "E = 2": 30}
    assert list(read_csv(folder / "figure-2-batch-size-rank-1.csv")) == ["B = 32 (fedpav)", "B = 64 (b64)"]
