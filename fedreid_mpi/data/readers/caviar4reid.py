"""CAVIAR4REID: stills of a shopping centre by two cameras, for testing alone.

Cheng et al., Custom Pictorial Structures for Re-identification, BMVC 2011. Names tell person and image, not
the camera: as published loaders have it, images 1 to 10 are of the first, those above of the second; not
everybody was seen by both. The federated benchmark's authors (Zhuang et al., ACM TOMM 19(1s), 2023) test on
36 people drawn of those whom both saw, with all images of one camera as queries and of the other as gallery.
"""

import re
from collections import defaultdict
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Record,
    Variant,
    client_counts,
    holds_names,
)
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.views import View, people_and_images
from fedreid_mpi.data.splits import generator, sample
from fedreid_mpi.errors import DataError

NAME = re.compile(r"(?P<pid>\d{4})(?P<image>0(?:0[1-9]|1\d|20))\.jpg", re.ASCII)

FIRST_CAMERA = 10
"""Images up to this number are of camera 0."""

TESTED = 36


def read(root: Path, choices: Choices) -> Listing:
    """Read the folder, and draw the people to test."""
    views = [
        View(path, int(match["pid"]), int(int(match["image"]) > FIRST_CAMERA))
        for path, match in match_folder(root, ".", NAME)
    ]
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for view in views:
        cameras[view.pid].add(view.camid)
    both = sorted(pid for pid, seen in cameras.items() if len(seen) > 1)
    if not both:
        raise DataError(
            f"{root}: no person has images up to {FIRST_CAMERA} and above, so there is nothing to test"
        )
    tested = set(sample(both, TESTED, generator(choices.seed, "caviar4reid", "identities")))
    return Listing(
        (
            tuple(
                Record(*view, SplitRole.GALLERY if view.camid else SplitRole.QUERY)
                for view in views
                if view.pid in tested
            ),
        ),
        drawn=True,
        whole={**people_and_images(views), "shared_people": len(both)},
    )


READER = Reader(
    name="caviar4reid",
    folders=("CAVIARa", "CAVIAR4REID"),
    variants=(
        Variant(
            name="original",
            looks_for="images like 0001001.jpg",
            recognise=holds_names(NAME),
            read=read,
            splits={BENCHMARK: client_counts(cameras=2, train=(0, 0), query=(36, 360), gallery=360)},
            whole={"people": 72, "images": 1_220, "shared_people": 50},
        ),
    ),
)
