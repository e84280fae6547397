"""Gathering the facts of all ranks on the server."""

import os
from pathlib import Path

from fedreid_mpi.comm import Communicator, describe_library
from fedreid_mpi.doctor.facts import Report
from fedreid_mpi.doctor.machine import Surroundings, look_at_rank
from fedreid_mpi.doctor.storage import look_at_storage


def examine(
    comm: Communicator, run_dir: Path, surroundings: Surroundings, problem: str = ""
) -> Report | None:
    """Gather what all ranks find.

    Parameters
    ----------
    comm
        All ranks take part.
    run_dir
        Where a run would write; need not exist.
    surroundings
        As found before MPI was started; the server's count.
    problem
        Why the ranks that were launched could not be joined, or empty.

    Returns
    -------
    Report or None
        On the server.

    Raises
    ------
    PhaseError
        On every rank, if one cannot even look around.
    """
    mine = comm.phase("looking around", lambda: look_at_rank(comm, os.environ))
    ranks = comm.gather(mine)
    storage = look_at_storage(comm, run_dir, mine.node)
    if ranks is None or storage is None:
        return None
    return Report(
        ranks=tuple(ranks),
        launcher=surroundings.launcher,
        mpirun=surroundings.mpirun,
        root=surroundings.root,
        mpi=describe_library(),
        problem=problem,
        job=surroundings.job,
        storage=storage,
        hdf5_locking=os.environ.get("HDF5_USE_FILE_LOCKING", ""),
    )
