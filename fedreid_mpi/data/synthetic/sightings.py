"""Who is seen by which camera, how often, and in which split: a dataset before it has pictures."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.synthetic.scales import FixedSplit

Role = Literal["train", "query", "gallery", "distractor", "junk"]


class Sighting(NamedTuple):
    """One picture to be taken of a person (counted from 0) by a camera (counted from 1)."""

    person: int
    camera: int
    role: Role


def share_out(rng: np.random.Generator, total: int, shares: int, least: int) -> NDArray[np.int64]:
    """Split ``total`` into ``shares`` uneven whole parts of at least ``least``.

    What is above ``least`` differs from the mean by up to 40 % either way, before rounding.
    """
    ends = np.cumsum(rng.uniform(0.6, 1.4, shares))
    bounds = np.rint(ends / ends[-1] * (total - least * shares)).astype(np.int64)
    parts: NDArray[np.int64] = least + np.diff(bounds, prepend=0)
    return parts


def fixed_split(rng: np.random.Generator, counts: FixedSplit) -> Iterator[Sighting]:
    """Yield a whole dataset in order of people: those of training, of the queries, then strangers."""
    yield from _training(rng, counts)
    yield from _test(rng, counts)
    person = counts.train_identities + counts.query_identities
    if counts.distractor_identities:
        for images in share_out(rng, counts.distractor_images, counts.distractor_identities, 1):
            camera = int(rng.integers(counts.cameras)) + 1
            yield from (Sighting(person, camera, "distractor") for _ in range(images))
            person += 1
    strangers: tuple[tuple[Role, int], ...] = (
        ("distractor", 0 if counts.distractor_identities else counts.distractor_images),
        ("junk", counts.junk_images),
    )
    for role, images in strangers:
        for camera in rng.integers(counts.cameras, size=images) + 1:
            yield Sighting(person, int(camera), role)
            person += 1


def _training(rng: np.random.Generator, counts: FixedSplit) -> Iterator[Sighting]:
    """Each person passes three to six cameras, where there are so many."""
    for person, images in enumerate(share_out(rng, counts.train_images, counts.train_identities, 2)):
        passed = _passed(rng, counts.cameras, min(counts.cameras, int(rng.integers(3, 7))))
        yield from (Sighting(person, passed[i % len(passed)], "train") for i in range(images))


def _test(rng: np.random.Generator, counts: FixedSplit) -> Iterator[Sighting]:
    """One query for each camera that sees a person; two at least, so that every query has a match."""
    people = counts.query_identities
    known = counts.gallery_images - counts.distractor_images - counts.junk_images
    queries = share_out(rng, counts.query_images, people, 2)
    galleries = share_out(rng, known, people, 2)
    for person, (seen, images) in enumerate(zip(queries, galleries, strict=True), counts.train_identities):
        passed = _passed(rng, counts.cameras, int(seen))
        yield from (Sighting(person, camera, "query") for camera in passed)
        yield from (Sighting(person, passed[i % len(passed)], "gallery") for i in range(images))


def _passed(rng: np.random.Generator, cameras: int, count: int) -> list[int]:
    """Draw ``count`` different cameras in the order in which a person passes them."""
    return [int(camera) + 1 for camera in rng.permutation(cameras)[:count]]
