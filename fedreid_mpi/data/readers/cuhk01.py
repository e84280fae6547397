"""CUHK01: two cameras with two images of each person, no official split.

Li et al., Human Reidentification with Transferred Metric Learning, ACCV 2012. Images 1 and 2 are from one
camera, 3 and 4 from the other. Half of the people are trained on: in the federated benchmark's one split, or
in ten over which scores are averaged; the field's other custom tests 100 people and trains on the rest.
Identity k of the DGD scripts' ``split.json`` is person k + 1.
"""

import re
from pathlib import Path

from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Variant,
    client_counts,
    holds_names,
)
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import small_variants
from fedreid_mpi.data.readers.two_cameras import split_two_cameras
from fedreid_mpi.data.readers.views import View, people_in

NAME = re.compile(r"(?P<pid>\d{4})(?P<image>00[1-4])\.png", re.ASCII)

COUNTS = client_counts(cameras=2, train=(485, 1_940), query=(486, 972), gallery=972)
MOSTLY_TRAINED = "871-100"


def read(root: Path, choices: Choices) -> Listing:
    """Read the one folder and split its people."""
    views = [
        View(path, int(match["pid"]), (int(match["image"]) - 1) // 2)
        for path, match in match_folder(root, ".", NAME)
    ]
    people = len(people_in(views))
    trained = round(people * 871 / 971) if choices.splits == MOSTLY_TRAINED else people // 2
    return split_two_cameras(root, views, choices, "cuhk01", trained)


READER = Reader(
    name="cuhk01",
    folders=("CUHK01/campus", "campus"),
    variants=(
        Variant(
            name="original",
            looks_for=NAME.pattern,
            recognise=holds_names(NAME),
            read=read,
            splits={
                BENCHMARK: COUNTS,
                "standard": COUNTS,
                MOSTLY_TRAINED: client_counts(cameras=2, train=(871, 3_484), query=(100, 200), gallery=200),
            },
            levels=(".", "campus"),
            split_file="split.json next to meta.json, or with other --splits splits.json",
        ),
        *small_variants("cuhk01", COUNTS),
    ),
)
