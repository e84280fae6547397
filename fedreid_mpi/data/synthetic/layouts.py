"""The datasets as file trees: original folders, original names, one function a layout.

Each function says which picture goes into which file; nothing is drawn here. A tree also lists its own
counts, as far as they hold for any seed of the reader's split.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.data.synthetic.mat import row_of_cells, write_mat5
from fedreid_mpi.data.synthetic.scales import SCALES, Counts, FixedSplit, OpenSplit, Pairs, PairsAndOthers
from fedreid_mpi.data.synthetic.sightings import Role, Sighting, fixed_split, share_out


class Shot(NamedTuple):
    """One image file: path below the reader's root, who is on it and which camera took it (both from 0).

    A picture without a path is drawn but not written.
    """

    path: str
    person: int
    camera: int


@dataclass(slots=True)
class Tree:
    """A dataset before it is drawn.

    Attributes
    ----------
    counts
        What ``prepare`` must find; written to ``counts.json``.
    texts
        Other files, path below the root to content.
    more
        Pictures that the original does not have; drawn after the others, which they leave as they are.
    copies
        Image files that are there twice, path of the copy to path of the other.
    pack
        Puts the image files below a folder into files of another kind, or adds files that are no text.
    """

    counts: dict[str, int]
    shots: list[Shot] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    more: list[Shot] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    pack: Callable[[Path], None] | None = None

    def add(self, path: str, person: int, camera: int) -> None:
        """Add the picture of a person (from 0) by a camera (from 1)."""
        self.shots.append(Shot(path, person, camera - 1))

    def renamed(
        self, names: Sequence[str], counts: Mapping[str, int], texts: Mapping[str, str] | None = None
    ) -> "Tree":
        """Return a tree with other names for the same pictures; an empty one leaves the picture out."""
        shots = [Shot(name, *shot[1:]) for name, shot in zip(names, self.shots, strict=True)]
        return Tree(dict(counts), shots, dict(texts or {}))


def _published(counts: FixedSplit) -> dict[str, int]:
    """Return the counts of a dataset with a split of its own."""
    return {
        "train_identities": counts.train_identities,
        "train_images": counts.train_images,
        "query_identities": counts.query_identities,
        "query_images": counts.query_images,
        "gallery_images": counts.gallery_images,
        "cameras": counts.cameras,
    }


def _whole(counts: OpenSplit) -> dict[str, int]:
    """Return the counts of a dataset that hold whatever split is drawn."""
    return {"people": counts.identities, "images": counts.images}


FOLDERS: Mapping[Role, str] = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "distractor": "bounding_box_test",
    "junk": "bounding_box_test",
}


def _market1501(rng: np.random.Generator, counts: FixedSplit) -> Tree:
    tree = Tree(_published(counts))
    pids = 1 + rng.permutation(counts.train_identities + counts.query_identities)
    for number, sighting in enumerate(fixed_split(rng, counts)):
        person, camera, role = sighting
        pid = {"distractor": "0000", "junk": "-1"}.get(role) or f"{pids[person]:04d}"
        name = f"{pid}_c{camera}s{1 + person % 6}_{25 * number:06d}_{rng.integers(8):02d}.jpg"
        tree.add(f"{FOLDERS[role]}/{name}", person, camera)
    return tree


def _dukemtmc_reid(rng: np.random.Generator, counts: FixedSplit) -> Tree:
    tree = Tree(_published(counts))
    people = counts.train_identities + counts.query_identities + counts.distractor_identities
    pids = 1 + rng.permutation(people)
    for number, (person, camera, role) in enumerate(fixed_split(rng, counts)):
        name = f"{pids[person]:04d}_c{camera}_f{40_000 + 7 * number:07d}.jpg"
        tree.add(f"{FOLDERS[role]}/{name}", person, camera)
    return tree


def _msmt17(rng: np.random.Generator, counts: FixedSplit) -> Tree:
    tree = Tree(_published(counts))
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    seen: Counter[int] = Counter()
    # 2,373 of the original's 32,621 training images are listed for validation.
    listed = round(counts.train_images * 2373 / 32_621)
    validation = set(rng.choice(counts.train_images, listed, replace=False))
    for number, (person, camera, role) in enumerate(fixed_split(rng, counts)):
        # People are counted from 0 again in the test half.
        pid = person if role == "train" else person - counts.train_identities
        slot = ("0113morning", "0114noon", "0302afternoon", "0303morning")[person % 4]
        suffix = "_ex" if rng.random() < 0.1 else ""
        name = f"{pid:04d}_{seen[person]:03d}_{camera:02d}_{slot}_{number % 10_000:04d}_0{suffix}.jpg"
        seen[person] += 1
        tree.add(f"{'train' if role == 'train' else 'test'}/{pid:04d}/{name}", person, camera)
        lists["val" if role == "train" and number in validation else role].append(f"{pid:04d}/{name} {pid}\n")
    tree.texts = {f"list_{part}.txt": "".join(lines) for part, lines in lists.items()}
    return tree


def _cuhk03_np(rng: np.random.Generator, counts: FixedSplit) -> Tree:
    tree = Tree(_published(counts))
    pids = 1 + rng.permutation(counts.train_identities + counts.query_identities)

    def label(sighting: Sighting) -> int:
        return int(pids[sighting.person])

    for number, sighting in enumerate(sorted(fixed_split(rng, counts), key=label), 1):
        name = f"{label(sighting):04d}_c{sighting.camera}_{number}.png"
        tree.add(f"{FOLDERS[sighting.role]}/{name}", sighting.person, sighting.camera)
    return tree


def _prid2011(rng: np.random.Generator, counts: Pairs) -> Tree:
    half = counts.shared // 2
    tree = Tree(
        {
            "train_identities": counts.shared - half + counts.a_only,
            "query_identities": half,
            "query_images": half,
            "gallery_images": half + counts.b_only,
            "cameras": 2,
            "camera_a_people": counts.shared + counts.a_only,
            "camera_b_people": counts.shared + counts.b_only,
            "shared_people": counts.shared,
            "camera_a_only_frames": counts.a_only * counts.frames - 2 * counts.short_a_only,
        }
    )

    def add(camera: int, pid: int, person: int, frames: int) -> None:
        folder = "cam_a" if camera == 1 else "cam_b"
        tree.add(f"single_shot/{folder}/person_{pid:04d}.png", person, camera)
        for frame in range(1, frames + 1):
            tree.add(f"multi_shot/{folder}/person_{pid:04d}/{frame:04d}.png", person, camera)

    def frames(people: int, short: int) -> list[int]:
        fewer = set(rng.choice(people, short, replace=False))
        return [counts.frames - 2 * (person in fewer) for person in range(people)]

    for camera, short in ((1, counts.short_a), (2, counts.short_b)):
        for person, count in enumerate(frames(counts.shared, short)):
            add(camera, 1 + person, person, count)
    # Above 200 the same number is another person in the other camera.
    for person, count in enumerate(frames(counts.a_only, counts.short_a_only)):
        add(1, 201 + person, counts.shared + person, count)
    for person in range(counts.b_only):
        add(2, 201 + person, counts.shared + counts.a_only + person, counts.frames)
    return tree


def _cuhk01(_: np.random.Generator, counts: OpenSplit) -> Tree:
    train = counts.identities // 2
    test = counts.identities - train
    tree = Tree(
        {
            "train_identities": train,
            "train_images": 4 * train,
            "query_identities": test,
            "query_images": 2 * test,
            "gallery_images": 2 * test,
            "cameras": 2,
        }
    )
    for person in range(counts.identities):
        for image in range(1, 5):
            tree.add(f"{person + 1:04d}{image:03d}.png", person, 1 + (image - 1) // 2)
    return tree


def _viper(rng: np.random.Generator, counts: OpenSplit) -> Tree:
    train = counts.identities // 2
    test = counts.identities - train
    tree = Tree(
        {
            "train_identities": train,
            "train_images": 2 * train,
            "query_identities": test,
            "query_images": test,
            "gallery_images": test,
            "cameras": 2,
        }
    )
    # The original numbers its 632 people up to 873, with gaps.
    pids = np.sort(rng.choice(counts.identities * 874 // 632, counts.identities, replace=False))
    for person, pid in enumerate(pids):
        for camera, angle in enumerate(rng.choice([0, 45, 90, 135, 180], 2, replace=False), 1):
            tree.add(f"cam_{'ab'[camera - 1]}/{pid:03d}_{angle}.bmp", person, camera)
    return tree


def _3dpes(rng: np.random.Generator, counts: OpenSplit) -> Tree:
    # The paper trains on 93 of the 193 people. The reader's halves of a person's sequences are the "cameras".
    train = round(counts.identities * 93 / 193)
    tree = Tree({"train_identities": train, "cameras": 2} | _whole(counts))
    single = set(rng.choice(counts.identities, counts.single_sequence, replace=False))
    for person, images in enumerate(share_out(rng, counts.images, counts.identities, 2)):
        most = min(counts.cameras, int(images))
        sequences = 1 if person in single else int(rng.integers(2, most + 1))
        cameras = 1 + rng.permutation(counts.cameras)[:sequences]
        for image in range(images):
            camera = int(cameras[image % sequences])
            name = f"{person + 1}_{camera}_FRAME_{11 + 5 * image}_RGB.bmp"
            tree.add(name, person, camera)
    return tree


def _ilids(rng: np.random.Generator, counts: OpenSplit) -> Tree:
    # The reader's halves of a person's images are the "cameras": everyone has at least two.
    train = counts.identities // 2
    tree = Tree(
        {"train_identities": train, "query_identities": counts.identities - train, "cameras": 2}
        | _whole(counts)
    )
    for person, images in enumerate(share_out(rng, counts.images, counts.identities, 2)):
        cameras = 1 + rng.permutation(counts.cameras)
        for image in range(images):
            camera = int(cameras[image % counts.cameras])
            tree.add(f"{person + 1:04d}{image + 1:03d}.jpg", person, camera)
    return tree


def _cuhk02(_: np.random.Generator, counts: OpenSplit) -> Tree:
    tree = Tree({"identities": counts.identities, "images": counts.images, "cameras": counts.cameras})
    ends = np.rint(np.cumsum([971, 306, 107, 193, 239]) * counts.identities / 1816).astype(int)
    for person in range(counts.identities):
        pair = int(np.searchsorted(ends, person, side="right"))
        pid = person - (int(ends[pair - 1]) if pair else 0) + 1
        for view in (1, 2):
            for image in (1, 2):
                tree.add(f"P{pair + 1}/cam{view}/{pid:03d}_{image}.png", person, 2 * pair + view)
    return tree


TESTED = 36
"""People of CAVIAR4REID who are drawn for testing."""

FOLDS = 10


def _caviar4reid(_: np.random.Generator, counts: PairsAndOthers) -> Tree:
    people = counts.pairs + counts.others // counts.frames
    tree = Tree(
        {
            "train_identities": 0,
            "train_images": 0,
            "query_identities": TESTED,
            "query_images": TESTED * counts.frames,
            "gallery_images": TESTED * counts.frames,
            "cameras": 2,
            "people": people,
            "images": counts.images,
            "shared_people": counts.pairs,
        }
    )
    for person in range(people):
        # Images 1 to 10 are of the first camera, 11 to 20 of the second.
        for camera in (1, 2) if person < counts.pairs else (1,):
            for frame in range(1, counts.frames + 1):
                name = f"{person + 1:04d}{10 * (camera - 1) + frame:03d}.jpg"
                tree.add(name, person, camera)
    return tree


def _grid(rng: np.random.Generator, counts: PairsAndOthers) -> Tree:
    tested = counts.pairs - counts.pairs // 2
    tree = Tree(
        {
            "train_identities": counts.pairs // 2,
            "train_images": 2 * (counts.pairs // 2),
            "query_identities": tested,
            "query_images": tested,
            "gallery_images": tested + counts.others,
            "cameras": counts.cameras,
        }
    )

    def add(folder: str, pid: int, person: int, camera: int) -> None:
        box = "_".join(str(number) for number in rng.integers(40, 250, 4))
        tree.add(f"{folder}/{pid:04d}_{camera}_{25_000 + len(tree.shots)}_{box}.jpeg", person, camera)

    for person in range(counts.pairs):
        for folder, camera in zip(("probe", "gallery"), rng.permutation(counts.cameras)[:2], strict=True):
            add(folder, person + 1, person, int(camera) + 1)
    for stranger in range(counts.others):
        add("gallery", 0, counts.pairs + stranger, int(rng.integers(counts.cameras)) + 1)
    folds = [np.sort(1 + rng.permutation(counts.pairs)[: counts.pairs // 2]) for _ in range(FOLDS)]
    tree.pack = partial(_write_folds, folds)
    return tree


def _write_folds(folds: Sequence[NDArray[np.int64]], start: Path) -> None:
    """Write GRID's file of folds, without the features that the original holds as well.

    What its other fields are called does not matter: readers take the third.
    """
    structs = [
        {"trainImgIdx": fold[None], "testImgIdx": fold[None], "trainPersonIdx": fold[None].astype(np.float64)}
        for fold in folds
    ]
    write_mat5(start / "features_and_partitions.mat", {"trainIdxAll": row_of_cells(structs)})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a dataset is below the benchmark's root, and how its tree is planned.

    Attributes
    ----------
    folder
        The dataset's own folder, as its original is unpacked.
    root
        Where its reader starts, at or below ``folder``.
    """

    folder: str
    root: str
    plan: Callable[..., Tree]


