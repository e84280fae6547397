import csv
import math
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.records import Event, ModelKind
from fedreid_mpi.report.charts import Grid, draw_shares
from fedreid_mpi.report.findings import differences_in_words
from fedreid_mpi.report.highest import Mark, marks, meaning
from fedreid_mpi.report.loading import load_study
from fedreid_mpi.report.page import make_report
from fedreid_mpi.report.style import STYLE, legend_below, small_multiples
from fedreid_mpi.report.tables import Picture, Table, to_csv, to_html, to_latex
from fedreid_mpi.report.values import Comparison, Series, Spread, best_rows, fluctuation, weight_shares
from support.made_up import write_run

pytestmark = pytest.mark.slow

SITES = {"market1501": 1200, "viper": 60}
FEDPAV = {0: (0.50, 0.60), 1: (0.52, 0.64), 2: (0.54, 0.62)}
LOCAL = {0: (0.60, 0.40), 1: (0.60, 0.50), 2: (0.66, 0.42)}  # FedPav less local: -10, -8, -12 and 20, 14, 20
PUBLIC = {"public": "cuhk02.h5"}
ROUNDS = 4


def rising(final, mode="federated", step=0.0, rounds=ROUNDS):
    """Rank-1 rises evenly to its final value; with a step the server's changes it by that much."""

    def rank1(round, dataset, kind):
        value = final[dataset] * round / rounds
        if kind is (ModelKind.LOCAL if mode == "local" and round else ModelKind.GLOBAL):
            return value
        return value - step if step and round and kind is ModelKind.AGGREGATED else None

    return rank1


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for seed in range(3):
        write_run(folder, "fedpav", seed, rising(FEDPAV[seed]), SITES)
        alone = rising(LOCAL[seed], "local")
        write_run(folder, "local", seed, alone, SITES, federation={"mode": "local"})
    lower = rising((0.30, 0.30))
    write_run(folder, "camera", 0, lower, SITES, cameras=3, federation={"clients": "camera"},
              events=(Event(1, "rank lost", "rank 4 of <node2>"),))  # fmt: skip
    two = rising((0.25, 0.28), rounds=2)
    write_run(folder, "epochs_2", 0, two, SITES, rounds=2, federation={"local_epochs": 2})
    distilled = rising((0.55, 0.65), step=0.02)
    write_run(folder, "distilled", 0, distilled, SITES, data=PUBLIC, distillation={"enabled": True})
    alike = rising(FEDPAV[1])
    write_run(folder, "grouped", 1, alike, SITES, data=PUBLIC, clustering={"enabled": True},
              groups=lambda round, client: client if round > 2 else 0)  # fmt: skip
    cosine = {"aggregation": {"weights": "cosine-distance"}}
    write_run(folder, "cosine", 1, alike, SITES, weights=lambda round, client: 3.0 - 2 * client, **cosine)
    together = {"data": PUBLIC, "distillation": {"enabled": True}, "clustering": {"enabled": True}, **cosine}
    write_run(folder, "together", 1, rising((0.51, 0.66), step=0.01), SITES, groups=lambda *_: 0, **together)
    return folder


@pytest.fixture(scope="module")
def report(study):
    assert fedreid(["results", "report", str(study)]) == 0  # as a study's last line says
    return study / "report"


@pytest.fixture(scope="module")
def page(report):
    return (report / "index.html").read_text(encoding="utf-8")


