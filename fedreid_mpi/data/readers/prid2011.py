"""PRID 2011: two cameras, single shots and frames of many people that only one of them saw.

Hirzer et al., Person Re-Identification by Descriptive and Discriminative Classification, SCIA 2011. Numbers
up to 200 that both cameras have are shared people; above, the same number in the other camera is somebody
else. There are three ways to split it:

* The federated benchmark's: half of the shared people are probes with one image a camera; the other half, and
  those that only camera A saw, are trained on, with up to ten frames per camera; those that only camera B saw
  fill the gallery.
* The field's for single shots: ten splits, half of the shared people to train on; the gallery is alike.
* The field's for video: ten splits of the shared people with long tracks, all frames of them.

Numbers of identities in the DGD scripts' ``split.json`` cannot be used here, as those of shared people were
given at random.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Record,
    Variant,
    about,
    client_counts,
    holds,
)
from fedreid_mpi.data.readers.names import few, list_folder, match_folder, match_names
from fedreid_mpi.data.readers.processed import prid_variants
from fedreid_mpi.data.readers.split_files import cite, read_people_lists
from fedreid_mpi.data.readers.views import drawn_sum
from fedreid_mpi.data.splits import draw_training, generator, sample, sample_half
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.wording import counted

PERSON = re.compile(r"person_(?P<pid>\d{4})\.png", re.ASCII)
FOLDER = re.compile(r"person_(?P<pid>\d{4})", re.ASCII)
FRAME = re.compile(r"(?P<frame>\d{4})\.png", re.ASCII)

CAMERAS = ("cam_a", "cam_b")
LAST_SHARED = 200
FRAMES = 10
CAMERA_B_ONLY = 10_000
"""Added to the numbers of people that only camera B saw."""

COUNTS = client_counts(cameras=2, train=(285, 3_744), query=(100, 100), gallery=649)

FRAMES_ALONE = "camera_a_only_frames"
"""Key of the training images of those that only camera A saw, all of whom are trained on."""

WHOLE = {"camera_a_people": 385, "camera_b_people": 749, "shared_people": LAST_SHARED, FRAMES_ALONE: 1_768}

VIDEO = "video"
LONG_TRACKS = 178 / LAST_SHARED
"""Share of the shared people with tracks long enough for the video splits (of more than some 20 frames)."""


def read(root: Path, choices: Choices) -> Listing:
    """Read single shots, frames or both, as the chosen splits need them."""
    if choices.splits == VIDEO:
        return _read_video(root, choices)
    single = [
        {int(match["pid"]): path for path, match in match_folder(root, f"single_shot/{camera}", PERSON)}
        for camera in CAMERAS
    ]
    shared = _shared(single)
    if choices.splits != BENCHMARK:
        return replace(_single_shot(root, single, shared, choices), whole=_count_people(single))
    if choices.split_file is not None:
        raise ConfigurationError(
            f"--split-file {choices.split_file}: the benchmark's numbers of PRID2011's people are random and "
            f"not known; expected lists of people with --splits standard or {VIDEO}"
        )
    training = sample_half(shared, generator(choices.seed, "prid2011", "identities"))
    records = _test(single, shared, shared - training)
    gaps: list[str] = []
    sizes: Counter[int] = Counter()
    for camid, shots in enumerate(single):
        for pid in shots:
            if pid not in shared and camid == 1:
                continue
            frames = _frames(root, pid, camid, gaps)
            sizes[pid] += min(len(frames), FRAMES)
            if pid in training or pid not in shared:
                rng = generator(choices.seed, "prid2011", f"multi_shot/{CAMERAS[camid]}/person_{pid:04d}")
                records += [Record(path, pid, camid, SplitRole.TRAIN) for path in sample(frames, FRAMES, rng)]
    alone = sum(size for pid, size in sizes.items() if pid not in shared)
    numbered = sum(size for pid, size in sizes.items() if pid > LAST_SHARED)
    least, most = drawn_sum([(sizes[pid], sizes[pid]) for pid in shared], len(training))
    return Listing(
        (tuple(records),),
        drawn=True,
        notes=_tell_gaps(gaps),
        whole={**_count_people(single), FRAMES_ALONE: numbered},
        reach={"train_images": (alone + least, alone + most)},
    )


def _shared(people: Sequence[Collection[int]]) -> set[int]:
    return {pid for pid in people[0] if pid in people[1] and pid <= LAST_SHARED}


def _count_people(people: Sequence[Collection[int]]) -> dict[str, int]:
    """Count people by camera and in both, which decides whom a draw may take; see `WHOLE`."""
    return {
        "camera_a_people": len(people[0]),
        "camera_b_people": len(people[1]),
        "shared_people": len(_shared(people)),
    }


def _single_shot(
    root: Path, single: list[dict[int, str]], shared: Collection[int], choices: Choices
) -> Listing:
    splits: list[tuple[Record, ...]] = []
    for training, tested in _split_people(root, shared, choices):
        train = [
            Record(shots[pid], pid, camid, SplitRole.TRAIN)
            for camid, shots in enumerate(single)
            for pid in sorted(training)
        ]
        splits.append(tuple(train + _test(single, shared, tested)))
    return _listing(splits, choices)


def _test(single: list[dict[int, str]], shared: Collection[int], tested: Collection[int]) -> list[Record]:
    """List single shots: queries of camera A, the gallery of camera B with those that only it saw."""
    queries = [Record(path, pid, 0, SplitRole.QUERY) for pid, path in single[0].items() if pid in tested]
    gallery = [
        Record(path, pid if pid in shared else CAMERA_B_ONLY + pid, 1, SplitRole.GALLERY)
        for pid, path in single[1].items()
        if pid in tested or pid not in shared
    ]
    return queries + gallery


def _read_video(root: Path, choices: Choices) -> Listing:
    tracks: list[dict[int, list[str]]] = []
    everybody: list[list[int]] = []
    gaps: list[str] = []
    for camid, camera in enumerate(CAMERAS):
        folders = [entry.name for entry in list_folder(root, f"multi_shot/{camera}") if entry.is_dir()]
        matches = match_names(root / "multi_shot" / camera, folders, FOLDER)
        everybody.append([int(match["pid"]) for _, match in matches])
        people = [pid for pid in everybody[camid] if pid <= LAST_SHARED]
        tracks.append({pid: _frames(root, pid, camid, gaps) for pid in people})
    shared = {pid: min(len(tracks[0][pid]), len(tracks[1][pid])) for pid in tracks[0] if pid in tracks[1]}
    candidates: Collection[int] = shared
    if choices.split_file is None:
        candidates = _longest(shared)
    splits: list[tuple[Record, ...]] = []
    for training, tested in _split_people(root, candidates, choices):
        records: list[Record] = []
        for camid, frames in enumerate(tracks):
            test_role = (SplitRole.QUERY, SplitRole.GALLERY)[camid]
            for pid in sorted(training | tested):
                role = SplitRole.TRAIN if pid in training else test_role
                records += [Record(path, pid, camid, role) for path in frames[pid]]
        splits.append(tuple(records))
    notes = ("every frame is an image of its own: scores rank frames, not tracks", *_tell_gaps(gaps))
    return replace(_listing(splits, choices, *notes), whole=_count_people(everybody))


def _listing(splits: Sequence[tuple[Record, ...]], choices: Choices, *notes: str) -> Listing:
    if choices.split_file is None:
        return Listing(tuple(splits), drawn=True, notes=notes)
    return Listing(tuple(splits), notes=(cite(choices.split_file), *notes))


def _longest(lengths: Mapping[int, int]) -> set[int]:
    """Choose the people with the longest tracks, as many as the published video splits have."""
    ordered = sorted(lengths, key=lambda pid: (-lengths[pid], pid))
    return set(ordered[: round(LONG_TRACKS * len(ordered))])


def _split_people(
    root: Path, people: Collection[int], choices: Choices
) -> list[tuple[frozenset[int], frozenset[int]]]:
    """Return who is trained on and who is tested in each split: as in the user's file, or drawn."""
    if choices.split_file is not None:
        return list(read_people_lists(choices.split_file, people, root))
    draws = draw_training(people, len(people) // 2, choices.seed, "prid2011", choices.splits)
    return [(frozenset(training), frozenset(people) - training) for training in draws]


def _frames(root: Path, pid: int, camid: int, gaps: list[str]) -> list[str]:
    """List the frames of a track; put it among ``gaps`` if their numbers, from 1, leave some out."""
    folder = f"multi_shot/{CAMERAS[camid]}/person_{pid:04d}"
    matches = match_folder(root, folder, FRAME)
    if int(matches[-1][1]["frame"]) != len(matches):
        gaps.append(folder)
    return [path for path, _ in matches]


def _tell_gaps(gaps: Sequence[str]) -> tuple[str, ...]:
    """Report tracks that seem to lack frames; how many the original has is not published."""
    tracks = counted(len(gaps), "track leaves", "tracks leave")
    return (f"{tracks} out numbers of frames: {few(gaps)}",) if gaps else ()


def _recognise(root: Path) -> str | None:
    return holds("single_shot")(root) or holds("multi_shot")(root)


READER = Reader(
    name="prid2011",
    folders=("prid_2011", "prid2011", "prid"),
    variants=(
        Variant(
            name="original",
            looks_for="single_shot, multi_shot",
            recognise=_recognise,
            read=read,
            splits={
                BENCHMARK: about(COUNTS, "train_images"),
                "standard": client_counts(cameras=2, train=(100, 200), query=(100, 100), gallery=649),
                VIDEO: {"cameras": 2, "train_identities": 89, "query_identities": 89},
            },
            whole=WHOLE,
            split_file="splits_single_shot.json with --splits standard, splits_prid2011.json with video",
        ),
        *prid_variants(COUNTS),
    ),
)
