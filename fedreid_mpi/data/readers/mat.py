"""MATLAB files as datasets hold them: versions 5 and 7 read by SciPy, version 7.3, which is HDF5, by h5py.

In version 7.3 the axes come reversed, a cell array is an array of references, an empty array is stored as its
shape with the attribute ``MATLAB_empty``, and a struct is a group whose attribute ``MATLAB_fields`` has the
order of its fields.
"""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.hdf5.container import why_unavailable

Cell = tuple[int, int, int]
"""An inner cell array, a row and a column of it, all from 0."""


@dataclass(frozen=True, slots=True)
class ImageCells:
    """Images in a cell array of cell arrays.

    Attributes
    ----------
    rows
        Number of rows of each inner cell array.
    filled
        Where there is an image, in order.
    read
        Reads an image, shape (height, width, 3), uint8; raises `DataError` where there is something else.
    """

    rows: tuple[int, ...]
    filled: tuple[Cell, ...]
    read: Callable[[Cell], NDArray[np.uint8]]


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """Read a variable.

    Parameters
    ----------
    path
        The file, of any version.
    name
        Of the variable.

    Returns
    -------
    ndarray
        In MATLAB's shape. A cell array has dtype object, and its elements are arrays; text is an array of
        one ``str``.

    Raises
    ------
    DataError
        When the file is missing or damaged, or has no such variable.
    """
    with _reading(path, name):
        if not h5py.is_hdf5(path):
            return _load(path, name)
        with h5py.File(path, "r", locking=False) as file:
            return _value(file, file[name])


def read_struct_cells(path: Path, name: str) -> list[list[NDArray[Any]]]:
    """Read a cell array of structs: the fields of each, in their order, as `read_mat` gives them.

    Raises
    ------
    DataError
        When the file is missing or damaged, or has no such variable, or it is something else.
    """
    if h5py.is_hdf5(path):
        with _reading(path, name), h5py.File(path, "r", locking=False) as file:
            references = np.atleast_1d(_array(file[name])).ravel()
            return [_fields(file, file[reference]) for reference in references]
    cells = read_mat(path, name)
    if cells.dtype != object or not all(cell.dtype.names and cell.size == 1 for cell in cells.flat):
        raise DataError(
            f"{path}: {name} is {cells.dtype} of shape {cells.shape}, expected a cell array of structs"
        )
    return [[cell[field].item() for field in cell.dtype.names] for cell in cells.flat]


def require_integers(where: str, value: NDArray[Any]) -> NDArray[np.int64]:
    """Convert what `read_mat` gave to whole numbers; MATLAB stores them as floating-point ones, too.

    Raises
    ------
    DataError
        When it is something else.
    """
    if value.dtype.kind not in "iuf" or not np.array_equal(value, np.round(value)):
        raise DataError(f"{where}: found {value.dtype} of shape {value.shape}, expected whole numbers")
    return value.astype(np.int64)


def require_texts(where: str, cells: NDArray[Any]) -> list[str]:
    """Convert a cell array of texts, which `read_mat` gave.

    Raises
    ------
    DataError
        When it is something else.
    """
    if cells.dtype != object or not all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells.flat):
        raise DataError(
            f"{where}: found {cells.dtype} of shape {cells.shape}, expected a cell array of texts"
        )
    return [str(cell.item()) for cell in cells.flat]


def open_image_cells(path: Path, name: str) -> ImageCells:
    """Open a cell array of cell arrays of images.

    Images of version 7.3 are read when they are asked for. Of older versions SciPy can only read the variable
    whole: its images are held in memory.

    Raises
    ------
    DataError
        When the file is missing or damaged, or has no such variable.
    """
    get: Callable[[Any], NDArray[Any]] = np.asarray
    with _reading(path, name):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r", locking=False) as file:
                inner = [_array(file[reference]) for reference in _array(file[name]).ravel()]
                empty = [[_is_empty(file[reference]) for reference in cells.flat] for cells in inner]

            def get(reference: h5py.Reference) -> NDArray[Any]:
                with h5py.File(path, "r", locking=False) as file:
                    return _array(file[reference])
        else:
            inner = list(_load(path, name).ravel())
            empty = [[image.size == 0 for image in cells.flat] for cells in inner]
    places = [list(product(range(cells.shape[0]), range(cells.shape[1]))) for cells in inner]
    filled = tuple(
        (number, *place)
        for number in range(len(inner))
        for place, nothing in zip(places[number], empty[number], strict=True)
        if not nothing
    )

    def read(cell: Cell) -> NDArray[np.uint8]:
        number, row, column = cell
        with _reading(path, name):
            image = get(inner[number][row, column])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            where = f"{name}{{{number + 1}}}{{{row + 1},{column + 1}}}"
            raise DataError(f"{path}: {where} is {image.dtype} of shape {image.shape}, expected an RGB image")
        return image

    return ImageCells(tuple(len(cells) for cells in inner), filled, read)


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """Turn all that SciPy and h5py raise on damaged or other files into one line."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, NotImplementedError,
            EOFError, struct.error, zlib.error) as error:  # fmt: skip
        if cause := why_unavailable(error):
            raise DataError(f"{path}: {cause}") from error
        raise DataError(f"{path}: cannot be read as a MATLAB file with '{name}' in it: {error}") from error


def _load(path: Path, name: str) -> NDArray[Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    state = path.stat()
    _require_no_crash(path, state.st_mtime_ns, state.st_size)
    try:
        value: NDArray[Any] = loadmat(path, variable_names=[name])[name]
    except MatReadError as error:
        raise ValueError(str(error)) from error
    return value


@lru_cache(maxsize=64)
def _require_no_crash(path: Path, modified: int, size: int) -> None:
    """Let another process read the file first, once for each state: SciPy crashes on some damaged ones."""
    program = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1])"
    trial = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, check=False)
    if trial.returncode < 0:
        raise ValueError("damaged, reading it ends in a crash")


def _fields(file: h5py.File, struct: h5py.Group) -> list[NDArray[Any]]:
    """Read the fields of a struct in their order."""
    if not isinstance(struct, h5py.Group):
        raise TypeError("it holds something other than structs")
    names = [b"".join(letters.tolist()).decode() for letters in struct.attrs["MATLAB_fields"]]
    return [_value(file, struct[name]) for name in names]


def _value(file: h5py.File, item: h5py.Dataset) -> NDArray[Any]:
    """Read an HDF5 dataset as MATLAB sees it."""
    array = _array(item)
    if array.dtype == object:
        cells = np.empty(array.shape, object)
        for index in np.ndindex(array.shape):
            cells[index] = _value(file, file[array[index]])
        return cells
    if item.attrs.get("MATLAB_class") == b"char":
        return np.array(["".join(map(chr, row)) for row in array])
    return array


def _array(item: h5py.Dataset) -> NDArray[Any]:
    """Read an HDF5 dataset in MATLAB's shape; references stay references."""
    return np.empty(tuple(item[()]), np.uint8) if _is_empty(item) else np.asarray(item[()]).T


def _is_empty(item: h5py.Dataset) -> bool:
    # An empty array is stored as a list of its extents; asking other arrays for the attribute takes time.
    return item.size == 0 or (item.ndim == 1 and bool(item.attrs.get("MATLAB_empty", 0)))