LAYOUTS: Mapping[str, Layout] = {
    "msmt17": Layout("MSMT17_V1", ".", _msmt17),
    "dukemtmc-reid": Layout("DukeMTMC-reID", ".", _dukemtmc_reid),
    "market1501": Layout("Market-1501-v15.09.15", ".", _market1501),
    "cuhk03-np": Layout("cuhk03-np", "detected", _cuhk03_np),
    "prid2011": Layout("prid_2011", ".", _prid2011),
    "cuhk01": Layout("CUHK01", "campus", _cuhk01),
    "viper": Layout("VIPeR", ".", _viper),
    "3dpes": Layout("3DPeS", "RGB", _3dpes),
    "ilids": Layout("i-LIDS_Pedestrian", "Persons", _ilids),
    "cuhk02": Layout("CUHK02", "Dataset", _cuhk02),
    "caviar4reid": Layout("CAVIARa", ".", _caviar4reid),
    "grid": Layout("underground_reid", ".", _grid),
}
"""The nine clients' datasets, the public one, and the two that serve testing alone."""


def plan_tree(dataset: str, scale: str, seed: int) -> Tree:
    """Plan the files of a dataset at one scale."""
    counts: Counts = SCALES[scale].counts[dataset]
    tree: Tree = LAYOUTS[dataset].plan(generator(seed, dataset, "layout"), counts)
    return tree
