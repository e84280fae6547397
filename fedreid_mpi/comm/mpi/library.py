"""What the MPI library offers, asked without starting it."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from fedreid_mpi.comm.mpi.launch import survives_losses


@dataclass(frozen=True, slots=True)
class Library:
    """The MPI library that mpi4py uses.

    Attributes
    ----------
    vendor
        Family, e.g. ``Open MPI`` or ``MPICH``.
    version, standard
        Of the library and of MPI, e.g. ``5.0.11`` and ``3.1``.
    threads
        Level of thread support, or empty where MPI was not started.
    cuda_aware
        Whether messages may lie in GPU memory; None where that cannot be asked. This program's never do.
    fault_tolerant
        Whether the launch can survive the loss of a rank: ``mpirun --with-ft ulfm`` of Open MPI 5.
    """

    vendor: str
    version: str
    standard: str
    threads: str
    cuda_aware: bool | None
    fault_tolerant: bool


def library() -> str:
    """Name the MPI library in use, e.g. ``Open MPI v5.0.11``."""
    from fedreid_mpi.comm.mpi.bindings import MPI

    return MPI.Get_library_version().partition(",")[0].partition("\n")[0].strip()


def describe_library() -> Library | str:
    """Describe the MPI library, started or not; give the reason in words where none loads."""
    try:
        from fedreid_mpi.comm.mpi.bindings import MPI
    except (ImportError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    started = MPI.Is_initialized()
    vendor, version = MPI.get_vendor()
    return Library(
        vendor=vendor,
        version=".".join(map(str, version)),
        standard=".".join(map(str, MPI.Get_version())),
        threads=levels[MPI.Query_thread()] if started else "",
        cuda_aware=_is_cuda_aware() if started else None,
        fault_tolerant=survives_losses(os.environ),
    )


def _is_cuda_aware() -> bool | None:
    """Call the extension that Open MPI and MPICH have for this, and that mpi4py does not offer."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    files = {line.rpartition(" ")[2] for line in maps if "/libmpi" in line}
    for file in sorted(files):
        query = getattr(ctypes.CDLL(file), "MPIX_Query_cuda_support", None)
        if query is not None:
            return bool(query())
    return None
