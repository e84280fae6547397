"""Trying out the file system of the run directory."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from fedreid_mpi.comm import Communicator
from fedreid_mpi.doctor.facts import StorageFacts
from fedreid_mpi.storage.atomic import flush
from fedreid_mpi.storage.lock import take_lock

MOUNTS = Path("/proc/self/mountinfo")


def look_at_storage(comm: Communicator, run_dir: Path, node: str) -> StorageFacts | None:
    """Write where the run directory is or would be made, and look from every rank.

    Parameters
    ----------
    comm
        All ranks take part.
    run_dir
        Need not exist. Nothing is left behind.
    node
        Where this rank runs.

    Returns
    -------
    StorageFacts or None
        On the server.
    """
    folder, facts = _try_out(run_dir.absolute()) if comm.is_server else (None, None)
    shown = comm.broadcast("" if folder is None else str(folder))
    views = comm.gather(View(node, not shown or Path(shown).is_dir()))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if facts is None or views is None:
        return None
    return replace(
        facts, unseen_by=tuple(sorted(dict.fromkeys(view.node for view in views if not view.seen)))
    )


@dataclass(frozen=True, slots=True)
class View:
    """Whether a node sees the server's folder."""

    node: str
    seen: bool


def _try_out(run_dir: Path) -> tuple[Path | None, StorageFacts]:
    """Make a folder and try everything in it; the folder is left for the other ranks to look for."""
    place = next(path for path in (run_dir, *run_dir.parents) if os.access(path, os.F_OK))
    usage = shutil.disk_usage(place)
    facts = StorageFacts(str(run_dir), mount_type(place), usage.free, usage.total)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".fedreid-doctor-", dir=place))
    except OSError as error:
        return None, replace(facts, error=f"{place}: {error.strerror}")
    try:
        renames = _renames(folder)
    except OSError as error:
        return folder, replace(facts, error=f"{place}: {error.strerror}")
    locks, links, flushes = _locks(folder), _links(folder), flush(folder)
    return folder, replace(facts, renames=renames, locks=locks, links=links, flushes=flushes)


def _renames(folder: Path) -> bool:
    """Replace a file that is open: its readers must still find the old content."""
    file, new = folder / "file", folder / "new"
    file.write_text("old", encoding="ascii")
    new.write_text("new", encoding="ascii")
    with file.open(encoding="ascii") as reader:
        new.replace(file)
        return reader.read() == "old" and file.read_text(encoding="ascii") == "new"


def _locks(folder: Path) -> bool:
    """Lock a file as a run does, which tries whether a second lock is refused."""
    try:
        handle, works = take_lock(folder / "lock", 0.0, lambda: None)
    except OSError:
        return False
    os.close(handle)
    return works


def _links(folder: Path) -> bool:
    try:
        (folder / "link").hardlink_to(folder / "file")
    except OSError:
        return False
    return True


def mount_type(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system of a path, e.g. ``nfs4``.

    Parameters
    ----------
    path
        Must exist.
    mounts
        Text of ``/proc/self/mountinfo``; read from there if left out.
    """
    mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape") if mounts is None else mounts
    real = Path(os.path.realpath(path))
    depth, kind = 0, "unknown"
    for line in mounts.splitlines():
        fields = line.split()
        # Blanks in the names of mount points are written as octal numbers.
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # A later line hides an earlier one of the same point.
        if real.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), fields[fields.index("-") + 1]
    return kind
