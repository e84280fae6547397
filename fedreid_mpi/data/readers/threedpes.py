"""3DPeS, the snapshots: eight cameras that names do not tell, no agreed split.

Baltieri et al., 3DPeS: 3D People Dataset for Surveillance and Forensics, J-HGBU 2011. Names tell the
sequence. As in the DGD scripts, a random half of a person's sequences makes pseudo camera 0, the rest pseudo
camera 1. Those scripts numbered people in an order that nobody can repeat, so their ``split.json`` is of use
only with the images that they copied.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Variant,
    about,
    client_counts,
    holds_names,
)
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import small_variants
from fedreid_mpi.data.readers.views import (
    Range,
    View,
    drawn_sum,
    halve,
    people_and_images,
    reach,
    whole_counts,
)
from fedreid_mpi.data.splits import generator, sample, sample_half

NAME = re.compile(r"(?P<pid>\d+)_(?P<sequence>\d+)_FRAME_\d+_RGB\.bmp", re.ASCII)

COUNTS = client_counts(cameras=2, train=(93, 450), query=(86, 246), gallery=316)
DRAWN = about(COUNTS, "train_images", "query_identities", "query_images", "gallery_images")
WHOLE = whole_counts(people=193, images=1_012)


def read(root: Path, choices: Choices) -> Listing:
    """Read the one folder; draw pseudo cameras and the split."""
    people: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for path, match in match_folder(root, ".", NAME):
        people[int(match["pid"])].append((path, int(match["sequence"])))
    pids = sorted(people)
    trained = training_share(len(pids))
    training = set(sample(pids, trained, generator(choices.seed, "3dpes", "identities")))
    views: list[View] = []
    for pid, images in people.items():
        sequences = (sequence for _, sequence in images)
        first = sample_half(sequences, generator(choices.seed, "3dpes", f"cameras of {pid}"))
        views += [View(path, pid, 0 if sequence in first else 1) for path, sequence in images]
    return Listing(
        (halve(views, training),),
        drawn=True,
        whole=people_and_images(views),
        reach=reach(
            pids,
            trained,
            lambda pid: len(people[pid]),
            lambda pid: _first_half(Counter(sequence for _, sequence in people[pid])),
        ),
    )


def _first_half(sequences: Counter[int]) -> Range:
    """Describe how many images the smaller half of some sequences has, at least and at most."""
    return drawn_sum([(images, images) for images in sequences.values()], len(sequences) // 2)


def training_share(people: int) -> int:
    """Return how many people to train on: the published share, 93 of 193."""
    return round(people * 93 / 193)


READER = Reader(
    name="3dpes",
    folders=("3DPeS/RGB", "3DPeS_ReId_Snap"),
    variants=(
        Variant(
            name="original",
            looks_for=NAME.pattern,
            recognise=holds_names(NAME),
            read=read,
            splits={BENCHMARK: DRAWN},
            whole=WHOLE,
            levels=(".", "RGB"),
        ),
        *small_variants("3dpes", COUNTS, DRAWN, WHOLE, training_share),
    ),
)
