"""The one way to read what a user's folder holds: regular files, nothing that could keep a reader waiting."""

import codecs
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
    """Read a file of UTF-8, or of UTF-16 that starts with its mark, with line ends of any kind.

    Editors put byte order marks at the start of files; they are left out.

    Raises
    ------
    OSError
        As `open_regular`.
    UnicodeDecodeError
        It is in another encoding.
    """
    content = read_bytes(path)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
