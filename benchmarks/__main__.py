"""Run all benchmarks, one after the other, and write what they found out into ``docs/performance.md``.

    python -m benchmarks [--only NAME]... [--quick] [--output FILE.json] [--from FILE.json]...

They need the machine to themselves. Each is a process of its own, and can be run alone, with options of its
own: ``python -m benchmarks.NAME --help``. The page is written once all have been run in their real sizes: in
this session, or in earlier ones, whose figures are taken from their files.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.playing import ROOT, UNAVAILABLE, Outcome, options_of
from benchmarks.table import BENCHMARKS, Session, Tried, look_around, overview, question_of, renewed

PAGE = ROOT / "docs" / "performance.md"

LIMIT = 3600.0
"""Seconds that a benchmark may take."""


def main() -> int:
    """Run benchmarks; return 1 if one of them failed. One that lacks a package has not."""
    parser = options_of(__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they work")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all figures there as well")
    parser.add_argument(
        "--from",
        dest="earlier",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="an earlier --output: what was measured then is not measured again; may be repeated",
    )
    options = parser.parse_args()
    earlier = [Session.read(path) for path in options.earlier]
    known = {each.name for session in earlier for each in session.benchmarks if each.outcome}
    here = look_around()
    print(f"To be {here}", flush=True)
    session = Session(here, options.quick, [])
    for each in try_all([name for name in options.only or BENCHMARKS if name not in known], options.quick):
        session = replace(session, benchmarks=[*session.benchmarks, each])
        if options.output:
            options.output.write_text(session.to_json(), encoding="utf-8")
    sessions = newest([*earlier, session])
    print("", *overview([each for session in sessions for each in session.benchmarks]), sep="\n")
    if not options.quick and {each.name for s in sessions for each in s.benchmarks} == {*BENCHMARKS}:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), sessions), encoding="utf-8")
        print(f"\nwritten into {PAGE.relative_to(ROOT)}")
    return int(any(each.failed for each in session.benchmarks))


def newest(sessions: Sequence[Session]) -> list[Session]:
    """Keep of each benchmark the last that came to its end, or the last; leave out what is then empty."""
    kept: dict[str, Tried] = {}
    for each in (each for session in sessions for each in session.benchmarks):
        if each.outcome or not kept.get(each.name, each).outcome:
            kept[each.name] = each
    chosen = [[each for each in session.benchmarks if kept[each.name] is each] for session in sessions]
    return [replace(session, benchmarks=own) for session, own in zip(sessions, chosen, strict=True) if own]


def try_all(names: Sequence[str], quick: bool) -> Iterator[Tried]:
    """Run benchmarks one after the other, whatever becomes of each."""
    for number, name in enumerate(names, start=1):
        print(f"\n[{number}/{len(names)}] {name}: {question_of(name)}", flush=True)
        each = attempt(name, quick)
        print(f"{'not measured' if each.outcome is None else 'done'} after {each.seconds:.0f} s", flush=True)
        yield each


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
