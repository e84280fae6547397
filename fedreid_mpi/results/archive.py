"""One results archive as an HDF5 group: the root of a file of its own, or a part of a larger one."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.results.layouts import encode, fields_in, stored_type
from fedreid_mpi.results.schema import ABOUT, FIELDS, FORMAT_VERSION, GROUPS, KIND, SCALES
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest

HDF5_OPTIONS: Mapping[str, Any] = {"libver": ("earliest", "v108")}
"""Of every file that is written: any library since HDF5 1.8 reads it."""


def write_archive(
    group: h5py.Group, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a whole archive into an empty group.

    Parameters
    ----------
    group
        Receives it.
    attributes
        Root attributes of `fedreid_mpi.results.file_kinds.RESULTS`; what the file is and the content digest
        are added here, truth values become integers.
    arrays
        Path to array, one for each of `fedreid_mpi.results.schema.FIELDS`.
    """
    for name, description in GROUPS.items():
        group.create_group(name).attrs["description"] = description
    for field in FIELDS:
        values = encode(field, arrays[field.path])
        dataset = group.create_dataset(field.path, data=values, dtype=stored_type(field))
        dataset.attrs["description"] = field.description
        dataset.attrs["units"] = field.units
        dataset.attrs["volatile"] = np.int8(field.volatile)
        if field.dtype is np.bool_:
            dataset.attrs["dtype"] = "bool"  # by which xarray knows them
    for axis, scale in SCALES.items():
        group[scale].make_scale(axis)
    for field in FIELDS:
        for dimension, axis in zip(group[field.path].dims, field.axes, strict=True):
            dimension.label = axis
            if field.path != SCALES[axis]:  # HDF5 allows no scale on a scale
                dimension.attach_scale(group[SCALES[axis]])
    about = {"kind": KIND, "format_version": FORMAT_VERSION, "description": ABOUT}
    for name, value in {**attributes, **about}.items():  # last: what is cut off is no archive
        group.attrs[name] = np.int8(value) if isinstance(value, bool) else value
    group.attrs[CONTENT_DIGEST] = content_digest(group)


def copy_archive(source: h5py.Group, parent: h5py.Group, name: str) -> None:
    """Copy an archive of this version into another file, as it is, its content digest included.

    HDF5 copies it several times faster than it could be written anew, but the references that tie axes to
    their scales would point nowhere: they are made again. The low-level interface is used for speed.
    """
    h5py.h5o.copy(source.id, b".", parent.id, name.encode())
    fields = fields_in(source)
    copied = {field.path: h5py.h5d.open(parent.id, f"{name}/{field.path}".encode()) for field in fields}
    for dataset in copied.values():
        for reference in (b"DIMENSION_LIST", b"REFERENCE_LIST"):
            if h5py.h5a.exists(dataset, reference):
                h5py.h5a.delete(dataset, reference)
    for field in fields:
        for dimension, axis in enumerate(field.axes):
            if field.path != SCALES[axis]:
                h5py.h5ds.attach_scale(copied[field.path], copied[SCALES[axis]], dimension)
