"""The dataset archive: one HDF5 file per dataset, written once, then memory-mapped by every rank."""

from fedreid_mpi.data.archive.format import KIND, SplitRole
from fedreid_mpi.data.archive.reader import DatasetArchive
from fedreid_mpi.data.archive.verify import verify_dataset
from fedreid_mpi.data.archive.writer import ArchiveContents, write_archive
from fedreid_mpi.storage.hdf5.container import HDF5_VERSION
from fedreid_mpi.storage.hdf5.tree import Node, read_tree

__all__ = [
    "HDF5_VERSION",
    "KIND",
    "ArchiveContents",
    "DatasetArchive",
    "Node",
    "SplitRole",
    "read_tree",
    "verify_dataset",
    "write_archive",
]