def read_csv(path):
    """Rows by their first cell, as dictionaries by heading."""
    with path.open(encoding="utf-8", newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def figures(row, heading):
    return tuple(float(row[heading + part] or "nan") for part in ("", ": deviation", ": seeds"))


def test_federated_against_local(report, page):
    rows = read_csv(report / "2-modes-rank-1.csv")
    assert list(rows) == ["market1501", "viper", "mean of 2", "mean of 1 large", "mean of 1 small"]
    assert figures(rows["market1501"], "fedpav") == pytest.approx((52, 2, 3))
    assert figures(rows["viper"], "local") == pytest.approx((44, np.std([40, 50, 42], ddof=1), 3), rel=1e-5)
    assert figures(rows["market1501"], "fedpav − local") == pytest.approx((-10, 2, 3))
    assert figures(rows["viper"], "fedpav − local") == pytest.approx((18, math.sqrt(12), 3), rel=1e-5)
    assert figures(rows["mean of 2"], "fedpav − local") == pytest.approx((4, 1, 3))  # 5, 3, 4
    assert figures(read_csv(report / "2-modes-map.csv")["viper"], "fedpav")[0] == pytest.approx(31)
    assert (
        "fedpav minus local (rank-1, round 4): mean of 2 +4.0 ± 1.0 (+1.5 to +6.5), mean of 1 large "
        "−10.0 ± 2.0 (−15.0 to −5.0), mean of 1 small +18.0 ± 3.5 (+9.4 to +26.6). "
        "Clearly higher: viper +18.0. Clearly lower: market1501 −10.0."
    ) in page  # 4.303 / √3 deviations
    assert "No comparable run has federation.mode = &quot;centralised&quot;." in page


def test_same_rounds_and_same_epochs(report, page):
    rounds = read_csv(report / "3-same-rounds-rank-1.csv")["market1501"]
    assert figures(rounds, "fedpav") == pytest.approx((26, 1, 3))  # half way
    assert figures(rounds, "epochs_2")[0] == pytest.approx(25)
    assert figures(rounds, "epochs_2 − fedpav")[0] == pytest.approx(0)  # of seed 0 alone: 25 - 25
    epochs = read_csv(report / "3-same-epochs-rank-1.csv")["viper"]
    assert figures(epochs, "fedpav") == pytest.approx((62, 2, 3))
    assert figures(epochs, "epochs_2 − fedpav")[0] == pytest.approx(28 - 60)
    assert "Only one seed: no spread is known." in page
    assert "two methods that differ in federation.batch_size alone" in page


def test_what_the_optimisations_show(report, page):
    assert figures(read_csv(report / "4-fluctuation.csv")["fedpav"], "last mean rank-1")[0] == pytest.approx(
        57
    )
    assert (
        "distilled: the server&#x27;s step changes the mean rank-1 by +2.0, averaged over 4 rounds." in page
    )
    assert "distilled: the student&#x27;s mean loss is 0.5 in round 1 and 0.125 in round 4." in page
    assert "grouped: 1.5 clusters per round; 1.0 in round 1, 2.0 in round 4." in page
    assert "grouped, seed 1, last round: market1501; viper." in page
    shares = read_csv(report / "6-shares.csv")
    assert float(shares["viper"]["fedpav"]) == pytest.approx(100 * 60 / 1260, rel=1e-5)
    assert float(shares["viper"]["cosine"]) == pytest.approx(25)
    assert "market1501 loses the most weight (95.2 % → 75.0 %), viper gains the most (4.8 % → 25.0 %)" in page
    seven = read_csv(report / "7-combinations-rank-1.csv")["viper"]
    assert figures(seven, "together − fedpav")[0] == pytest.approx(66 - 64)


def test_both_choices_of_round(report, page):
    chosen = read_csv(report / "a-choice.csv")["fedpav"]
    assert figures(chosen, "last: mean of all")[0] == pytest.approx(57)
    assert figures(chosen, "best three: mean of all")[0] == pytest.approx(57 * 0.75)  # rounds 2, 3 and 4
    assert figures(chosen, "best three: mean of large")[0] == pytest.approx(52 * 0.75)
    assert (chosen["models"], chosen["chosen from"]) == ("global", "4")
    assert chosen["best three rounds, by seed"] == "2, 3, 4; 2, 3, 4; 2, 3, 4"
    assert read_csv(report / "a-choice.csv")["local"]["models"] == "standalone"
    assert "Choosing rounds by test data favours the best three." in page
    assert "above the last round for 0 of 8 models." in page  # all rise to the last


def test_the_page_opens_with_settings_and_one_table_of_all_methods(report, page):
    box = page.partition("<dl>")[2].partition("</dl>")[0]
    assert "<dt>Runs</dt><dd>12 of 8 methods, seeds 0, 1, 2</dd>" in box
    assert "<dt>Rounds</dt><dd>T = 4; FedPav (epochs_2): T = 2</dd>" in box
    assert "batch size B = 32, E = 1, learning rate 0.05; FedPav (epochs_2): E = 2<" in box
    assert "<dt>Program</dt><dd>fedreid_mpi 0.1.0</dd>" in box
    assert (
        page.index("</dl>") < page.index('id="main"') < page.index('id="table-3"') < page.index('id="open"')
    )
    main = read_csv(report / "main.csv")
    fedpav, alone = main["FedPav"], main["standalone (local)"]
    assert (fedpav["round"], main["FedPav (epochs_2)"]["round"]) == ("4", "2")  # each after its own last
    assert figures(fedpav, "global models: rank-1")[0] == pytest.approx((55 + 58 + 58) / 3)
    assert figures(alone, "local models: mINP")[0] == pytest.approx((50 + 55 + 54) / 3 / 4)
    assert math.isnan(figures(alone, "global models: mAP")[0])
    assert "versions" not in (report / "e-runs.csv").read_text(encoding="utf-8")  # all runs have the same


def test_no_words_of_a_figure_are_cut_off(study):
    """Of a heat map with a single row too, whose scale of colours has a label beside it."""
    answers = make_report(load_study([study]))
    exhibits = [
        each for part in (answers.answered, answers.appendices) for one in part for each in one.exhibits
    ]
    figures = {each.name: each.figure for each in exhibits if isinstance(each, Picture)}
    assert len(figures) > 15
    with matplotlib.rc_context(STYLE):
        narrow = draw_shares([Grid("", np.array([[1.5]]), ("viper",), ("a-long-name",))], "seconds per round")
        for name, figure in {**figures, "narrow": narrow}.items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            paper = figure.bbox.padded(2)
            for words in figure.findobj(Text):
                drawn = words.get_visible() and (words.axes is None or words.axes.get_visible())
                if drawn and re.search("[a-z]", words.get_text()):  # ticks outside of the axes are not drawn
                    box = words.get_tightbbox(canvas.get_renderer())
                    assert paper.x0 <= box.x0 < box.x1 <= paper.x1, (name, words.get_text())
                    assert paper.y0 <= box.y0 < box.y1 <= paper.y1, (name, words.get_text())


def test_heat_maps_write_all_values_alike():
    figure = draw_shares([Grid("", np.array([[0.95, 1.4], [-0.001, np.nan]]), ("a", "b"), ("c", "d"))], "x")
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["0.95", "1.40", "0.00"]
    assert min(text.get_fontsize() for text in figure.axes[0].texts) >= 7


def test_legends_are_read_row_by_row():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    for name in "abcde":
        axes.plot([0, 1], label=name * 10)
    legend_below(figure, [axes])
    (legend,) = figure.legends
    shown = [text.get_text()[0] for text in legend.get_texts()]
    assert legend._ncols == 2  # which matplotlib fills one after the other
    assert shown == ["a", "c", "e", "b", "d"]


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (6, 2, 3), (13, 3, 5), (15, 3, 5), (16, 4, 4)]
)
def test_panels_make_a_rectangle_and_name_their_axes(count, rows, columns):
    _, panels = small_multiples([str(n) for n in range(count)], "round", "mAP (%)", 5, (2, 2))
    grid = panels[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    assert [n for n, axes in enumerate(panels) if axes.get_ylabel()] == list(range(0, count, columns))
    assert all(axes.get_xlabel() == "round" for axes in panels[(rows - 1) * columns :])


def test_highest_and_what_is_not_clearly_below_it():
    best = Series("a", {0: np.array([50.0, 9]), 1: np.array([52.0, 9]), 2: np.array([54.0, 9])})
    near = Series("b", {0: np.array([49.0, 9.04]), 1: np.array([53.0, 8]), 2: np.array([51.0, 10])})
    far = Series("c", {0: np.array([40.0, 1]), 1: np.array([42.5, 1]), 2: np.array([44.0, 1])})
    none = Series("d", {0: np.array([np.nan, 2])})
    # a - b: 1, -1, 3: 1 ± 4.303 · 2 / √3; a - c: 10, 9.5, 10: clear. In the second a and b are 9.0 both, to
    # the decimal shown, c is clearly below, and d has one seed alone, of which nothing is known.
    assert marks([best, near, far, none]) == {
        (0, 1): Mark.HIGHEST, (1, 1): Mark.CLOSE,
        (0, 2): Mark.HIGHEST, (1, 2): Mark.HIGHEST,
    }  # fmt: skip
    assert marks([best]) == {}
    assert meaning([], False) == ""
    assert meaning([Mark.HIGHEST], False) == "Bold: the highest."


def test_a_tie_is_neither_higher_nor_lower():
    one, other = Series("a", {0: np.array([50.0, 40])}), Series("b", {0: np.array([50.0, 39.98])})
    (words,) = differences_in_words(Comparison(("viper", "grid"), 2, (one, other), "round 4", "rank-1"))
    assert words.endswith("round 4): The same: viper 0.0, grid 0.0. Only one seed: no spread is known.")


def test_costs_events_and_runs(report, page):
    phases = read_csv(report / "b-phases.csv")["fedpav"]
    assert phases == {"method": "fedpav", "train": "8", "aggregate": "1", "evaluate": "4", "all": "13"}
    sent = read_csv(report / "c-kinds.csv")["fedpav"]
    assert sent == {"method": "fedpav", "models": "14", "features": "1", "all": "15"}
    assert "rank 4 of &lt;node2&gt;" in page
    runs = list(csv.DictReader((report / "e-runs.csv").open(encoding="utf-8")))
    assert len(runs) == 12
    assert (runs[0]["run"], runs[0]["rounds"], runs[0]["seconds"]) == ("camera", "4 of 4", "54")
    assert read_csv(report / "e-settings.csv")["federation.local_epochs"]["epochs_2"] == "2"


def test_the_page_stands_alone_and_is_well_formed(page):
    references = re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?([^"'\s)>]+)""", page)
    assert references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in references)
    assert not re.search("https?:|<script|@import|<link", page)

    class Nesting(HTMLParser):
        open: tuple[str, ...] = ()
        ids: tuple[str, ...] = ()

        def handle_starttag(self, tag, attrs):
            self.ids += tuple(value for name, value in attrs if name == "id")
            if tag not in ("meta", "img"):
                self.open += (tag,)

        def handle_endtag(self, tag):
            assert self.open[-1] == tag
            self.open = self.open[:-1]

    nesting = Nesting()
    nesting.feed(page)
    assert not nesting.open
    assert {reference[1:] for reference in references if reference[0] == "#"} == set(nesting.ids)


def test_latex_is_balanced_and_escaped(report):
    files = sorted(report.glob("*.tex"))
    assert {path.stem for path in files} == {path.stem for path in report.glob("*.csv")}
    for path in files:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("%")]
        alignment = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])[1]
        assert lines[-1] == r"\end{tabular}"
        for line in lines[1:-1]:
            if line in (r"\toprule", r"\midrule", r"\bottomrule") or line.startswith(r"\cmidrule(lr)"):
                continue
            assert line.endswith(r" \\")
            spanned = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + spanned == len(alignment) - 1
            assert not re.search(r"(?<!\\)[%#_]|[^\x00-\x7f]", line)
            assert line.count("$") % 2 == 0
    assert r"epochs\_2" in (report / "3-same-rounds-rank-1.tex").read_text(encoding="utf-8")


