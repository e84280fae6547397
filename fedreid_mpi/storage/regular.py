"""The one way to read what a user's folder holds: regular files, nothing that could keep a reader waiting."""

import os
from io import BufferedReader
from pathlib import Path

from fedreid_mpi.storage.atomic import require_regular


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises
    ------
    OSError
        There is none, it cannot be read, or it is a folder, a pipe, a socket or a device.
    """
    require_regular(path)
    # Should a pipe have come in between, it is not waited for.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_bytes(path: Path) -> bytes:
    """Read a file; raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Read a file of UTF-8 with line ends of any kind; raises as `open_regular`, or UnicodeDecodeError."""
    return read_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")
