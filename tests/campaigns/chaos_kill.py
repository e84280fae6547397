"""The whole job killed by SIGKILL at a random moment, again and again, until the run is done all the same."""

import fcntl
import hashlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from campaigns.chaos import Trial
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.model import load_model
from fedreid_mpi.results import read_run, stable_figures
from fedreid_mpi.run.checkpoint import folder_of, newest_whole
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.storage.run_directory import read_status
from support.launching import started
from support.small import Silent, write_experiment, write_sites

ROUNDS = 8
EVERY_MPI = 5
"""Every fifth kill is of a launch on three ranks, the others of a single process, which starts sooner."""

LONGEST = 2.0
"""Seconds after the first sign of the attempt within which it is killed."""

_fork = multiprocessing.get_context("fork")  # torch is imported already


def play(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Kill ``count`` times; a run that got to its end is compared, and a new one is begun."""
    moments = random.Random(seed)
    archives = write_sites(folder)[:3]
    experiment = write_experiment(folder / "small.toml", archives, run={"rounds": ROUNDS})
    reference = folder / "reference"
    train(experiment, reference)
    number = 0
    for trial in range(count):
        run_dir = folder / f"run{number}"
        mpi = trial % EVERY_MPI == EVERY_MPI - 1
        before = _digest(run_dir / "status.json")
        attempt = _launched if mpi else _forked
        where = attempt(experiment, run_dir, before, moments.uniform(0, LONGEST))
        _wait_until_free(run_dir)
        broken = what_is_wrong(run_dir) if where else "the attempt ended before it began"
        last = trial == count - 1
        if not broken and (last or is_done(run_dir)):
            broken = _finish(experiment, run_dir, reference)
            number += 1
        yield Trial(where, broken)


def train(experiment: Path, run_dir: Path) -> None:
    run_federation(SingleCommunicator(), load_experiment(experiment), run_dir, Silent(), resume=True)


def _forked(experiment: Path, run_dir: Path, before: str, delay: float) -> str:
    process = _fork.Process(target=train, args=(experiment, run_dir))
    process.start()
    where = _strike(run_dir, before, delay, process.is_alive)
    process.kill()
    process.join()
    return where


def _launched(experiment: Path, run_dir: Path, before: str, delay: float) -> str:
    command = ("train", experiment, "--run-dir", run_dir, "--resume")
    with started(3, *command, cwd=run_dir.parent) as process:  # its end kills all ranks
        return _strike(run_dir, before, delay, lambda: process.poll() is None)


def _strike(run_dir: Path, before: str, delay: float, is_alive: Callable[[], bool]) -> str:
    """Wait for an attempt's first sign and a while longer; say what it does then; nothing: it is gone."""
    while _digest(run_dir / "status.json") == before:
        if not is_alive():
            return ""
        time.sleep(0.005)
    time.sleep(delay)
    return moment(run_dir)


def _wait_until_free(run_dir: Path) -> None:
    """Wait until the kernel has cleared away the killed processes: the lock is theirs until then."""
    with (run_dir / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def moment(run_dir: Path) -> str:
    """Say what the run is just doing, from the outside."""
    status = read_status(run_dir) if (run_dir / "status.json").exists() else None
    if status and (status.state == "done" or status.round == status.rounds):
        return "after the end"
    if list(run_dir.rglob(".*.tmp")):
        return "writing a file"
    newest = status.round + 1 if status else 0
    if list(folder_of(run_dir, newest).glob("*.safetensors")):  # local models, in a folder, come earlier
        return "within a commit"
    return "within a round" if newest else "before round 0 is on disk"


def is_done(run_dir: Path) -> bool:
    return (run_dir / "status.json").exists() and read_status(run_dir).state == "done"


def what_is_wrong(run_dir: Path) -> str:
    """Check what a reader finds right after the kill."""
    try:
        manifest, damage = newest_whole(run_dir)
        if damage:
            return f"damaged checkpoint: {damage[0]}"
        committed = -1 if manifest is None else manifest.round
        rounds = read_run(run_dir).rounds.tolist() if list(run_dir.glob("results_*.h5")) else []
        for model in sorted(run_dir.glob("models/**/*.safetensors")):
            load_model(model)
    except FedReIDError as error:
        return f"{type(error).__name__}: {error}"
    if rounds != list(range(len(rounds))) or len(rounds) <= committed:
        return f"results hold rounds {rounds}, committed are those up to {committed}"
    return ""


def _finish(experiment: Path, run_dir: Path, reference: Path) -> str:
    """Resume to the end, and compare every byte of the models and every stable figure."""
    process = _fork.Process(target=train, args=(experiment, run_dir))
    process.start()
    process.join()
    if process.exitcode:
        return f"the resumed run ended with {process.exitcode}"
    return compare(run_dir, reference)


def compare(run_dir: Path, reference: Path) -> str:
    """Compare a run that should be done with one that nothing happened to."""
    if not is_done(run_dir):
        return "the resumed run is not done"
    name = "models/global.safetensors"
    if (run_dir / name).read_bytes() != (reference / name).read_bytes():
        return "the resumed run has another model"
    figures, expected = stable_figures(run_dir), stable_figures(reference)
    other = [name for name in expected if figures[name].tobytes() != expected[name].tobytes()]
    return f"the resumed run has other figures: {other}" if other else ""
