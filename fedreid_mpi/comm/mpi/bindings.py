"""mpi4py's MPI, told to leave its start and its end to `comm.connect`.

mpi4py would start MPI as it is imported, and end it when the process ends: there it waits forever for a rank
that was lost. It reads these settings once, so all modules import MPI from here.
"""

import sys

import mpi4py

SETTLED_ELSEWHERE = "mpi4py.MPI" in sys.modules
"""Whether another module imported it first: then the settings below come too late."""

mpi4py.rc.initialize = mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

__all__ = ["MPI", "SETTLED_ELSEWHERE"]
