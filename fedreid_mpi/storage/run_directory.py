"""The run directory: made for one user, held by one job at a time, with a word on how its run stands."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.atomic import atomic_write, write_errors

LOCK_FILE = "lock"
STATUS_FILE = "status.json"

NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that know no flock."""

PATIENCE = 120.0
"""Seconds until the lock of a holder that is gone must be free; NFS keeps that of a lost node longest."""

State = Literal["running", "interrupted", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a run stands; ``status.json`` in its directory.

    Attributes
    ----------
    state
        ``interrupted``: was asked to stop, and goes on with ``train --resume``. A job that was killed leaves
        ``running``.
    round
        The last round in the results; -1: none.
    rounds
        Number of the last round.
    attempt
        1 for the first start of the run.
    reason
        Why it stopped or failed.
    when
        UTC, ISO 8601.
    """

    state: State
    round: int
    rounds: int
    attempt: int
    reason: str = ""
    when: str = ""


def make_run_dir(run_dir: Path) -> None:
    """Make a run directory, private to its user.

    Raises
    ------
    ConfigurationError
        It cannot be made or written.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(run_dir / ".writable") as probe:
            probe.touch()
        (run_dir / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(f"--run-dir {run_dir}: cannot be written: {error.strerror}") from error


@contextmanager
def hold(run_dir: Path, inherited: bool = False) -> Iterator[None]:
    """Hold a run directory against other jobs while the block runs.

    The lock is the kernel's (``flock``), so that it ends with the process, however that ends. Where the file
    system has no such locks, what the file says of its holder is believed.

    Parameters
    ----------
    run_dir
        The directory.
    inherited
        Whether the last holder is known to be gone: its lock is waited for, as it may outlive it a little.

    Raises
    ------
    ConfigurationError
        Another job holds it.
    """
    path = run_dir / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file, PATIENCE if inherited else 0.0)
        except BlockingIOError as error:
            raise ConfigurationError(f"--run-dir {run_dir}: in use by {_holder(path)}") from error
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise ConfigurationError(f"{path}: cannot be locked: {error.strerror}") from error
            if not inherited:
                _believe(path)
        _write_holder(file)
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: TextIO, patience: float) -> None:
    """Take the kernel's lock, waiting for it so many seconds at most."""
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.05)


def _write_holder(file: TextIO) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
    if job := os.environ.get("SLURM_JOB_ID"):
        holder["slurm_job"] = job
    file.truncate(0)
    file.write(json.dumps(holder))
    file.flush()


def _read_holder(path: Path) -> dict[str, object]:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _holder(path: Path) -> str:
    """Say who holds a lock, in words."""
    holder = _read_holder(path)
    words = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    if "slurm_job" in holder:
        words += f", SLURM job {holder['slurm_job']}"
    return f"{words}, since {holder.get('since', '?')}"


def _believe(path: Path) -> None:
    """Refuse a directory whose lock file names a job that may still live."""
    holder = _read_holder(path)
    if not holder:
        return
    if holder.get("host") == socket.gethostname() and not _is_alive(holder.get("pid")):
        return
    raise ConfigurationError(
        f"--run-dir {path.parent}: in use by {_holder(path)}; if that job is gone, remove {path}"
    )


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def write_status(run_dir: Path, status: Status) -> None:
    """Replace the status file; the time is filled in."""
    content = {**asdict(status), "when": _now()}
    with write_errors(run_dir / STATUS_FILE), atomic_write(run_dir / STATUS_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_status(run_dir: Path) -> Status:
    """Read the status file.

    Raises
    ------
    DataError
        There is none: the folder holds no run; or it is damaged.
    """
    path = run_dir / STATUS_FILE
    try:
        return Status(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{run_dir}: holds no run: {path.name}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged") from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
