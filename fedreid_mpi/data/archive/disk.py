"""Letting HDF5 write to a disk that may be full: its library crashes the process where a write fails."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


class _Disk:
    """A file, as h5py wants one, that accepts everything; the first error is kept, and ends the writing."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        return self._file.readinto(buffer)

    def write(self, data: memoryview) -> int:
        written = 0
        try:
            while self.error is None and written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            if self.error is None:
                self._file.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def check(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self.error is not None:
            raise self.error


@contextmanager
def create_hdf5(path: Path, **options: Any) -> Iterator[tuple[h5py.File, Callable[[], None]]]:  # noqa: ANN401
    """Create an HDF5 file, on a disk that may be full.

    Parameters
    ----------
    path
        The file; one that exists is emptied.
    options
        For `h5py.File`.

    Yields
    ------
    file : h5py.File
        Open for writing.
    check : callable
        Raises what went wrong up to now. The end of the block does, too; long work ends sooner by calling it.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    with path.open("wb+", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w", **options) as file:
                yield file, disk.check
        finally:
            disk.check()
