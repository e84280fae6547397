"""How a results archive holds its fields on disk, in this version of the format and in version 2.

Since version 3 archives are netCDF-4 files: axes that groups share have their scales at the root, no axis is
there twice in a dataset, and truth values and lists are of types that netCDF knows.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.results.schema import FIELDS, FORMAT_VERSION, INTEGERS, SCALES, TEXT, Field, empty
from fedreid_mpi.storage.hdf5.container import plain

_SCALE_FIELDS = {field.path: field for field in FIELDS if field.path in SCALES.values()}


def version_of(archive: h5py.Group) -> int:
    """Return the version of the format of an archive."""
    return int(plain(archive.attrs["format_version"]))  # type: ignore[call-overload, no-any-return]


def stored_path(field: Field, version: int = FORMAT_VERSION) -> str:
    """Return the group and name of a field."""
    return field.former if version == 2 and field.former else field.path


def stored_axes(field: Field, version: int = FORMAT_VERSION) -> tuple[str, ...]:
    """Return the names of a field's axes; version 2 has the axis of clients twice."""
    return tuple("client" if version == 2 and axis == "other_client" else axis for axis in field.axes)


def stored_scales(version: int = FORMAT_VERSION) -> dict[str, str]:
    """Return for each axis the dataset that is its scale."""
    return {
        axis: stored_path(_SCALE_FIELDS[path], version)
        for axis, path in SCALES.items()
        if version != 2 or axis != "other_client"
    }


def stored_type(field: Field, version: int = FORMAT_VERSION) -> Any:  # noqa: ANN401 (what h5py takes as a type)
    """Return the type of a field's elements; since version 3 int8 for truth values, text for lists."""
    if version == 2:
        return field.dtype
    if field.dtype is np.bool_:
        return np.int8
    return TEXT if field.dtype is INTEGERS else field.dtype


def fields_in(archive: h5py.Group) -> tuple[Field, ...]:
    """Return the fields that an archive must have, and those of the others that it has."""
    return tuple(field for field in FIELDS if not field.optional or field.path in archive)


def encode(field: Field, values: NDArray[Any]) -> NDArray[Any]:
    """Turn values in memory into those that this version stores."""
    if field.dtype is TEXT:
        return values.astype(np.object_)
    if field.dtype is INTEGERS:
        return np.array([",".join(map(str, numbers)) for numbers in values], np.object_)
    return values.astype(stored_type(field))


def read_field(archive: h5py.Group, field: Field) -> NDArray[Any]:
    """Read a field of an archive of any version; words become NumPy strings."""
    if field.optional and field.path not in archive:
        return _absent(archive, field)
    dataset = archive[stored_path(field, version_of(archive))]
    if not h5py.check_string_dtype(dataset.dtype):
        return np.asarray(dataset[()], bool if field.dtype is np.bool_ else None)
    words = dataset.asstr()[()].tolist()
    if field.dtype is TEXT:  # HDF5 types of variable length all equal NumPy's object
        return np.array(words, np.str_)
    lists = np.empty(len(words), np.object_)
    lists[:] = [np.array([int(number) for number in word.split(",") if number], np.int32) for word in words]
    return lists


def _absent(archive: h5py.Group, field: Field) -> NDArray[Any]:
    """Return what an optional field is where an archive lacks it."""
    if field.absent is None:
        return empty(field)
    scales = stored_scales(version_of(archive))  # it has a row of each round, say
    return np.full([len(archive[scales[axis]]) for axis in field.axes], field.absent, dtype=field.dtype)
