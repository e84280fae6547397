"""Market-1501: six cameras, the split in the folders.

Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015. The gallery holds junk (pid -1:
neither right nor wrong for any query) and distractors (pid 0: wrong for every query), which are kept as such;
copies without them are about. ``gt_bbox`` holds the boxes for multi-query scoring.
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
    for_queries,
    holds,
    read_folders,
)
from fedreid_mpi.data.readers.names import image_names
from fedreid_mpi.data.readers.processed import pytorch_variant

_REST = r"_c(?P<cam>[1-6])s[1-6]_\d{6}_\d{2}\.jpg"
PERSON = re.compile(r"(?P<pid>(?!0000)\d{4})" + _REST, re.ASCII)
ANYTHING = re.compile(r"(?P<pid>-1|\d{4})" + _REST, re.ASCII)

FOLDERS = (
    ("bounding_box_train", SplitRole.TRAIN, PERSON),
    ("query", SplitRole.QUERY, PERSON),
    ("bounding_box_test", SplitRole.GALLERY, ANYTHING),
)
MULTI_QUERY = ("gt_bbox", SplitRole.MULTI_QUERY, ANYTHING)

# Of the published gallery, 13,115 images show people of the queries.
JUNK, DISTRACTORS = 3_819, 2_798
COUNTS = client_counts(cameras=6, train=(751, 12_936), query=(750, 3_368), gallery=19_732)


def read(root: Path, choices: Choices) -> Listing:
    """Read the three folders, and the multi-query boxes where there are any."""
    records = read_folders(root, FOLDERS)
    notes: list[str] = []
    if (root / "gt_bbox").is_dir():
        boxes = read_folders(root, [MULTI_QUERY])
        used = for_queries(boxes, records)
        records += used
        notes.append(
            f"gt_bbox: {len(used)} of {len(boxes)} boxes serve multi-query scoring, others are left out"
        )
    if (root / "images").is_dir():
        notes.append("images: the 500k distractors are not part of the benchmark and are left out")
    return Listing((tuple(records),), notes=tuple(notes))


def _recognise_gallery(prefix: str, what: str) -> Callable[[Path], str | None]:
    """Return a recogniser of the three folders, with an image in the gallery whose name starts so."""
    layout = holds(*(folder for folder, _, _ in FOLDERS))

    def recognise(root: Path) -> str | None:
        reason = layout(root)
        if reason is None or not any(
            name.startswith(prefix) for name in image_names(root / "bounding_box_test")
        ):
            return None
        return f"{reason}, this with {what}"

    return recognise


def _variant(name: str, prefix: str, what: str, gallery: int) -> Variant:
    return Variant(
        name=name,
        looks_for=f"bounding_box_train, query, bounding_box_test with {what}",
        recognise=_recognise_gallery(prefix, what),
        read=read,
        splits={BENCHMARK: {**COUNTS, "gallery_images": gallery}},
    )


_GALLERY = COUNTS["gallery_images"]

READER = Reader(
    name="market1501",
    folders=("Market-1501-v15.09.15", "Market-1501", "Market"),
    variants=(
        _variant("original", "-1_", "junk -1", _GALLERY),
        _variant("without-junk", "0000_", "distractors 0000 but no junk", _GALLERY - JUNK),
        _variant("matches-only", "", "neither distractors nor junk", _GALLERY - JUNK - DISTRACTORS),
        pytorch_variant(COUNTS, ANYTHING, validation=751),
    ),
)
