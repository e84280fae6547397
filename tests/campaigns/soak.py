"""A thousand rounds on four ranks: does anything grow? ``make soak``.

Usage: PYTHONPATH=tests python -m campaigns.soak [--rounds N] [--ranks N]

Samples anonymous memory and open files of every rank while the run goes on, prints a table, and ends with 1
if memory still grows in its second half, if files pile up, or if the run directory is not as it should be.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import list_checkpoints
from support.launching import started
from support.small import write_experiment, write_public, write_sites

GROWTH = 1.05
"""Memory at the end over that in the middle of the run: noise of the allocator stays below."""

INTERVAL = 1.0
"""Seconds between two samples."""


def main() -> int:
    """Play the run, print what grew, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak") as name:
        folder = Path(name)
        run_dir = folder / "run"
        experiment = write_experiment(
            folder / "soak.toml",
            write_sites(folder)[:3],
            run={"rounds": options.rounds},
            data={"public": str(write_public(folder / "public.h5"))},
            distillation={"enabled": True, "every": 10},
            clustering={"enabled": True, "every": 10},
            aggregation={"weights": "cosine-distance"},
            evaluation={"every": 10},
        )
        samples: dict[int, list[tuple[float, int]]] = {}
        began = time.monotonic()
        with started(options.ranks, "train", experiment, "--run-dir", run_dir, cwd=folder) as process:
            over = threading.Event()
            watcher = threading.Thread(target=_watch, args=(str(run_dir), samples, over))
            watcher.start()
            _, errors = process.communicate()
            over.set()
            watcher.join()
        faults = [] if process.returncode == 0 else [f"exit code {process.returncode}: {errors[-500:]}"]
        table = Table(
            "process",
            "MB in the middle",
            "MB at the end",
            "files in the middle",
            "files at the end",
            title=f"{options.rounds} rounds",
        )
        for pid, course in sorted(samples.items()):
            half, fifth = len(course) // 2, max(len(course) // 10, 1)
            (memory, files), (memory_end, files_end) = (
                np.median(part, axis=0) for part in (course[half : half + fifth], course[-fifth:])
            )
            table.add_row(str(pid), f"{memory:.1f}", f"{memory_end:.1f}", f"{files:.0f}", f"{files_end:.0f}")
            if memory_end > GROWTH * memory:
                faults.append(f"process {pid} grew from {memory:.1f} to {memory_end:.1f} MB")
            if files_end > files + 3:
                faults.append(f"process {pid} had {files:.0f} files open, at the end {files_end:.0f}")
        console = Console(width=110)
        console.print(table)
        faults += list(_check(run_dir, options.rounds, console))
        console.print(f"{(time.monotonic() - began) / options.rounds:.2f} s a round")
    for fault in faults:
        print(fault)
    return bool(faults)


def _watch(mark: str, samples: dict[int, list[tuple[float, int]]], over: threading.Event) -> None:
    """Sample the ranks, told by the run directory on their command line, until the run is over."""
    while not over.wait(INTERVAL):
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                command = (process / "cmdline").read_text()
                if mark not in command or "python" not in command.partition("\0")[0]:
                    continue
                status = (process / "status").read_text()
                memory = int(status.partition("RssAnon:")[2].split()[0]) / 1000
                files = len(list((process / "fd").iterdir()))
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
            samples.setdefault(int(process.name), []).append((memory, files))


def _check(run_dir: Path, rounds: int, console: Console):
    """Name what is not as it should be in the run directory."""
    results = read_run(run_dir)
    if results.rounds.tolist() != list(range(rounds + 1)):
        yield f"rounds {results.rounds[0]} to {results.rounds[-1]}, {len(results.rounds)} of them"
    sizes = [path.stat().st_size for path in results.files]
    console.print(f"{len(sizes)} result files of {min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} MB")
    if len(sizes) != -(-(rounds + 1) // 100):
        yield f"{len(sizes)} result files, expected one for each hundred rounds"
    checkpoints = list_checkpoints(run_dir)
    console.print(f"{len(checkpoints)} checkpoints")
    if len(checkpoints) != 2:
        yield f"{len(checkpoints)} checkpoints, expected 2"


if __name__ == "__main__":
    sys.exit(main())
