"""What does it cost to collect many results archives into one study file?

    python -m benchmarks.collect [--archives 1000] [--rounds 100]

Makes copies of a run of nine clients and some rounds, each with an identity of its own, then collects a
quarter of them and all of them: the memory must not depend on their number.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.playing import Outcome, options_of, play
from fedreid_mpi.records import (
    CMC_RANKS,
    ClientReport,
    ClientSpec,
    Evaluation,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
    RunHeader,
    Scores,
)
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.storage.hdf5.checksum import seal
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest

CLIENTS = tuple(ClientSpec(k, f"dataset{k}", k, 1000, 100, 500) for k in range(9))


def write_run(folder: Path, rounds: int) -> Path:
    """Write a run that is evaluated every tenth round."""
    header = RunHeader(
        name="benchmark",
        seed=0,
        configuration=f"[run]\nrounds = {rounds}\n",
        clients=CLIENTS,
        ranks=(RankInfo(0, "node1", "solo", "cpu", tuple(range(9)), (0,)),),
        versions={},
        git_commit="",
        parameters=1,
    )
    writer = ResultsWriter(folder, header, rounds_per_segment=rounds + 1)
    scores = Scores(np.linspace(0.5, 1, CMC_RANKS), 0.4, 0.2, 100, 0)
    for number in range(rounds + 1):
        models = (ModelKind.GLOBAL, ModelKind.LOCAL) if number % 10 == 0 else ()
        record = RoundRecord(
            RoundPlan(number, tuple(range(9)), 0.05, evaluate=bool(models)),
            reports=tuple(ClientReport(k, 1000, 31, 1.0, True, 2.0) for k in range(9)),
            weights=dict.fromkeys(range(9), 1.0),
            evaluations=tuple(Evaluation(number, k, model, scores) for k in range(9) for model in models),
        )
        if number < rounds:  # only the last write matters, and each rewrites the segment
            writer._records = (*writer._records, record)
        else:
            writer.write(record)
    return folder / "results_001_001.h5"


def multiply(original: Path, folder: Path, count: int) -> None:
    """Copy a run, each time as another one."""
    for number in range(count):
        run = folder / f"run{number:04d}"
        run.mkdir(parents=True)
        copy = Path(shutil.copy(original, run))
        with h5py.File(copy, "a") as file:
            file.attrs["run_id"] = f"{number:032x}"
            file.attrs["seed"] = number
            file.attrs[CONTENT_DIGEST] = content_digest(file)
        seal(copy)


def measure(options: argparse.Namespace) -> Outcome:
    """Collect a quarter of the runs, then all."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        multiply(write_run(folder, options.rounds), folder / "runs", options.archives)
        runs = sorted((folder / "runs").iterdir())
        for count in (options.archives // 4, options.archives):
            study = folder / f"study{count}.h5"
            command = [sys.executable, "-m", "fedreid_mpi", "results", "collect", *map(str, runs[:count])]
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([*command, "-o", str(study)], check=True, stdout=subprocess.DEVNULL)
            seconds, usage = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            busy = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
            rows.append(
                {
                    "archives": count,
                    "seconds": seconds,
                    "processor seconds": busy,
                    "MB of memory": usage.ru_maxrss * 1024 / 1e6,  # of the largest child so far
                    "MB on disk": study.stat().st_size / 1e6,
                }
            )
    quarter, whole = rows
    return Outcome(
        f"{whole['archives']:,} archives of {options.rounds} rounds in {whole['seconds']:.0f} s; "
        f"{whole['MB of memory']:.0f} MB of memory, {quarter['MB of memory']:.0f} MB for a quarter of them",
        whole["MB of memory"] / quarter["MB of memory"],
        rows,
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--archives", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=100)
    play(measure, options, {"archives": 8, "rounds": 3})


if __name__ == "__main__":
    main()
