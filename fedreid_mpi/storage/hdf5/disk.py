"""Letting HDF5 write to a disk that may be full or failing: its library crashes where a write fails."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


class _Disk:
    """A file, as h5py wants one, that never fails: what the disk refuses stays in memory.

    HDF5 reads back what it has written, so nothing may be dropped. From the first error on everything is kept
    in memory; the error ends the writing soon.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._kept: list[tuple[int, bytes]] = []
        self._position = self._end = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        """Read from the disk, as far as that goes, then lay over it what is in memory."""
        start = self._position
        self._position = stop = max(start, min(start + size, self._end))
        content = bytearray(stop - start)
        try:
            self._file.seek(start)
            self._file.readinto(content)
        except OSError as error:
            self.error = self.error or error
        for offset, data in self._kept:
            first, last = max(start, offset), min(stop, offset + len(data))
            if first < last:
                content[first - start : last - start] = data[first - offset : last - offset]
        return bytes(content)

    def write(self, data: memoryview) -> int:
        """Write to the disk or, from the first error on, to memory."""
        data = memoryview(data).cast("B")
        written = 0
        try:
            self._file.seek(self._position)
            while self.error is None and written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._kept.append((self._position, bytes(data)))
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        try:
            if self.error is None:
                self._file.truncate(size)
        except OSError as error:
            self.error = error
        self._end = size
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
