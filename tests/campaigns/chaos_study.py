"""A study killed by SIGKILL, again and again, until it is done: at any moment, and within last commits."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tomli_w

from campaigns.chaos import Trial
from campaigns.chaos_kill import LONGEST, compare, is_done, moment, what_is_wrong
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import StudyRun, load_suite
from fedreid_mpi.run.checkpoint import MANIFEST, folder_of
from fedreid_mpi.run.recovery import ElasticRunner
from fedreid_mpi.run.study import run_study
from support.small import Silent, write_experiment, write_sites

ROUNDS = 3
METHODS = {"plain": {}, "uniform": {"aggregation": {"weights": "uniform"}}}

PATIENCE = 300.0
"""Seconds that a study may take to come to where it is killed."""

SLOW = 0.01
"""Seconds that the disk takes longer to flush a file."""

_fork = multiprocessing.get_context("fork")  # torch is imported already


class Quiet(Silent):
    """Watches a study and says nothing."""

    def starts(self, run: StudyRun) -> Silent:
        return self

    def skipped(self, run: StudyRun) -> None:
        pass

    def stopped(self, run: StudyRun, outcome: object) -> None:
        raise AssertionError(f"{run.name} stopped: {outcome}")

    def failed(self, run: StudyRun, error: Exception) -> None:
        raise AssertionError(f"{run.name} failed: {error}")


def play(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Kill ``count`` times, every other time within the commit of a run's last round."""
    moments = random.Random(seed)
    base = write_experiment(folder / "base.toml", write_sites(folder)[:2], run={"rounds": ROUNDS})
    text = tomli_w.dumps({"study": {"name": "s", "base": base.name, "seeds": [1]}, "methods": METHODS})
    (folder / "suite.toml").write_text(text, encoding="utf-8")
    runs = load_suite(folder / "suite.toml").runs
    run_study(ElasticRunner(SingleCommunicator()), runs, folder / "reference", Quiet())
    number = 0
    for trial in range(count):
        study = folder / f"study{number}"
        places = [study / run.name for run in runs]
        left = next(place for place in places if not is_done(place))
        if trial % 2:
            where = _kill(study, runs, lambda place=left: _is_committing_its_last_round(place))
        else:
            end = time.monotonic() + moments.uniform(0, LONGEST)
            where = _kill(study, runs, lambda end=end: time.monotonic() > end)
        there = [place for place in places if (place / "status.json").exists()]
        broken = "; ".join(filter(None, map(what_is_wrong, there)))
        if not broken and (trial == count - 1 or all(map(is_done, places))):
            broken = _finish(study, runs, folder / "reference")
            number += 1
        yield Trial(where, broken)


def _is_committing_its_last_round(place: Path) -> bool:
    """Tell whether the last round's record is on disk, and the manifest that makes it count is not."""
    folder = folder_of(place, ROUNDS)
    try:
        stored = max(path.stat().st_mtime_ns for path in folder.glob("*.safetensors"))
        written = max(path.stat().st_mtime_ns for path in place.glob("results_*.h5"))
    except (ValueError, OSError):  # not there yet
        return is_done(place)
    return is_done(place) or (written > stored and not (folder / MANIFEST).exists())


def _kill(study: Path, runs: tuple[StudyRun, ...], is_time: Callable[[], bool]) -> str:
    """Play a study until it is time; say what it did then."""
    process = _fork.Process(target=_play, args=(study, runs))
    process.start()
    limit = time.monotonic() + PATIENCE
    while process.is_alive() and not is_time() and time.monotonic() < limit:
        pass
    process.kill()
    process.join()
    begun = [study / run.name for run in runs if (study / run.name / "status.json").exists()]
    return moment(begun[-1]) if begun else "before the first run is begun"


def _play(study: Path, runs: tuple[StudyRun, ...]) -> None:
    """Play it on a slow disk, so that kills meet it there."""
    fsync = os.fsync

    def slow(handle: int) -> None:
        time.sleep(SLOW)
        fsync(handle)

    os.fsync = slow
    run_study(ElasticRunner(SingleCommunicator()), runs, study, Quiet())


def _finish(study: Path, runs: tuple[StudyRun, ...], reference: Path) -> str:
    """Play the study to its end, and compare each run with the undisturbed one."""
    process = _fork.Process(target=_play, args=(study, runs))
    process.start()
    process.join()
    if process.exitcode:
        return f"the study ended with {process.exitcode}"
    return "; ".join(filter(None, (compare(study / run.name, reference / run.name) for run in runs)))
