"""Runs that go wrong on one rank, in every phase and in between; launched under mpirun.

Usage: mpirun -n 3 python -m mpi4py mpi_faults.py phases EXPERIMENT.toml FOLDER DIFFERENCES
       mpirun -n 2 python mpi_faults.py between NAME EXPERIMENT.toml FOLDER

The first plays all of `IN_PHASES` one after the other, since every rank survives each, and writes each
rank's words and exit code to FOLDER/said.json; then all differences of `mpi_consistency`, whose folder
DIFFERENCES is. The second plays one of `BETWEEN_PHASES`; no rank survives it.
"""

import contextlib
import errno
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

from fedreid_mpi.cli import run
from fedreid_mpi.errors import DataError


@dataclass(frozen=True)
class Fault:
    """An error raised on one rank by the ``after + 1``-th call of a function."""

    rank: int
    function: str
    error: Callable[[], BaseException]
    said: str
    code: int = 1
    after: int = 0
    overrides: tuple[str, ...] = ()

    def injected(self):
        """Replace the function while the block runs."""
        module, _, name = self.function.rpartition(".")
        original, calls = getattr(import_module(module), name), iter(range(10**6))

        def faulty(*args, **kwargs):
            if next(calls) < self.after:
                return original(*args, **kwargs)
            raise self.error()

        return mock.patch(self.function, faulty)


def boom():
    return RuntimeError("boom")


def full():
    return OSError(errno.ENOSPC, "No space left on device")


LOCAL = ("federation.mode=local",)
FEDERATION, ROUND, SCORING = (
    "fedreid_mpi.run.loop",
    "fedreid_mpi.federated.round",
    "fedreid_mpi.federated.scoring",
)
JOINING, CHECKPOINT = "fedreid_mpi.run.setup", "fedreid_mpi.run.checkpoint"

IN_PHASES = {
    "experiment": Fault(
        0, "fedreid_mpi.cli.experiments.load_experiment", boom, "rank 0, experiment: RuntimeError: boom"
    ),
    "datasets": Fault(
        0, f"{FEDERATION}.describe_clients", lambda: DataError("viper.h5: bad"), "viper.h5: bad", code=3
    ),
    "run-directory": Fault(
        0,
        "fedreid_mpi.storage.run_directory.atomic_write",
        full,
        "--run-dir RUN_DIR: cannot be written: No space left on device",
        code=2,
    ),
    "start-server": Fault(0, f"{JOINING}.build_network", boom, "rank 0, start: RuntimeError: boom"),
    "start-client": Fault(1, f"{JOINING}.load_data", boom, "rank 1, start: RuntimeError: boom"),
    "start-exit": Fault(2, f"{JOINING}.load_data", SystemExit, "rank 2, start: SystemExit:"),
    "plan": Fault(0, f"{FEDERATION}.plan_round", boom, "rank 0, plan: RuntimeError: boom"),
    "train": Fault(1, f"{ROUND}.train", boom, "rank 1, train: RuntimeError: boom"),
    "train-exit": Fault(2, f"{ROUND}.train", lambda: SystemExit(5), "rank 2, train: SystemExit: 5", code=5),
    "train-interrupt": Fault(2, f"{ROUND}.train", KeyboardInterrupt, "interrupted (rank 2, train)", code=130),
    "train-memory": Fault(2, f"{ROUND}.train", MemoryError, "rank 2, train: MemoryError:", after=1),
    "train-local": Fault(2, f"{SCORING}.score_split", boom, "rank 2, train: RuntimeError: boom", 1, 3, LOCAL),
    "evaluate": Fault(2, f"{SCORING}.extract_features", boom, "rank 2, evaluate: RuntimeError: boom"),
    "rank": Fault(1, f"{SCORING}.score_split", boom, "rank 1, rank: RuntimeError: boom"),
    "aggregate": Fault(0, f"{ROUND}.plan_groups", boom, "rank 0, aggregate: RuntimeError: boom"),
    "commit": Fault(
        0,
        f"{CHECKPOINT}.save_model",
        full,
        "rank 0, commit: OSError: [Errno 28] No space left on device",
        after=2,
    ),
    "commit-client": Fault(
        2, f"{CHECKPOINT}.save_model", boom, "rank 2, commit: RuntimeError: boom", 1, 0, LOCAL
    ),
}

BETWEEN_PHASES = {
    "client-leaves": Fault(
        1, f"{ROUND}.average_models", lambda: SystemExit(0), "rank 1, between phases: SystemExit: 0"
    ),
    "server-fails": Fault(
        0,
        "fedreid_mpi.federated.sums.mean_of",
        MemoryError,
        "rank 0, between phases: MemoryError:",
    ),
}


def train(fault: Fault, rank: int, experiment: str, run_dir: Path) -> int:
    """Run the command line with the fault on its rank; return the exit code."""
    overrides = [word for override in fault.overrides for word in ("--set", override)]
    with fault.injected() if rank == fault.rank else contextlib.nullcontext():
        try:
            return run(["train", experiment, "--run-dir", str(run_dir), *overrides])
        except SystemExit as end:
            return end.code


def play_phases(experiment: str, folder: Path) -> None:
    from mpi4py import MPI

    world, outcomes = MPI.COMM_WORLD, {}
    for name, fault in IN_PHASES.items():
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            code = train(fault, world.rank, experiment, folder / name)
        outcomes[name] = world.gather([code, heard.getvalue()])
    if world.rank == 0:
        (folder / "said.json").write_text(json.dumps(outcomes))


def play_between(name: str, experiment: str, folder: Path) -> int:
    from mpi4py import MPI

    return train(BETWEEN_PHASES[name], MPI.COMM_WORLD.rank, experiment, folder / name)


if __name__ == "__main__":
    if sys.argv[1] == "phases":
        from support.on_ranks import mpi_consistency

        play_phases(sys.argv[2], Path(sys.argv[3]))
        mpi_consistency.main(Path(sys.argv[4]))
    else:
        sys.exit(play_between(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
