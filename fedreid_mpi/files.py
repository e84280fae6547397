"""Writing files so that a reader finds the old one or the new one, and nothing else ever."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write ``path`` anew: give a temporary name beside it, then move that into place.

    The temporary file is flushed to the disk before it is renamed, and the folder after, so that a power cut
    leaves either file whole. On any error, an interrupt included, the temporary file is removed.

    Parameters
    ----------
    path
        The file to make or to replace.

    Yields
    ------
    Path
        The name to write to.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Force a file or folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
