"""What benchmarks found out, as tables in a page of Markdown, and where they ran."""

import ast
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, python_version
from subprocess import run

from benchmarks.playing import Outcome, Row, launcher, texts
from fedreid_mpi.run.program import read_checkout

HERE = Path(__file__).parent
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

LIBRARIES = ("torch", "numpy", "h5py", "mpi4py", "pillow", "pfl")


@dataclass(frozen=True, slots=True)
class Tried:
    """A benchmark that was run.

    Attributes
    ----------
    outcome
        None: it did not come to its end.
    seconds
        It took, start included.
    trouble
        Why there is no outcome; empty where there is one.
    failed
        Whether that is an error, and not for want of a program or package.
    """

    name: str
    outcome: Outcome | None
    seconds: float
    trouble: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and with what benchmarks ran.

    Attributes
    ----------
    commit
        With "+" where files of the package or of the benchmarks were changed since; empty: no checkout.
    """

    day: str
    commit: str
    processor: str
    cores: int
    versions: Mapping[str, str]

    def __str__(self) -> str:
        """As the end of a sentence."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        cores = f"{self.cores} core{'s' * (self.cores != 1)} of {self.processor}"
        return f"measured on {self.day} at commit {self.commit or 'unknown'}, on {cores}, with {versions}."


@dataclass(frozen=True, slots=True)
class Session:
    """Benchmarks that were run together.

    Attributes
    ----------
    quick
        In small sizes, which say nothing.
    """

    measured: Surroundings
    quick: bool
    benchmarks: Sequence[Tried]

    def to_json(self) -> str:
        """Return all its figures."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Session":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            The sizes were small.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["quick"]:
            raise ValueError(f"{path}: its figures are of small sizes, expected real ones")
        tried = []
        for each in content["benchmarks"]:
            outcome = Outcome(**each["outcome"]) if each["outcome"] else None
            tried.append(Tried(**{**each, "outcome": outcome}))
        return cls(Surroundings(**content["measured"]), False, tried)


def look_around() -> Surroundings:
    """Ask git, the processor and the libraries."""
    checkout = read_checkout()
    dirty = checkout.dirty or read_checkout(HERE).dirty
    versions = {"Python": python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if command := launcher():
        said = run([command, "--version"], capture_output=True, text=True, check=False).stdout
        versions["mpirun"] = said.partition("\n")[0].removeprefix("mpirun").strip()
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Surroundings(
        date.today().isoformat(),
        checkout.commit[:10] + "+" * dirty,
        names[0] if names else machine(),
        len(os.sched_getaffinity(0)),
        versions,
    )


def question_of(name: str) -> str:
    """Return the first line of a benchmark's docstring, which is read and not run: it might start MPI."""
    doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    return (doc or "").partition("\n")[0]


def overview(tried: Sequence[Tried]) -> list[str]:
    """Return the lines of the table of all benchmarks."""
    return markdown(
        [
            {
                "benchmark": f"`{each.name}`",
                "question": question_of(each.name),
                "answer": each.outcome.headline if each.outcome else f"not measured: {each.trouble}",
                "ratio": _ratio(each.outcome),
            }
            for each in sorted(tried, key=lambda each: BENCHMARKS.index(each.name))
        ]
    )


def _ratio(outcome: Outcome | None) -> str:
    return "" if outcome is None or outcome.ratio is None else f"{outcome.ratio:.2f}"


def markdown(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table in Markdown."""
    head, *cells = texts(rows)
    lines = [head, ["---"] * len(head), *cells]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def where_measured(sessions: Sequence[Session]) -> list[str]:
    """Return the paragraphs that say where figures come from."""
    if len(sessions) == 1:
        return [f"M{str(sessions[0].measured)[1:]}", ""]
    told = []
    for session in sessions:
        names = ", ".join(f"`{each.name}`" for each in session.benchmarks)
        told += [f"{names}: {session.measured}", ""]
    return told


def renewed(page: str, sessions: Sequence[Session]) -> str:
    """Write what was found out between the page's markers, and leave the rest of it alone.

    ``<!-- benchmarks: all -->`` stands before the table of all, ``<!-- benchmarks: NAME -->`` before the
    figures of one, and ``<!-- end -->`` after each.

    Raises
    ------
    ValueError
        When the page has no place for the table of all, or one for a benchmark that is unknown.
    """
    tried = [each for session in sessions for each in session.benchmarks]
    blocks = {"all": [*where_measured(sessions), *overview(tried)]}
    for each in tried:
        blocks[each.name] = (
            markdown(each.outcome.details) if each.outcome else [f"Not measured: {each.trouble}."]
        )
    pattern = re.compile(r"^<!-- benchmarks: (\w+) -->\n.*?^<!-- end -->$", re.DOTALL | re.MULTILINE)
    marked = pattern.findall(page)
    if "all" not in marked or not blocks.keys() >= set(marked):
        raise ValueError(f"the page marks places for {marked}; expected all, and known benchmarks")

    def block(found: re.Match[str]) -> str:
        return "\n".join([f"<!-- benchmarks: {found[1]} -->", "", *blocks[found[1]], "", "<!-- end -->"])

    return pattern.sub(block, page)
