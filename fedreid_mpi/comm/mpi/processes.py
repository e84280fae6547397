"""The processes behind the ranks: a rank that hangs is ended by one that runs on the same host."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.comm.mpi.bindings import MPI


@dataclass(frozen=True, slots=True)
class Process:
    """A process, distinguished from any that gets the same number later.

    Attributes
    ----------
    host
        Name of the node.
    pid
        Number of the process there.
    started
        When it started, in clock ticks since the node did; empty where the system does not say.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> "Process":
        """Describe the calling process."""
        return cls(MPI.Get_processor_name(), os.getpid(), _started(os.getpid()))

    def kill(self) -> bool:
        """End it with SIGKILL, which a stopped process cannot put off; tell whether it was there.

        Only for processes of this host.
        """
        if not self.started or _started(self.pid) != self.started:
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped it until another one comes; only for processes of this host."""
        return bool(self.started) and _started(self.pid) == self.started and _fields(self.pid)[0] in "Tt"


def _started(pid: int) -> str:
    """Return when a process started, or an empty string where there is none of that number."""
    fields = _fields(pid)
    return fields[19] if fields else ""


def _fields(pid: int) -> list[str]:
    """Return ``/proc/PID/stat`` from its third field on; the second, a name in brackets, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
