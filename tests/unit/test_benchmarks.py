"""The benchmarks work, in small sizes that say nothing of speed, and their tables come to the page."""

import json
import os
import platform
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.__main__ import BENCHMARKS, PAGE, attempt, try_all
from benchmarks.playing import ROOT, Outcome, aligned
from benchmarks.table import Surroundings, Tried, look_around, question_of, renewed

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
| `finch` | {question_of("finch")} | twice as fast | 2.00 |
| `scale` | {question_of("scale")} | not measured: needs mpirun |  |

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
    assert renewed(OLD, HERE, [ONE, NONE]) == NEW


@pytest.mark.parametrize("marked", [(), ("finch",), ("all", "speed")])
def test_a_page_without_places_is_refused(marked):
    page = "".join(f"<!-- benchmarks: {name} -->\n<!-- end -->\n" for name in marked)
    with pytest.raises(ValueError, match=re.escape(str([*marked]))):
        renewed(page, HERE, [ONE])


def test_the_real_page_has_its_places():
    tried = [Tried(name, None, 0.0, "no time") for name in BENCHMARKS]
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page, HERE, tried).count("no time") == len(BENCHMARKS) + len(
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
def test_all_benchmarks_work_in_small_sizes(tmp_path):
    page, output = PAGE.read_bytes(), tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", output]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
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
