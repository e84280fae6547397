"""What is in any archive of this program, as a list of groups and datasets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fedreid_mpi.storage.hdf5.container import open_archive, plain

# Written by HDF5 to tie axes to their scales; they mean nothing to a reader.
_HOUSEKEEPING = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"})


@dataclass(frozen=True, slots=True)
class Node:
    """One group or dataset.

    Attributes
    ----------
    name
        Full path in the file; ``/`` for the root.
    shape, dtype
        Of a dataset; None for a group.
    attributes
        Name to value, sorted by name.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str | None
    attributes: dict[str, object]


def read_tree(path: Path) -> list[Node]:
    """List everything in an archive, each group before what is in it.

    Raises
    ------
    DataError
        When the file is missing, damaged, or none of this program's.
    """
    with open_archive(path) as file:
        nodes = [_node(file)]
        file.visititems(lambda _, item: nodes.append(_node(item)))
    return nodes


def _node(item: h5py.Group | h5py.Dataset) -> Node:
    if isinstance(item, h5py.Dataset):
        return Node(item.name, item.shape, type_name(item.dtype), read_attributes(item))
    return Node(item.name, None, None, read_attributes(item))


def read_attributes(item: h5py.Group | h5py.Dataset) -> dict[str, object]:
    """Read the attributes of a group or dataset, sorted by name, without those that are HDF5's own."""
    attributes = item.attrs
    return {key: plain(attributes[key]) for key in sorted(attributes) if key not in _HOUSEKEEPING}


def type_name(dtype: np.dtype[Any]) -> str:
    """Name the type of a dataset's elements, e.g. ``int32``, ``text`` or ``lists of int32``."""
    if h5py.check_string_dtype(dtype):
        return "text"
    element = h5py.check_vlen_dtype(dtype)
    return f"lists of {element}" if element else str(dtype)