def test_every_figure_shows_something(report):
    files = sorted(report.glob("*.png"))
    assert len(files) > 15
    for path in files:
        pixels = matplotlib.image.imread(path)
        ink = (pixels[..., :3] < 0.9).any(axis=-1)
        assert min(pixels.shape[:2]) > 150, path.name
        assert 0.005 < ink.mean() < 0.9, path.name


def test_a_lone_run_says_what_is_missing(study, tmp_path):
    assert fedreid(["results", "report", str(study / "camera-seed0"), "-o", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.index('id="main"') < page.index("Not answered</h2>") < page.index('id="choice"')
    unanswered = page.partition("Not answered</h2>")[2].partition("</section>")[0]
    assert unanswered.count("<dt>") + page.count('class="missing"') == 13
    assert "Not answerable: add standalone (federation.mode = &quot;local&quot;); FedNova (" in page
    assert "Not answerable: add two methods that differ in distillation alone." in page
    assert "methods that differ in federation.mode alone (local, federated, centralised)" in page
    assert "a method with two optimisations and one with none of them, otherwise equal" in page
    assert "±" not in page.replace("<li>± is", "").replace("whiskers ± deviation", "")


def test_what_does_not_fit_is_told(tmp_path, study):
    (tmp_path / "again").mkdir()
    write_run(tmp_path, "fedpav", 0, rising(FEDPAV[0]), SITES, commit="aaa")
    write_run(tmp_path, "fedpav", 1, rising(FEDPAV[1]), SITES, played=2)
    write_run(tmp_path / "again", "fedpav", 0, rising(FEDPAV[0]), SITES, commit="bbb")
    write_run(tmp_path / "again", "fedpav", 1, rising(FEDPAV[1]), SITES, optimizer={"lr": 0.1})
    found = load_study([tmp_path, tmp_path / "again"])
    assert [(method.name, len(method.runs)) for method in found.methods] == [
        ("fedpav", 1),
        ("fedpav (2)", 1),
        ("fedpav (3)", 1),
    ]
    assert found.warnings == (
        "fedpav, seed 1 (fedpav-seed1) has 2 of 4 rounds: left out of all answers.",
        "Runs named fedpav differ in more than the seed (optimizer.lr): shown as two methods.",
        "Runs named fedpav differ in more than the seed (code): shown as two methods.",
        "The runs are of different code: see the table of runs.",
    )


def test_only_runs_of_one_name_code_and_scores_are_repetitions(tmp_path, capsys):
    """Settings and seed of all five agree."""
    runs = {
        "first": {},
        "repetition": {},
        "other-scores": {"rank1": rising((0.9, 0.9))},
        "other-code": {"source": "d1"},
        "other-name": {"name": "mine", "source": "d2"},
    }
    for folder, changes in runs.items():
        plain = {"name": "fedpav", "rank1": rising(FEDPAV[0]), "source": "d0"}
        write_run(tmp_path / folder, seed=0, datasets=SITES, commit="aaa", **(plain | changes))
    found = load_study([tmp_path / folder for folder in runs])
    places = {method.name: [run.folder.parent.name for run in method.runs] for method in found.methods}
    assert places == {
        "fedpav": ["first"],
        "fedpav (2)": ["other-scores"],
        "fedpav (3)": ["other-code"],
        "mine": ["other-name"],
    }
    assert found.warnings == (
        "fedpav, seed 0 (fedpav-seed0) repeats fedpav, seed 0 (fedpav-seed0): left out.",
        "Runs named fedpav differ in more than the seed (scores): shown as two methods.",
        "Runs named fedpav differ in more than the seed (code): shown as two methods.",
        "mine differs from fedpav in name and code alone: shown as two methods.",
        "The runs are of different code: see the table of runs.",
    )
    assert fedreid(["results", "compare", str(tmp_path), "--metric", "rank-1"]) == 0
    heading = next(line for line in capsys.readouterr().out.splitlines() if "fedpav (3)" in line)
    assert heading.split() == ["fedpav", "fedpav", "(2)", "fedpav", "(3)", "mine"]


def test_a_study_file_is_read_like_the_folder_of_its_runs(study, tmp_path):
    assert fedreid(["results", "collect", str(study), "-o", str(tmp_path / "study.h5")]) == 0
    folder, file = load_study([study]), load_study([tmp_path / "study.h5"])
    assert [str(method) for method in file.methods] == [str(method) for method in folder.methods]
    assert len(file.methods) > 5
    for one, other in zip(folder.methods, file.methods, strict=True):
        for mine, same in zip(one.runs, other.runs, strict=True):
            assert same.folder.name == mine.folder.name
            np.testing.assert_array_equal(same.scores(), mine.scores())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{missing}", "-o", "{new}"], 3, "no such run directory or results file"),
        (["{study}", "{empty}", "-o", "{new}"], 3, "no such run, or a folder without results"),
        (["{damaged}", "-o", "{new}"], 3, "not an HDF5 file"),
        (["{study}/camera-seed0", "-o", "{file}"], 2, "the report cannot be written"),
    ],
)
def test_refusals_are_one_line(study, capsys, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results_001_001.h5").write_bytes(b"no HDF5")
    paths = {name: tmp_path / name for name in ("missing", "new", "empty", "file", "damaged")}
    words = [argument.format_map({**paths, "study": study}) for argument in arguments]
    assert fedreid(["results", "report", *words]) == code
    error = capsys.readouterr().err
    assert re.fullmatch(r"fedreid-mpi: error: .*\n", error)
    assert message in error
    assert not (tmp_path / "new").exists()


def test_spread():
    assert str(Spread.of([1.0, 3.0, np.nan])) == "2.0 ± 1.4"
    assert (str(Spread.of([2.0])), str(Spread.of([]))) == ("2.0", "–")
    difference = Spread.of([-1.0, -2.0, 0.5], signed=True)
    assert (str(difference), difference.clear) == ("−0.8 ± 1.3", False)
    assert math.isnan(Spread.of([5.0], signed=True).margin)
    assert not Spread.of([5.0], signed=True).clear


@pytest.mark.parametrize(
    ("seeds", "quantile"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262)]
)
def test_a_difference_is_clear_where_its_t_interval_leaves_out_zero(seeds, quantile):
    """Quantiles of Student's t at 97.5 % as tables print them (Student 1908; any textbook)."""
    values = np.arange(seeds, dtype=float)
    margin = quantile * values.std(ddof=1) / math.sqrt(seeds)
    values -= values.mean()
    assert Spread.of(values + 5).margin == pytest.approx(margin, rel=1e-3)
    assert Spread.of(values + 1.001 * margin, signed=True).clear
    assert Spread.of(values - 1.001 * margin, signed=True).clear
    assert not Spread.of(values + 0.999 * margin, signed=True).clear


