"""CUHK02, the public dataset: five pairs of cameras, used without labels.

Li and Wang, Locally Aligned Feature Transforms across Views, CVPR 2013. Numbers of people start again in each
pair, so a person is numbered by pair and number. Pair P1 shows people of CUHK01; a path tells its pair.
"""

import re
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import BENCHMARK, Choices, Listing, Reader, Record, Variant, holds
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import public_variant

NAME = re.compile(r"(?P<pid>\d{1,4})_\d+\.png", re.ASCII)

PAIRS = range(1, 6)
PAIR_STEP = 10_000
"""Person 7 of pair 3 is number 30,007."""

COUNTS = {"cameras": 10, "identities": 1_816, "images": 7_264}


def read(root: Path, choices: Choices) -> Listing:
    """Read the ten folders."""
    records = tuple(
        Record(path, PAIR_STEP * pair + int(match["pid"]), 2 * (pair - 1) + side, SplitRole.PUBLIC)
        for pair in PAIRS
        for side in (0, 1)
        for path, match in match_folder(root, f"P{pair}/cam{side + 1}", NAME)
    )
    return Listing((records,))


READER = Reader(
    name="cuhk02",
    folders=("CUHK02/Dataset",),
    variants=(
        Variant(
            name="original",
            looks_for="P1, P5",
            recognise=holds("P1", "P5"),
            read=read,
            splits={BENCHMARK: COUNTS},
            levels=(".", "Dataset"),
        ),
        public_variant(COUNTS),
    ),
)
