"""The other ways in which the datasets come: the same pictures under other names.

A variant names each picture of the original tree anew, or leaves it out. Pictures are drawn all the same and
in the same order, so an image has the same pixels in every variant; what a variant has more is drawn after.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.data.synthetic.cuhk03_release import mat_layout
from fedreid_mpi.data.synthetic.dgd import (
    SplitViews,
    cameras_of_halves,
    cameras_of_shots,
    dgd_layout,
    first_of_each,
    prid2011_views,
    processed_layout,
    split_people,
    training_copies,
)
from fedreid_mpi.data.synthetic.layouts import FOLDERS, LAYOUTS, Shot, Tree, plan_tree
from fedreid_mpi.data.synthetic.sightings import Role
from fedreid_mpi.errors import ConfigurationError

ORIGINAL = "original"

BOXES = 3
"""Pictures of a person in a camera that Market-1501's multi-query adds."""

Rename = Callable[[Tree, np.random.Generator], Tree]


class Place(NamedTuple):
    """Where a dataset is below the benchmark's root: its own folder, and where its reader starts in it."""

    folder: str
    root: str


class Variant(NamedTuple):
    """A way in which a dataset is written."""

    place: Place
    rename: Rename


def place_of(dataset: str, variant: str) -> Place:
    """Return where a dataset is in a variant.

    Raises
    ------
    ConfigurationError
        When the dataset is not written in such a variant.
    """
    return _find(dataset, variant).place


def plan_variant(dataset: str, variant: str, scale: str, seed: int) -> Tree:
    """Plan the files of a dataset in a variant.

    Raises
    ------
    ConfigurationError
        When the dataset is not written in such a variant.
    """
    rename = _find(dataset, variant).rename
    return rename(plan_tree(dataset, scale, seed), generator(seed, dataset, "variant"))


def written_as(variant: str) -> list[str]:
    """List the datasets that are written in a variant."""
    return [dataset for dataset in LAYOUTS if variant in (ORIGINAL, *VARIANTS[dataset])]


def _find(dataset: str, variant: str) -> Variant:
    if variant == ORIGINAL:
        return Variant(Place(LAYOUTS[dataset].folder, LAYOUTS[dataset].root), _unchanged)
    if variant not in VARIANTS[dataset]:
        offered = ", ".join((ORIGINAL, *VARIANTS[dataset]))
        raise ConfigurationError(f"--variant {variant}: {dataset} is not written so, expected {offered}")
    return VARIANTS[dataset][variant]


def _unchanged(tree: Tree, _: np.random.Generator) -> Tree:
    return tree


def _without(*prefixes: str) -> Rename:
    """Leave out gallery images whose names start with one of ``prefixes``."""

    def rename(tree: Tree, _: np.random.Generator) -> Tree:
        names = [
            "" if PurePosixPath(shot.path).name.startswith(prefixes) else shot.path for shot in tree.shots
        ]
        gallery = tree.counts["gallery_images"] - names.count("")
        return tree.renamed(names, {**tree.counts, "gallery_images": gallery})

    return rename


def _multi_query(tree: Tree, _: np.random.Generator) -> Tree:
    """Add ``gt_bbox``: boxes of everyone who is trained on or queried, in each camera."""
    first: dict[tuple[int, int], Shot] = {}
    for shot in tree.shots:
        if not shot.path.startswith(FOLDERS["gallery"]):
            first.setdefault(shot[1:], shot)
    for shot in first.values():
        person, camera, frame = PurePosixPath(shot.path).name.split("_")[:3]
        for later in range(1, 1 + BOXES):
            name = f"gt_bbox/{person}_{camera}_{int(frame) + later:06d}_00.jpg"
            tree.more.append(Shot(name, shot.person, shot.camera))
    return tree


def _msmt17_v2(tree: Tree, _: np.random.Generator) -> Tree:
    names = ["mask_{}_v2/{}".format(*shot.path.split("/", 1)) for shot in tree.shots]
    return tree.renamed(names, tree.counts, tree.texts)


def _msmt17_roles(tree: Tree) -> list[Role]:
    queries = {line.split()[0] for line in tree.texts["list_query.txt"].splitlines()}

    def role(path: str) -> Role:
        half, listed = path.split("/", 1)
        if half == "train":
            return "train"
        return "query" if listed in queries else "gallery"

    return [role(shot.path) for shot in tree.shots]


