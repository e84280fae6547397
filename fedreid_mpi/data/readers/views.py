"""Images before they have a role, as they come from datasets without a split of their own."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
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


Range = tuple[int, int]
"""The least and the most."""


def reach(
    people: Collection[int], trained: int, images: Callable[[int], int], first: Callable[[int], Range]
) -> dict[str, Range]:
    """Describe what drawing the people to train on, and the images of camera 0, can make of the counts.

    Parameters
    ----------
    people
        All of them.
    trained
        How many are drawn.
    images
        Number of a person's images.
    first
        How many of them make camera 0, at least and at most.
    """
    tested = len(people) - trained
    firsts = [first(person) for person in people]
    seconds = [
        (images(person) - most, images(person) - least)
        for person, (least, most) in zip(people, firsts, strict=True)
    ]
    return {
        "train_images": drawn_sum([(images(person), images(person)) for person in people], trained),
        "query_identities": drawn_sum([(min(least, 1), min(most, 1)) for least, most in firsts], tested),
        "query_images": drawn_sum(firsts, tested),
        "gallery_images": drawn_sum(seconds, tested),
    }


def reach_of_views(views: Collection[View], trained: int) -> dict[str, Range]:
    """Describe what drawing the people to train on can make of the counts, where cameras are as they are."""
    images, first = Counter(view.pid for view in views), Counter(view.pid for view in views if not view.camid)
    return reach(people_in(views), trained, images.__getitem__, lambda pid: (first[pid], first[pid]))


def drawn_sum(ranges: Collection[Range], drawn: int) -> Range:
    """Return the least and the most that ``drawn`` of some numbers, known within ranges, can add up to."""
    least = sorted(low for low, _ in ranges)[:drawn]
    most = sorted((high for _, high in ranges), reverse=True)[:drawn]
    return sum(least), sum(most)


def people_and_images(views: Collection[View]) -> dict[str, int]:
    """Count what no draw changes, by the keys of `whole_counts`."""
    return whole_counts(len(people_in(views)), len(views))


def whole_counts(people: int, images: int) -> dict[str, int]:
    """Name the counts of a whole dataset."""
    return {"people": people, "images": images}
