"""Run all benchmarks, one after the other, and write what they found out into ``docs/performance.md``.

    python -m benchmarks [--only NAME]... [--quick] [--output FILE.json]

They need the machine to themselves. Each is a process of its own, and can be run alone, with options of its
own: ``python -m benchmarks.NAME --help``. The page is written by a run of all of them in their real sizes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.playing import ROOT, UNAVAILABLE, Outcome, options_of
from benchmarks.table import Tried, look_around, overview, question_of, renewed

BENCHMARKS = (
    "exchange",
    "scale",
    "simulation",
    "training",
    "waiting",
    "ranking",
    "reranking",
    "prepare",
    "collect",
    "finch",
    "inversion",
)
"""In the order of the table; each is a module of this folder."""

PAGE = ROOT / "docs" / "performance.md"

LIMIT = 3600.0
"""Seconds that a benchmark may take."""


def main() -> int:
    """Run benchmarks; return 1 if one of them failed. One that lacks a package has not."""
    parser = options_of(__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they work")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all figures there as well")
    options = parser.parse_args()
    here = look_around()
    print(here, flush=True)
    tried = try_all(options.only or BENCHMARKS, options.quick)
    print("", *overview(tried), sep="\n")
    if options.output:
        everything = {
            "measured": asdict(here),
            "quick": options.quick,
            "benchmarks": list(map(asdict, tried)),
        }
        options.output.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    if not (options.only or options.quick):
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), here, tried), encoding="utf-8")
        print(f"\nwritten into {PAGE.relative_to(ROOT)}")
    return int(any(each.failed for each in tried))


def try_all(names: Sequence[str], quick: bool) -> list[Tried]:
    """Run benchmarks one after the other, whatever becomes of each."""
    tried = []
    for number, name in enumerate(names, start=1):
        print(f"\n[{number}/{len(names)}] {name}: {question_of(name)}", flush=True)
        each = attempt(name, quick)
        tried.append(each)
        print(f"{'not measured' if each.outcome is None else 'done'} after {each.seconds:.0f} s", flush=True)
    return tried


def attempt(name: str, quick: bool, limit: float = LIMIT) -> Tried:
    """Run one benchmark in a process of its own, which prints as it likes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        found, errors = Path(folder) / "outcome.json", Path(folder) / "errors.txt"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(found), *["--quick"] * quick]
        with errors.open("wb") as stderr:
            process = subprocess.Popen(command, cwd=ROOT, stderr=stderr, start_new_session=True)
            try:
                code = process.wait(limit)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGTERM)  # the ranks as well
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return Tried(name, None, limit, f"it did not end within {limit:g} s", failed=True)
        seconds = time.monotonic() - began
        if code == 0:
            return Tried(name, Outcome(**json.loads(found.read_text(encoding="utf-8"))), seconds)
        said = errors.read_text(encoding="utf-8", errors="replace").strip()
    print(said, file=sys.stderr, flush=True)
    return Tried(name, None, seconds, said.rpartition("\n")[2] or f"exit code {code}", code != UNAVAILABLE)


if __name__ == "__main__":
    sys.exit(main())
