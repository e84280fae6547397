"""Play every combination of optimisations, kinds of client and BatchNorm; compare one rank with several.

Usage: python tests/combinations.py [--only TEXT]

Prints a table, and ends with 1 if a combination fails or gives other bits on another number of ranks.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from launching import launch_program
from mpi_runs import EVERYONE, GROUPS, combinations
from rich.console import Console
from rich.progress import track
from rich.table import Table
from small import Silent, write_experiment, write_public, write_sites
from test_invariant import assert_did, assert_same_run

from fedreid_mpi.comm import SoloCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.federation import run_federation

BATCH = 12
"""Experiments of one launch, which costs seconds."""


def play(folder: Path, experiments: dict[str, Path]) -> dict[str, str]:
    """Play experiments on one process and on several ranks; return what is wrong with each, or nothing."""
    ended = launch_program(
        EVERYONE, "mpi_runs.py", folder / "ranks", *experiments.values(), cwd=folder, timeout=1800
    )
    if ended.code != 0 and len(experiments) > 1:  # whose fault it is shows one by one
        return {name: play(folder, {name: path})[name] for name, path in experiments.items()}
    return {
        name: check(folder, name, path) if ended.code == 0 else ended.stderr[-300:]
        for name, path in experiments.items()
    }


def check(folder: Path, name: str, path: Path) -> str:
    alone = folder / "alone" / name
    try:
        run_federation(SoloCommunicator(), load_experiment(path), alone, Silent())
        assert_did(alone, name)
        for ranks in (*GROUPS, EVERYONE):
            assert_same_run(folder / "ranks" / name / str(ranks), alone)
    except Exception as error:  # noqa: BLE001 (goes into the table)
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def main(only: str) -> int:
    """Play all combinations whose names hold a text; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="combinations") as name:
        folder = Path(name)
        archives = [path for path in write_sites(folder) if path.stem in ("harbour", "campus", "mall")]
        write_public(folder / "public.h5")
        experiments = {
            name: write_experiment(folder / f"{name}.toml", archives, **sections)
            for name, sections in combinations().items()
            if only in name
        }
        faults: dict[str, str] = {}
        names = list(experiments)
        starts = range(0, len(names), BATCH)
        for start in track(starts, "combinations", console=Console(stderr=True)):
            faults |= play(folder, {name: experiments[name] for name in names[start : start + BATCH]})
    table = Table(title=f"{len(faults)} combinations, on 1 to {EVERYONE} ranks")
    table.add_column("combination")
    table.add_column("outcome")
    for name, fault in faults.items():
        table.add_row(name, fault or "the same bits")
    Console().print(table)
    broken = sum(map(bool, faults.values()))
    print(f"{broken} of {len(faults)} combinations failed")
    return int(broken > 0 or not faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="combinations whose names hold a text")
    sys.exit(main(parser.parse_args().only))
