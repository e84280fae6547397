"""Every combination of optimisations, kinds of client and BatchNorm: one process against several ranks."""

from collections.abc import Iterator
from pathlib import Path

from campaigns.chaos import Trial
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.run.loop import run_federation
from support.launching import launch_program
from support.on_ranks.mpi_runs import EVERYONE, SIZES, combinations, sample
from support.same_runs import assert_did, assert_same_run
from support.small import Silent, write_experiment, write_public, write_sites

BATCH = 12
"""Experiments of one launch, which costs seconds."""


def play(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Play ``count`` of the combinations, drawn by the seed; the moment of a trial is the kind of client."""
    archives = [path for path in write_sites(folder) if path.stem in ("harbour", "campus", "mall")]
    write_public(folder / "public.h5")
    experiments = {
        name: write_experiment(folder / f"{name}.toml", archives, **sections)
        for name, sections in sample(min(count, len(combinations())), seed).items()
    }
    names = sorted(experiments)
    for start in range(0, len(names), BATCH):
        yield from _play_batch(folder, {name: experiments[name] for name in names[start : start + BATCH]})


def _play_batch(folder: Path, experiments: dict[str, Path]) -> Iterator[Trial]:
    ended = launch_program(
        EVERYONE, "mpi_runs.py", folder / "ranks", *experiments.values(), cwd=folder, timeout=1800
    )
    if ended.code != 0 and len(experiments) > 1:  # whose fault it is shows one by one
        for name, path in experiments.items():
            (again := folder / f"{name}-again").mkdir()
            yield from _play_batch(again, {name: path})
        return
    for name, path in experiments.items():
        fault = _compare(folder, name, path) if ended.code == 0 else ended.stderr[-300:]
        yield Trial(name.partition("-")[0], f"{name}: {fault}" if fault else "")


def _compare(folder: Path, name: str, path: Path) -> str:
    alone = folder / "alone" / name
    try:
        run_federation(SingleCommunicator(), load_experiment(path), alone, Silent())
        assert_did(alone, name)
        for ranks in SIZES:
            assert_same_run(folder / "ranks" / name / str(ranks), alone)
    except Exception as error:  # noqa: BLE001 (goes into the table)
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""
