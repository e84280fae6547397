"""A digest of a whole file at its end, checked before HDF5 sees the file: its library crashes on some damage.

Lists and text of variable length are where it does; dataset archives have none, and need no seal. HDF5
ignores what follows its own bytes, and cuts it off when it changes the file.
"""

import hashlib
import os
from pathlib import Path

from fedreid_mpi.errors import DataError

MARK = b"fedreid_mpi seal"
"""Stands before the SHA-256 of all bytes before the mark."""

_LENGTH = len(MARK) + hashlib.sha256().digest_size
_BLOCK = 1 << 20


def seal(path: Path) -> None:
    """Append the seal to a file."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(MARK + digest)


def require_unbroken(path: Path) -> bool:
    """Refuse a file whose seal does not hold; one without a seal passes.

    Returns
    -------
    bool
        Whether there is a seal: then the file is as this program left it.

    Raises
    ------
    DataError
        When the file is not as it was sealed.
    """
    with path.open("rb") as file:
        left = file.seek(0, os.SEEK_END) - _LENGTH
        file.seek(max(left, 0))
        found = file.read(_LENGTH)
        if not found.startswith(MARK):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        while left > 0:
            block = file.read(min(left, _BLOCK))
            digest.update(block)
            left -= len(block) or left
    if found != MARK + digest.digest():
        raise DataError(f"{path}: damaged: its bytes are not those that were written")
    return True
