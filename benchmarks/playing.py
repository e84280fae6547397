"""What the benchmarks share: their outcome, the command line of one, launches of ranks."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
"""The checkout, where ``python -m benchmarks`` finds them."""

UNAVAILABLE = 2
"""Exit code of a benchmark that lacks a program or a package."""

RANKS_SHARE_CORES = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}

Row = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark found out.

    Attributes
    ----------
    headline
        The answer in a sentence, with its figures and what the ratio is of.
    ratio
        Of two ways that were measured in the same run; None: there is nothing to compare with.
    details
        All that was measured, as the rows of a table: the same columns in each.
    """

    headline: str
    ratio: float | None
    details: Sequence[Row]


def play(
    measure: Callable[[argparse.Namespace], Outcome],
    parser: argparse.ArgumentParser,
    quick: Mapping[str, object],
    work: Callable[..., object] | None = None,
) -> None:
    """Run a benchmark as its user asked for it, and print what it found out.

    Parameters
    ----------
    measure
        From the options to the outcome.
    parser
        Its options, with the real sizes as defaults.
    quick
        The defaults of ``--quick``.
    work
        What each rank does where `on_ranks` launches the module. The server returns what it found out, the
        others None.
    """
    if work and sys.argv[1:2] == ["work"]:
        if (found := work(*json.loads(sys.argv[2]))) is not None:
            print(json.dumps(found))
        return
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what it found out there as well")
    if "--quick" in sys.argv:
        parser.set_defaults(**quick)
    options = parser.parse_args()
    outcome = measure(options)
    print(outcome.headline, "", *aligned(outcome.details), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def options_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of options with a module's docstring as its help."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def on_ranks(ranks: int, name: str, *arguments: object) -> Any:  # noqa: ANN401 (JSON)
    """Run a benchmark's ``work`` on some ranks, one alone without a launcher; return what its server did.

    Parameters
    ----------
    arguments
        Of ``work``, whatever JSON can hold.
    """
    command = [sys.executable, "-m", "mpi4py", "-m", f"benchmarks.{name}", "work", json.dumps(arguments)]
    if ranks > 1:
        mpirun = launcher() or unavailable("needs mpirun, which is not on the PATH")
        command = [mpirun, "--bind-to", "none", "-n", str(ranks), *command]
    environment = {**RANKS_SHARE_CORES, **os.environ}
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if ran.returncode:
        sys.exit(f"a launch of {ranks} ended with exit code {ran.returncode}")
    return json.loads(ran.stdout.splitlines()[-1])


def launcher() -> str | None:
    """Return the mpirun of this environment, or else the one on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("mpirun", path=path)


def unavailable(message: str) -> NoReturn:
    """End a benchmark that lacks a program or a package."""
    print(message, file=sys.stderr)
    sys.exit(UNAVAILABLE)


def anonymous_memory() -> float:
    """Return the MB (10⁶ bytes) of this process's memory that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon"))


def texts(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head of a table and its cells, floats with three significant digits."""
    return [[*rows[0]], *([_text(value) for value in row.values()] for row in rows)]


def _text(value: str | int | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:#.3g}"


def aligned(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table for the terminal."""
    table = texts(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
