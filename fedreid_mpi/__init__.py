"""Federated person re-identification on clusters, over MPI.

Rank 0 is the server; every other MPI rank is bound to one device and hosts clients. Nothing is
imported here, so that ``fedreid-mpi --help`` answers at once.
"""

__version__ = "0.1.0"
