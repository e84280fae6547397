"""The run directory: made for one user, held by one job at a time, with the status of its run."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from stat import S_IMODE
from typing import Literal

from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.access import permissions
from fedreid_mpi.storage.atomic import atomic_write, flush, make_folder, write_errors
from fedreid_mpi.storage.lock import take_lock
from fedreid_mpi.storage.regular import read_text

LOCK_FILE = "lock"
STATUS_FILE = "status.json"

NO_LOCKS = "its file system has no working locks: make sure that only one job at a time uses it"
NO_FLUSH = "its file system cannot flush folders: a power cut may lose the last rounds"

PATIENCE = 120.0
"""Seconds until the lock of a holder that is gone must be free; NFS keeps that of a lost node longest."""

DYING = 3.0
"""Seconds that any lock is waited for: a launcher may end before the ranks that it has killed are gone, and
the next start may follow at once."""

State = Literal["running", "interrupted", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a run; ``status.json`` in its directory.

    Attributes
    ----------
    state
        ``interrupted``: was asked to stop, and is resumed by ``train --resume``. A job that was killed leaves
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
    """Make a run directory, and see that it can be written.

    Raises
    ------
    ConfigurationError
        It cannot be made or written.
    """
    try:
        make_folder(run_dir, permissions(folder=True))
        with atomic_write(run_dir / ".writable") as probe:
            probe.touch()
        (run_dir / ".writable").unlink(missing_ok=True)  # another start may be trying the same
    except OSError as error:
        raise ConfigurationError(f"--run-dir {run_dir}: cannot be written: {error.strerror}") from error


def make_private(run_dir: Path) -> None:
    """Keep others out of a run directory, but for the group where it is let in.

    Raises
    ------
    ConfigurationError
        If it belongs to another user.
    """
    wanted, found = permissions(folder=True), S_IMODE(run_dir.stat().st_mode)
    if found & 0o777 == wanted:
        return
    try:
        run_dir.chmod(found & ~0o777 | wanted)
    except OSError as error:
        raise ConfigurationError(
            f"--run-dir {run_dir}: its permissions are {found:o} and cannot be made {wanted:o}: "
            f"{error.strerror}"
        ) from error


@contextmanager
def hold(
    run_dir: Path, inherited: bool = False, waiting: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, ...]]:
    """Hold a run directory against other jobs while the block runs.

    The lock is the kernel's (``flock``), so that it ends with the process, however that ends. Where the file
    system has no such locks, what the file says of its holder is believed.

    Parameters
    ----------
    run_dir
        The directory.
    inherited
        Whether the last holder is known to be gone: its lock is waited for longer, as it may outlive it.
    waiting
        Is called again and again meanwhile.

    Yields
    ------
    tuple of str
        What the file system lacks that a run relies on, in words.

    Raises
    ------
    ConfigurationError
        Another job holds it.
    """
    path = run_dir / LOCK_FILE
    try:
        handle, works = take_lock(path, PATIENCE if inherited else DYING, waiting)
    except BlockingIOError as error:
        raise ConfigurationError(f"--run-dir {run_dir}: in use by {_holder(path)}") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be locked: {error.strerror}") from error
    try:
        if not (works or inherited):
            _believe(path)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_this_holder()).encode(), 0)
        lacks = {NO_LOCKS: works, NO_FLUSH: flush(run_dir)}
        try:
            yield tuple(f"{run_dir}: {text}" for text, able in lacks.items() if not able)
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def require_held(run_dir: Path) -> None:
    """Make sure that this process still holds a run directory.

    Raises
    ------
    ConfigurationError
        The lock file was removed, or replaced by another job's.
    """
    path, mine = run_dir / LOCK_FILE, _this_holder()
    holder = _read_holder(path)
    if any(holder.get(key) != mine[key] for key in ("host", "pid")):
        found = f"names {_holder(path)}" if holder else "was removed or emptied"
        raise ConfigurationError(
            f"{path}: {found}, expected the lock of this run: another job may be using {run_dir}"
        )


def _this_holder() -> dict[str, object]:
    holder: dict[str, object] = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
    if job := os.environ.get("SLURM_JOB_ID"):
        holder["slurm_job"] = job
    return holder


def _read_holder(path: Path) -> dict[str, object]:
    try:
        holder = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _holder(path: Path) -> str:
    """Return who holds a lock, in words."""
    holder = _read_holder(path)
    if not holder:
        return "another process, which is just starting or ending"
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
        return Status(**json.loads(read_text(path)))
    except OSError as error:
        raise DataError(f"{run_dir}: holds no run: {path.name}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged") from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
