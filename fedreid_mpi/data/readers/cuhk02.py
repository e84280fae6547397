"""CUHK02: five pairs of cameras. The public dataset, used without labels; or a client's, with them.

Li and Wang, Locally Aligned Feature Transforms across Views, CVPR 2013. Numbers of people start again in each
pair, so a person is numbered by pair and number. Pair P1 shows people of CUHK01; a path tells its pair.

A client trains on the first four pairs and is tested on the fifth, queries from its first camera, as the
field's loaders split it; or trains on all five and has no test.
"""

import re
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
    holds,
)
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import public_variant

NAME = re.compile(r"(?P<pid>\d{1,4})_\d+\.png", re.ASCII)

PAIRS = range(1, 6)
TESTED = 5
"""The pair that a client is tested on."""

PAIR_STEP = 10_000
"""Person 7 of pair 3 is number 30,007."""

COUNTS = {"cameras": 10, "identities": 1_816, "images": 7_264}


def read(root: Path, choices: Choices) -> Listing:
    """Read the ten folders."""
    records = tuple(
        Record(
            path,
            PAIR_STEP * pair + int(match["pid"]),
            2 * (pair - 1) + side,
            _role(choices.splits, pair, side),
        )
        for pair in PAIRS
        for side in (0, 1)
        for path, match in match_folder(root, f"P{pair}/cam{side + 1}", NAME)
    )
    return Listing((records,))


def _role(splits: str, pair: int, side: int) -> SplitRole:
    if splits == BENCHMARK:
        return SplitRole.PUBLIC
    if splits == "all" or pair != TESTED:
        return SplitRole.TRAIN
    return SplitRole.GALLERY if side else SplitRole.QUERY


READER = Reader(
    name="cuhk02",
    folders=("CUHK02/Dataset",),
    variants=(
        Variant(
            name="original",
            looks_for="P1, P5",
            recognise=holds("P1", "P5"),
            read=read,
            splits={
                BENCHMARK: COUNTS,
                "standard": client_counts(cameras=10, train=(1_577, 6_308), query=(239, 478), gallery=478),
                "all": client_counts(cameras=10, train=(1_816, 7_264), query=(0, 0), gallery=0),
            },
            levels=(".", "Dataset"),
        ),
        public_variant(COUNTS),
    ),
)
