"""Who may read what this program writes: its user alone, or the group as well where that is asked for.

Archives, models, saved features and reports tell of people. The process's mask of permissions (umask) decides
for whatever is created, at once; `permissions` for what is replaced or was there before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

PRIVATE, WITH_GROUP = 0o077, 0o027
"""Masks: no access for others; the group may read."""


@contextmanager
def private() -> Iterator[None]:
    """Create what is created for this user alone while the block runs, until `share_with_group` is called."""
    before = os.umask(PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


def share_with_group() -> None:
    """Let the group read what is created from now on."""
    os.umask(WITH_GROUP)


def permissions(folder: bool = False) -> int:
    """Return the permissions of a file or folder: private, unless the mask lets just the group read."""
    mask = os.umask(PRIVATE)
    os.umask(mask)
    return (0o777 if folder else 0o666) & ~(WITH_GROUP if mask == WITH_GROUP else PRIVATE)


def audience() -> str:
    """Return who can read what is written now, for a sentence that ends "readable by"."""
    return "you and your group" if permissions() & 0o040 else "nobody but you"