def test_seeds_that_agree_to_the_last_digit_are_not_clear():
    """Two seeds that gain one query of 63 each say nothing of the next seed."""
    same = Spread.of([100 / 63, 100 / 63], signed=True)
    assert (same.deviation, same.clear) == (0, False)
    assert not Spread.of([0.1 + 0.2, 0.3], signed=True).clear


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_nothing_is_called_clear_more_often_than_its_level_says(seeds):
    """Two methods of the same accuracy, scores in steps of one query of 316: at most 5 % of 4,000 cases."""
    scores = np.random.default_rng(seeds).normal(50, 2, (4000, seeds, 2))
    scores = np.round(scores * 3.16) / 3.16
    wrong = sum(Spread.of(pair[:, 0] - pair[:, 1], signed=True).clear for pair in scores)
    assert wrong / len(scores) < 0.06


def test_differences_are_paired_by_seed():
    one = Series("one", {0: np.array([10.0, 1.0]), 1: np.array([30.0, 2.0]), 2: np.array([99.0, 9.0])})
    other = Series("other", {0: np.array([9.0, 1.0]), 1: np.array([26.0, 4.0]), 7: np.array([0.0, 0.0])})
    first, second = one.minus(other)
    assert (first.mean, first.deviation, first.seeds) == pytest.approx((2.5, math.sqrt(4.5), 2))
    assert (second.mean, second.deviation) == pytest.approx((-1, math.sqrt(2)))
    assert [spread.seeds for spread in one.minus(Series("apart", {5: np.zeros(2)}))] == [0, 0]


