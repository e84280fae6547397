"""Ranks of a run killed at random moments, until two are left; the others go on, to the same bits."""

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from campaigns.chaos import Trial
from campaigns.chaos_kill import is_done, moment, train
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.results import read_run, stable_figures
from fedreid_mpi.storage.run_directory import read_status
from support.launching import ERROR, ranks_of, started, surviving
from support.small import write_experiment, write_sites

RANKS = 7  # a server, five clients, and one that is idle
ROUNDS = 7
TOGETHER = 0.25
"""Share of the kills at which another rank is killed as well, at the same moment."""

SPREAD = 0.5
"""Seconds within which a rank is killed once a round is on disk: about a round of so many ranks."""

PATIENCE = 400.0
"""Seconds that a launch may take, on however busy a machine."""


def play(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Kill ``count`` ranks, all but two of each launch."""
    moments = random.Random(seed)
    experiment = write_experiment(folder / "small.toml", write_sites(folder), run={"rounds": ROUNDS})
    reference = folder / "reference"
    train(experiment, reference)
    launches = -(-count // (RANKS - 2))
    for number in range(launches):
        victims = min(RANKS - 2, count - number * (RANKS - 2))
        run_dir = folder / f"run{number}"
        killed, broken = _launch(experiment, run_dir, victims, moments)
        broken = broken or _compare(run_dir, reference, killed)
        for where, rank in killed:
            yield Trial(f"{where}, {'server' if rank == 0 else 'client'}", broken)
        if broken and not killed:
            yield Trial("nothing was done", broken)


def _launch(
    experiment: Path, run_dir: Path, victims: int, moments: random.Random
) -> tuple[list[tuple[str, int]], str]:
    """Play a run and kill ranks; return what it did at each kill, the rank's number then, and any harm."""
    command = ("train", experiment, "--run-dir", run_dir, "--on-rank-loss", "replace")
    killed: list[tuple[str, int]] = []
    with started(RANKS, *command, cwd=experiment.parent, launcher=surviving()) as process:
        left = list(range(RANKS))
        round = moments.randrange(-1, ROUNDS // 2)
        while len(killed) < victims:
            if not _came(run_dir, round, process):
                break
            time.sleep(moments.uniform(0, SPREAD))
            where, processes = moment(run_dir), ranks_of(process)
            if not set(left) <= set(processes):
                break  # ranks have left by themselves: the run is at its end
            for _ in range(1 + (moments.random() < TOGETHER and len(killed) + 1 < victims)):
                number = moments.randrange(len(left))
                if strike(processes[left.pop(number)]):
                    killed.append((where, number))
            round = read_status(run_dir).round + moments.randrange(2)
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return killed, f"the launch did not end within {PATIENCE:g} s"
    errors = [line for line in (stdout + stderr).splitlines() if line.startswith(ERROR)]
    return killed, f"exit code {process.returncode} {' '.join(errors)}" if process.returncode else ""


def strike(process: int) -> bool:
    """Kill a process; False: it has just gone by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
        return True
    return False


def _came(run_dir: Path, round: int, process: subprocess.Popen[str]) -> bool:
    """Wait until a round is on disk; False: the run ended before."""
    began = time.monotonic()
    while not (run_dir / "status.json").exists() or read_status(run_dir).round < round:
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            return False
        time.sleep(0.005)
    return True


def _compare(run_dir: Path, reference: Path, killed: list[tuple[str, int]]) -> str:
    """Compare every byte of the models and every stable figure; look for each loss in the events."""
    try:
        if not is_done(run_dir):
            return "the run is not done"
        figures, expected = stable_figures(run_dir), stable_figures(reference)
        events = [event.text for event in read_run(run_dir).events if event.kind == "rank-lost"]
    except FedReIDError as error:
        return f"{type(error).__name__}: {error}"
    name = "models/global.safetensors"
    if (run_dir / name).read_bytes() != (reference / name).read_bytes():
        return "another model"
    if other := [name for name in expected if figures[name].tobytes() != expected[name].tobytes()]:
        return f"other figures: {other}"
    told = len(re.findall(r"rank \d+ of \d+", " ".join(events)))
    late = sum("after the end" in where or "commit" in where or "file" in where for where, _ in killed)
    return "" if len(killed) - late <= told <= len(killed) else f"{told} losses are told of: {events}"