def _msmt17_market_style_v1(tree: Tree, _: np.random.Generator) -> Tree:
    pairs = zip(tree.shots, _msmt17_roles(tree), strict=True)
    names = [f"{FOLDERS[role]}/{PurePosixPath(shot.path).name}" for shot, role in pairs]
    return tree.renamed(names, tree.counts)


def _msmt17_market_style(tree: Tree, _: np.random.Generator) -> Tree:
    names = [
        f"{FOLDERS[role]}/{PurePosixPath(shot.path).name[:4]}_c{shot.camera + 1}_{number:04d}.jpg"
        for number, (shot, role) in enumerate(zip(tree.shots, _msmt17_roles(tree), strict=True))
    ]
    return tree.renamed(names, tree.counts)


def _processed(before: Rename) -> Rename:
    """Sort three folders into folders of people, named by the text before the first underscore."""
    parts = {"bounding_box_train": "train_all", "query": "query", "bounding_box_test": "gallery"}

    def rename(tree: Tree, rng: np.random.Generator) -> Tree:
        tree = before(tree, rng)
        names: list[str] = []
        for shot in tree.shots:
            folder, name = shot.path.split("/")
            names.append(f"{parts[folder]}/{name.split('_')[0]}/{name}")
        processed = tree.renamed(names, tree.counts)
        processed.copies = training_copies(names, first_of_each)
        return processed

    return rename


def _cuhk02_processed(tree: Tree, _: np.random.Generator) -> Tree:
    # Nobody has published how the benchmark names these files; only that the folders are people.
    names: list[str] = []
    for shot in tree.shots:
        pair, camera, name = shot.path.split("/")
        person = f"{pair[1:]}{name.split('_')[0]:0>4}"
        names.append(f"train_all/{person}/{person}_{camera}_{name}")
    return tree.renamed(names, {key: tree.counts[key] for key in ("identities", "images")})


def _small(folder: str, split: SplitViews) -> dict[str, Variant]:
    return {
        "processed": Variant(Place(folder, "pytorch"), partial(processed_layout, split)),
        "cameras": Variant(Place(folder, "."), partial(dgd_layout, split)),
    }


_MARKET = Place("Market-1501-v15.09.15", ".")
_MSMT17 = Place("MSMT17", ".")
_CUHK03_MAT = Variant(Place("cuhk03", "cuhk03_release"), mat_layout)

VARIANTS: Mapping[str, Mapping[str, Variant]] = {
    "msmt17": {
        "V2": Variant(Place("MSMT17_V2", "."), _msmt17_v2),
        "market-style": Variant(_MSMT17, _msmt17_market_style),
        "market-style-V1": Variant(_MSMT17, _msmt17_market_style_v1),
        "processed": Variant(Place("MSMT17", "pytorch"), _processed(_msmt17_market_style)),
    },
    "dukemtmc-reid": {"processed": Variant(Place("DukeMTMC-reID", "pytorch"), _processed(_unchanged))},
    "market1501": {
        "without-junk": Variant(_MARKET, _without("-1_")),
        "multi-query": Variant(_MARKET, _multi_query),
        "matches-only": Variant(_MARKET, _without("-1_", "0000_")),
        "processed": Variant(Place("Market", "pytorch"), _processed(_unchanged)),
    },
    "cuhk03-np": {
        "labeled": Variant(Place("cuhk03-np", "labeled"), _unchanged),
        "processed": Variant(Place("cuhk03-np-detected", "pytorch"), _processed(_unchanged)),
        # One file holds both halves.
        "mat-detected": _CUHK03_MAT,
        "mat-labeled": _CUHK03_MAT,
    },
    "prid2011": _small("prid", prid2011_views),
    "cuhk01": _small("cuhk01", split_people(cameras_of_shots)),
    "viper": _small("viper", split_people(cameras_of_shots)),
    # Of 3DPeS's people a "camera" is half of the sequences, of i-LIDS's half of the images.
    "3dpes": _small("3dpes", split_people(cameras_of_halves(lambda shot: shot.camera))),
    "ilids": _small("ilids", split_people(cameras_of_halves(lambda shot: shot.path))),
    "cuhk02": {"processed": Variant(Place("cuhk02", "pytorch"), _cuhk02_processed)},
    "caviar4reid": {},
    "grid": {},
}
"""For each dataset, the variants besides the original; named as its reader names them.

``multi-query`` has no reader of its own: it is the original with more in it.
"""
