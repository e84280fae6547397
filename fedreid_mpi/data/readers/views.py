"""Images before they have a role, as they come from datasets without a split of their own."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from fedreid_mpi.data.readers.base import Record
from fedreid_mpi.data.splits import role_of


class View(NamedTuple):
    """One image: its path relative to the dataset's folder, the person, the camera."""

    path: str
    pid: int
    camid: int


def people_in(views: Iterable[View]) -> list[int]:
    """List the people shown, in ascending order."""
    return sorted({view.pid for view in views})


def halve(views: Iterable[View], training: Collection[int]) -> tuple[Record, ...]:
    """Make a split of images from cameras 0 and 1, given the people to train on; see `role_of`."""
    return tuple(Record(*view, role_of(view.pid, view.camid, training)) for view in views)
