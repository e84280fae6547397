"""VIPeR: two cameras with one image of each person, no official split.

Gray and Tao, Viewpoint Invariant Pedestrian Recognition with an Ensemble of Localized Features, ECCV 2008.
Half of the people are trained on: in the federated benchmark's one split, or in ten over which scores are
averaged. Identity k of the DGD scripts' ``split.json`` is the k-th file name of either camera.
"""

import re
from pathlib import Path

from fedreid_mpi.data.readers.base import BENCHMARK, Choices, Listing, Reader, Variant, client_counts, holds
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import small_variants
from fedreid_mpi.data.readers.two_cameras import split_two_cameras
from fedreid_mpi.data.readers.views import View

NAME = re.compile(r"(?P<pid>\d{3})_(0|45|90|135|180)\.bmp", re.ASCII)

COUNTS = client_counts(cameras=2, train=(316, 632), query=(316, 316), gallery=316)


def read(root: Path, choices: Choices) -> Listing:
    """Read the two folders and split their people."""
    views = [
        View(path, int(match["pid"]), camid)
        for camid, folder in enumerate(("cam_a", "cam_b"))
        for path, match in match_folder(root, folder, NAME)
    ]
    return split_two_cameras(root, views, choices, "viper")


READER = Reader(
    name="viper",
    folders=("VIPeR", "VIPeR.v1.0"),
    variants=(
        Variant(
            name="original",
            looks_for="cam_a, cam_b",
            recognise=holds("cam_a", "cam_b"),
            read=read,
            splits={BENCHMARK: COUNTS, "standard": COUNTS},
            split_file="split.json next to meta.json, or with --splits standard splits.json",
        ),
        *small_variants("viper", COUNTS),
    ),
)
