"""The dataset archive: one HDF5 file a dataset, written once, then memory-mapped by every rank."""

from fedreid_mpi.data.archive.format import HDF5_VERSION, KIND, SplitRole
from fedreid_mpi.data.archive.reader import DatasetArchive
from fedreid_mpi.data.archive.tree import Node, read_tree
from fedreid_mpi.data.archive.verify import verify_dataset
from fedreid_mpi.data.archive.writer import ArchiveContents, write_archive

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
