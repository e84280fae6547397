"""The benchmarks work, in small sizes that say nothing of speed, and their tables come to the page."""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

from benchmarks import __main__ as entry
from benchmarks.__main__ import PAGE, attempt, newest, try_all
from benchmarks.playing import ROOT, Outcome, aligned
from benchmarks.table import BENCHMARKS, Session, Surroundings, Tried, look_around, question_of, renewed

ONE = Tried("finch", Outcome("twice as fast", 2.0, [{"clients": 1000, "seconds": 0.5}]), 3.0)
NONE = Tried("scale", None, 1.0, "needs mpirun")
HERE = Surroundings("2026-01-31", "0123456789", "Pentium", 2, {"Python": "3.11", "torch": "2.4"})


def test_each_benchmark_is_listed_and_asks_a_question():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert {*BENCHMARKS} == modules - {"__init__", "__main__", "noise", "playing", "table"}
    assert all(question_of(name).endswith("?") for name in BENCHMARKS)


OLD = """# Before

<!-- benchmarks: all -->
old
<!-- end -->

Between.

<!-- benchmarks: scale -->
| old |
<!-- end -->

<!-- benchmarks: finch -->
<!-- end -->
After.
"""

NEW = f"""# Before

<!-- benchmarks: all -->

Measured on 2026-01-31 at commit 0123456789, on 2 cores of Pentium, with Python 3.11, torch 2.4.

| benchmark | question | answer | ratio |
| --- | --- | --- | --- |
| `scale` | {question_of("scale")} | not measured: needs mpirun |  |
| `finch` | {question_of("finch")} | twice as fast | 2.00 |

<!-- end -->

Between.

<!-- benchmarks: scale -->

Not measured: needs mpirun.

<!-- end -->

<!-- benchmarks: finch -->

| clients | seconds |
| --- | --- |
| 1,000 | 0.500 |

<!-- end -->
After.
"""


def test_the_page_keeps_what_is_not_between_its_markers():
    assert renewed(OLD, [Session(HERE, False, [ONE, NONE])]) == NEW


def test_figures_of_several_sessions_make_one_table(tmp_path):
    """What came to its end in the last session counts, and else what did before."""
    slower = Tried("finch", Outcome("half as fast", 0.5, [{"clients": 1000, "seconds": 2.0}]), 3.0)
    waiting = Tried("waiting", Outcome("no time", None, [{"wait": "phase"}]), 1.0)
    there = replace(HERE, commit="abcdef", cores=1)
    (tmp_path / "first.json").write_text(Session(HERE, False, [slower, waiting, NONE]).to_json())
    first = Session.read(tmp_path / "first.json")
    assert first == Session(HERE, False, [slower, waiting, NONE])
    second = Session(there, False, [ONE, replace(waiting, outcome=None, trouble="no mpirun")])
    sessions = newest([first, second])
    assert sessions == [Session(HERE, False, [waiting, NONE]), Session(there, False, [ONE])]
    page = renewed(OLD, sessions)
    assert "`waiting`, `scale`: measured on 2026-01-31 at commit 0123456789, on 2 cores of Pentium, " in page
    assert "`finch`: measured on 2026-01-31 at commit abcdef, on 1 core of Pentium, " in page
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    assert rows == ["| `scale`", "| `waiting`", "| `finch`"]


def test_the_page_is_written_once_all_have_been_measured(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text(OLD)
    monkeypatch.setattr(entry, "ROOT", tmp_path)
    monkeypatch.setattr(entry, "PAGE", page)
    figures = tmp_path / "figures.json"
    for names in (BENCHMARKS[1:], BENCHMARKS):
        session = Session(HERE, False, [replace(ONE, name=name) for name in names])
        figures.write_text(session.to_json())
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--from", str(figures), "--only", BENCHMARKS[1]])
        assert entry.main() == 0  # nothing is left to measure
        assert page.read_text() == (OLD if names != BENCHMARKS else renewed(OLD, [session]))


def test_small_sizes_do_not_count(tmp_path):
    (tmp_path / "quick.json").write_text(Session(HERE, True, [ONE]).to_json())
    with pytest.raises(ValueError, match="are of small sizes, expected real ones"):
        Session.read(tmp_path / "quick.json")


@pytest.mark.parametrize("marked", [(), ("finch",), ("all", "speed")])
def test_a_page_without_places_is_refused(marked):
    page = "".join(f"<!-- benchmarks: {name} -->\n<!-- end -->\n" for name in marked)
    with pytest.raises(ValueError, match=re.escape(str([*marked]))):
        renewed(page, [Session(HERE, False, [ONE])])


def test_the_real_page_has_its_places():
    tried = [Tried(name, None, 0.0, "no time") for name in BENCHMARKS]
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page, [Session(HERE, False, tried)]).count("no time") == len(BENCHMARKS) + len(
        re.findall("benchmarks: [b-z]", page)
    )


def test_tables_are_aligned_for_the_terminal():
    rows = [{"way": "sums", "ms": 3.14159, "ranks": 3}, {"way": "a Reduce", "ms": 1234.5, "ranks": 10}]
    assert aligned(rows) == ["     way     ms  ranks", "    sums   3.14      3", "a Reduce  1,234     10"]


def test_the_surroundings_name_commit_processor_and_versions():
    here = look_around()
    assert here.cores == len(os.sched_getaffinity(0))
    assert re.fullmatch(r"([0-9a-f]{10}\+?)?", here.commit)
    assert here.versions["Python"] == platform.python_version()


def test_one_that_fails_or_never_ends_does_not_keep_the_others(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise OSError('a broken library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failed, done = try_all(["collect", "finch"], quick=True)
    assert failed.failed
    assert failed.outcome is None
    assert failed.trouble == "OSError: a broken library"
    assert len(done.outcome.details) == 2
    late = attempt("finch", quick=False, limit=0.2)
    assert late.failed
    assert late.trouble == "it did not end within 0.2 s"


@pytest.mark.slow
@pytest.mark.timeout(900)  # launches of ranks on two busy cores
def test_all_benchmarks_work_in_small_sizes(tmp_path):
    page, output = PAGE.read_bytes(), tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", output]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert PAGE.read_bytes() == page
    found = json.loads(output.read_text())
    assert found["quick"] is True
    assert [each["name"] for each in found["benchmarks"]] == [*BENCHMARKS]
    for each in found["benchmarks"]:
        if each["name"] == "simulation" and find_spec("pfl") is None:
            assert each["trouble"] == "needs pfl-research: pip install 'pfl[pytorch]'"
            assert not each["failed"]
            continue
        outcome = each["outcome"]
        assert outcome["headline"] in ran.stdout
        assert outcome["ratio"] is None or outcome["ratio"] >= 0
        assert len({tuple(row) for row in outcome["details"]}) == 1  # the same columns in each row
