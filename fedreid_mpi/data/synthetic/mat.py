"""Writing MATLAB files: version 5 by SciPy, version 7.3, which is HDF5, by h5py; the same bytes each time.

In version 7.3 the axes come reversed, a cell array is an array of references, and an empty array is stored as
its shape with the attribute ``MATLAB_empty``.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

USER_BLOCK = 512
"""Bytes before the HDF5 file, which begin with MATLAB's header."""


def write_mat5(path: Path, variables: Mapping[str, NDArray[Any]]) -> None:
    """Write variables in version 5; an array of dtype object is a cell array."""
    from scipy.io import savemat

    buffer = BytesIO()
    savemat(buffer, dict(variables))
    # SciPy writes the time of day into the text that the file begins with.
    path.write_bytes(_text("5.0") + buffer.getvalue()[len(_text("5.0")) :])


def column_of_cells(values: Sequence[Any]) -> NDArray[Any]:
    """Return a cell array of one column."""
    cells = np.empty((len(values), 1), object)
    cells[:, 0] = values
    return cells


def row_of_cells(values: Sequence[Any]) -> NDArray[Any]:
    """Return a cell array of one row; dictionaries become structs."""
    return column_of_cells(values).T


def write_mat73(
    path: Path,
    names: Sequence[str],
    images: Sequence[NDArray[Any]],
    numbers: Mapping[str, Sequence[NDArray[np.float64]]],
) -> None:
    """Write variables in version 7.3, each a cell array of one column.

    Parameters
    ----------
    path
        The file.
    names
        Of variables that hold cell arrays of images, all of them the same.
    images
        Arrays of dtype object and two dimensions: paths of image files, or None for an empty cell.
    numbers
        Arrays of numbers by name of the variable.
    """
    with h5py.File(path, "w", userblock_size=USER_BLOCK) as file:
        stored = file.create_group("#refs#")
        nothing = _put(stored, np.zeros(2, np.uint64), "double")
        nothing.attrs["MATLAB_empty"] = np.uint8(1)
        cells = [[_put_images(stored, paths, nothing).ref] for paths in images]
        for name in names:
            _refer(file, name, cells)
        for name, matrices in numbers.items():
            _refer(file, name, [[_put(stored, matrix.T, "double").ref] for matrix in matrices])
    with path.open("r+b") as stream:
        stream.write(_text("7.3") + bytes(8) + b"\x00\x02IM")


def _text(version: str) -> bytes:
    return f"MATLAB {version} MAT-file, written by fedreid-mpi synth".encode().ljust(116)


def _put_images(stored: h5py.Group, paths: NDArray[Any], nothing: h5py.Dataset) -> h5py.Dataset:
    references = [
        [nothing.ref if path is None else _put_image(stored, path).ref for path in row] for row in paths
    ]
    return _refer(stored, _next_name(stored), references)


def _put_image(stored: h5py.Group, path: Path) -> h5py.Dataset:
    with Image.open(path) as image:
        return _put(stored, np.asarray(image).T, "uint8")


def _put(stored: h5py.Group, reversed_axes: NDArray[Any], kind: str) -> h5py.Dataset:
    item = stored.create_dataset(_next_name(stored), data=reversed_axes)
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    return item


def _refer(group: h5py.Group, name: str, references: list[list[h5py.Reference]]) -> h5py.Dataset:
    item = group.create_dataset(name, data=np.array(references, h5py.ref_dtype).T, dtype=h5py.ref_dtype)
    item.attrs["MATLAB_class"] = np.bytes_("cell")
    return item


def _next_name(stored: h5py.Group) -> str:
    return f"{len(stored):x}"