def test_fluctuation():
    assert fluctuation(np.array([9.0, 0.0, 2.0, 5.0, 5.0, 8.0])) == pytest.approx(math.sqrt(4.5))  # 0 and 3
    assert fluctuation(np.arange(10.0)) == 0
    assert np.isnan(fluctuation(np.arange(4.0)))


def test_best_rows_go_by_the_large_datasets(tmp_path):
    market = {0: 0.9, 1: 0.1, 2: 0.5, 3: 0.3, 4: 0.5, 5: 0.5, 6: 0.2}

    def rank1(round, dataset, kind):
        return (market[round], 1 - market[round])[dataset] if kind is ModelKind.GLOBAL else None

    write_run(tmp_path, "run", 0, rank1, SITES, rounds=6)
    (method,) = load_study([tmp_path]).methods
    np.testing.assert_array_equal(best_rows(method.runs[0]), [2, 4, 5])  # round 0 does not count


def test_weight_shares_are_of_the_group(study):
    grouped, cosine = (
        load_study([study / name]).methods[0].runs[0] for name in ("grouped-seed1", "cosine-seed1")
    )
    assert np.isnan(weight_shares(cosine)[0]).all()
    np.testing.assert_allclose(weight_shares(cosine)[1:], [[0.75, 0.25]] * 4)
    np.testing.assert_allclose(weight_shares(grouped)[3], [1, 1])


def test_tables_in_three_notations():
    rows = (("a_b & 50%", 3, 0.25, Spread.of([1.0, 2.0])), ("mean", 4, math.nan, Spread.of([])))
    table = Table("t", "caption <x>", ("name", "n", "x", "score"), rows, ruled=1)
    assert to_csv(table).splitlines() == [
        "name,n,x,score,score: deviation,score: seeds",
        "a_b & 50%,3,0.25,1.5,0.707107,2",
        "mean,4,,,,0",
    ]
    assert to_latex(table).splitlines()[1:] == [
        r"% caption \textless{}x\textgreater{}",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"name & n & x & score \\",
        r"\midrule",
        r"a\_b \& 50\% & 3 & 0.250 & 1.5 $\pm$ 0.7 \\",
        r"\midrule",
        r"mean & 4 & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "a_b &amp; 50%" in to_html(table)
    assert '<tr class="ruled"><th scope="row">mean' in to_html(table)
