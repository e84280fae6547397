"""Ranks that do not see the same: other versions, other folders, other archives, too few GPUs.

Three ranks call `main`, whose folder holds the folders `here` and `there`, each with its site.h5 and
public.h5. Experiment and run directory are named through /proc/self/cwd, so that they lie where a rank is, as
on nodes with disks of their own. All of `DIFFERENCES` are played one after the other; each rank's exit code
and words go to said.json in the folder.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fedreid_mpi.cli import run

CWD = Path("/proc/self/cwd")
NOBODY = 65534


@dataclass(frozen=True)
class Difference:
    """What one rank, or every one, sees otherwise, and what the server says of it."""

    rank: int | None
    seen: Callable[[], AbstractContextManager[object]]
    said: str
    code: int = 2
    overrides: tuple[str, ...] = ()


def elsewhere() -> AbstractContextManager[object]:
    return contextlib.chdir("../there")


@contextlib.contextmanager
def as_nobody():
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def library(name: str, version: str) -> AbstractContextManager[object]:
    from fedreid_mpi.run.consistency import version as installed

    return mock.patch(
        "fedreid_mpi.run.consistency.version", lambda asked: version if asked == name else installed(asked)
    )


SITE = "data.archives=['/proc/self/cwd/site.h5']"

DIFFERENCES = {
    "package": Difference(
        2,
        lambda: mock.patch("fedreid_mpi.run.consistency.__version__", "0.0.7"),
        r"rank 2 on \S+ runs fedreid_mpi 0.0.7, expected \S+ as on the server",
    ),
    "torch": Difference(
        1,
        lambda: library("torch", "1.13.0"),
        r"rank 1 on \S+ runs torch 1.13.0, expected \S+ as on the server",
    ),
    "timm": Difference(
        2,
        lambda: library("timm", "(not installed)"),
        r"rank 2 on \S+ runs timm \(not installed\), expected \S+ as on the server",
    ),
    "run-dir": Difference(
        2,
        elsewhere,
        r"--run-dir /proc/self/cwd/run-dir: for rank 2 on \S+ it is not the server's folder, "
        "expected a folder that all nodes share",
    ),
    "run-dir-private": Difference(
        1, as_nobody, r"--run-dir .*: for rank 1 on \S+ it cannot be read \(Permission denied\), expected"
    ),
    "archive": Difference(
        1,
        elsewhere,
        r"/proc/self/cwd/site.h5: rank 1 on \S+ finds content digest \w{64}, expected content digest \w{64}",
        code=3,
        overrides=(SITE,),
    ),
    "archive-missing": Difference(
        2,
        lambda: contextlib.chdir("/"),
        r"/proc/self/cwd/site.h5: rank 2 on \S+ finds no such file, expected content digest \w{64}",
        code=3,
        overrides=(SITE,),
    ),
    "public": Difference(
        2,
        elsewhere,
        r"/proc/self/cwd/public.h5: rank 2 on \S+ finds content digest \w{64}, expected",
        code=3,
        overrides=("data.public='/proc/self/cwd/public.h5'", "distillation.enabled=true"),
    ),
    "gpus": Difference(
        None,
        lambda: mock.patch("torch.cuda.device_count", return_value=1),
        r"\S+ has 1 GPU for 2 client ranks; start fewer, or set compute.share_gpus = true",
        overrides=("compute.device=cuda",),
    ),
}


def train(name: str, rank: int, folder: Path) -> int:
    """Run the command line where the rank is, and see what it sees."""
    case = DIFFERENCES[name]
    # What the case is about lies where the rank is; the run directory is shared otherwise.
    run_dir = CWD / name if name == "run-dir" else folder / name
    overrides = [word for override in case.overrides for word in ("--set", override)]
    with case.seen() if case.rank in (rank, None) else contextlib.nullcontext():
        try:
            return run(["train", str(folder / "here.toml"), "--run-dir", str(run_dir), *overrides])
        except SystemExit as end:
            return end.code


def main(folder: Path) -> None:
    from mpi4py import MPI

    world, outcomes = MPI.COMM_WORLD, {}
    os.chdir(folder / "here")
    for name in DIFFERENCES:
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            code = train(name, world.rank, folder)
        outcomes[name] = world.gather([code, heard.getvalue()])
    if world.rank == 0:
        (folder / "said.json").write_text(json.dumps(outcomes))
