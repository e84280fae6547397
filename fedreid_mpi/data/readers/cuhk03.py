"""CUHK03: two cameras, boxes detected or labelled by hand; the two halves test other people.

Li et al., DeepReID: Deep Filter Pairing Neural Network for Person Re-identification, CVPR 2014. In the new
protocol (Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017) it comes as
folders; the original is a MATLAB file. The federated benchmark takes the detected half in the new protocol.
"""

import re
from collections.abc import Callable
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Variant,
    client_counts,
    holds,
    read_folders,
)
from fedreid_mpi.data.readers.cuhk03_mat import mat_variant
from fedreid_mpi.data.readers.processed import pytorch_variant

# Copies of the folders with JPEG files are about as well.
NAME = re.compile(r"(?P<pid>\d{4})_c(?P<cam>[12])_\d+\.(png|jpg)", re.ASCII)

FOLDERS = (
    ("bounding_box_train", SplitRole.TRAIN, NAME),
    ("query", SplitRole.QUERY, NAME),
    ("bounding_box_test", SplitRole.GALLERY, NAME),
)
DETECTED = client_counts(cameras=2, train=(767, 7_365), query=(700, 1_400), gallery=5_332)
LABELED = client_counts(cameras=2, train=(767, 7_368), query=(700, 1_400), gallery=5_328)
_LABELED_NAMES = ("labeled", "labelled")


def read(root: Path, choices: Choices) -> Listing:
    """Read the three folders."""
    return Listing((tuple(read_folders(root, FOLDERS)),))


def _recognise_half(labeled: bool) -> Callable[[Path], str | None]:
    """Return a recogniser of one half: nothing but the folder's name tells which it is."""
    whole = holds(*(folder for folder, _, _ in FOLDERS))

    def recognise(root: Path) -> str | None:
        reason, name = whole(root), root.absolute().name
        if reason is None or name.lower().endswith(_LABELED_NAMES) is not labeled:
            return None
        return f"{reason}, and is called {name}" if labeled else reason

    return recognise


def _folders_variant(name: str, labeled: bool, counts: dict[str, int], levels: tuple[str, ...]) -> Variant:
    named = f"a folder called {' or '.join(_LABELED_NAMES)} with " if labeled else ""
    return Variant(
        name=name,
        looks_for=f"{named}bounding_box_train, query, bounding_box_test",
        recognise=_recognise_half(labeled),
        read=read,
        splits={BENCHMARK: counts},
        levels=levels,
        if_alone=labeled,
    )


READER = Reader(
    name="cuhk03-np",
    folders=("cuhk03-np/detected", "cuhk03-np-detected", "cuhk03-np-labeled", "cuhk03", "cuhk03_release"),
    variants=(
        _folders_variant("detected", False, DETECTED, (".", "detected")),
        _folders_variant("labeled", True, LABELED, (".", *_LABELED_NAMES)),
        pytorch_variant(DETECTED, NAME, validation=767),
        mat_variant("detected", DETECTED),
        mat_variant("labeled", LABELED),
    ),
)
