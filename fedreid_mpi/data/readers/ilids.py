"""i-LIDS, the still images (not the video set iLIDS-VID): no cameras, no official split.

Zheng et al., Associating Groups of People, BMVC 2009. The federated benchmark's client "iLIDS-VID" is this
set: 119 people, 476 images. There, as in the DGD scripts, a random half of a person's images makes pseudo
camera 0, the rest pseudo camera 1. The field's ten splits test one query and one gallery image of a person,
both drawn, and take the number of the image for its camera.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    About,
    Choices,
    Listing,
    Reader,
    Record,
    Variant,
    about,
    client_counts,
    holds_names,
)
from fedreid_mpi.data.readers.names import match_folder
from fedreid_mpi.data.readers.processed import small_variants
from fedreid_mpi.data.readers.split_files import (
    assign_identities,
    cite,
    read_identity_split,
    read_image_lists,
)
from fedreid_mpi.data.readers.views import View, halve, reach, whole_counts
from fedreid_mpi.data.splits import draw_training, generator, sample, sample_half

NAME = re.compile(r"(?P<pid>\d{4})(?P<image>\d{3})\.jpg", re.ASCII)

COUNTS = client_counts(cameras=2, train=(59, 248), query=(60, 98), gallery=130)
DRAWN = about(COUNTS, "train_images", "query_images", "gallery_images")
WHOLE = whole_counts(people=119, images=476)

# How many cameras a split has depends on who is tested: few people have as many as eight images.
STANDARD = {
    "train_identities": 59,
    "train_images": About(238),
    "query_identities": 60,
    "query_images": 60,
    "gallery_images": 60,
}


def read(root: Path, choices: Choices) -> Listing:
    """Read the one folder; draw cameras and splits, or take them from a file."""
    people: defaultdict[int, list[View]] = defaultdict(list)
    for path, match in match_folder(root, ".", NAME):
        people[int(match["pid"])].append(View(path, int(match["pid"]), int(match["image"])))
    listing = (_benchmark if choices.splits == BENCHMARK else _standard)(root, people, choices)
    sizes = {pid: len(shown) for pid, shown in people.items()}
    trained = {record.pid for record in listing.splits[0] if record.role == SplitRole.TRAIN}
    return replace(
        listing,
        whole=whole_counts(len(sizes), sum(sizes.values())),
        reach=reach(sizes, len(trained), sizes.__getitem__, lambda pid: (sizes[pid] // 2, sizes[pid] // 2)),
    )


def _standard(root: Path, people: Mapping[int, Sequence[View]], choices: Choices) -> Listing:
    """Make the field's splits, or read them from a file."""
    if choices.split_file is not None:
        views = [view for each in people.values() for view in each]
        return Listing(read_image_lists(choices.split_file, root, views), notes=(cite(choices.split_file),))
    draws = draw_training(people, len(people) // 2, choices.seed, "ilids", choices.splits)
    splits = [_pair_up(people, training, number, choices.seed) for number, training in enumerate(draws)]
    return Listing(tuple(splits), drawn=True)


def _benchmark(root: Path, people: Mapping[int, Sequence[View]], choices: Choices) -> Listing:
    """Make the benchmark's split, with pseudo cameras."""
    known = None if choices.split_file is None else read_identity_split(choices.split_file)
    views: list[View] = []
    for number, (pid, shown) in enumerate(sorted(people.items())):
        # The authors' files tell how many of a person's images are in camera 0, but not which.
        first = len(shown) // 2
        if known is not None and number < len(known.views):
            first = known.views[number][0]
        in_first = set(sample(shown, first, generator(choices.seed, "ilids", f"cameras of {pid}")))
        views += [View(view.path, pid, 0 if view in in_first else 1) for view in shown]
    if known is not None:
        notes = (cite(known.path), "which of a person's images make pseudo camera 0 is drawn all the same")
        return Listing((assign_identities(known, root, views),), drawn=True, notes=notes)
    training = sample_half(people, generator(choices.seed, "ilids", "identities"))
    return Listing((halve(views, training),), drawn=True)


def _pair_up(
    people: Mapping[int, Sequence[View]], training: set[int], number: int, seed: int
) -> tuple[Record, ...]:
    """Make one of the field's splits: everything of the people trained on, two images of each other."""
    records: list[Record] = []
    for pid, shown in people.items():
        if pid in training:
            records += [Record(*view, SplitRole.TRAIN) for view in shown]
            continue
        rng = generator(seed, "ilids", f"pair {number} of {pid}")
        roles = (SplitRole.QUERY, SplitRole.GALLERY)
        drawn: list[int] = rng.permutation(len(shown))[:2].tolist()
        records += [Record(*shown[index], role) for index, role in zip(drawn, roles, strict=False)]
    return tuple(records)


READER = Reader(
    name="ilids",
    folders=("i-LIDS_Pedestrian/Persons", "i-LIDS", "QMUL-iLIDS"),
    variants=(
        Variant(
            name="original",
            looks_for=NAME.pattern,
            recognise=holds_names(NAME),
            read=read,
            splits={BENCHMARK: DRAWN, "standard": STANDARD},
            whole=WHOLE,
            levels=(".", "Persons"),
            split_file="split.json next to meta.json, or with --splits standard splits.json",
        ),
        *small_variants("ilids", COUNTS, DRAWN, WHOLE),
    ),
)
