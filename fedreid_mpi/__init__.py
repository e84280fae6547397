"""Federated person re-identification on clusters, over MPI.

Rank 0 is the server; each other MPI rank is a client bound to one device and one dataset. Nothing is
imported here, so that ``fedreid-mpi --help`` answers at once.
"""

__version__ = "0.1.0"
