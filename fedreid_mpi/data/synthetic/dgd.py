"""The small datasets as the DGD scripts split and number them, which is where the benchmark has them from.

Xiao et al., Learning Deep Feature Representations with Domain Guided Dropout, CVPR 2016.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from fedreid_mpi.data.synthetic.layouts import Shot, Tree


@dataclass(frozen=True, slots=True)
class View:
    """A picture with what the scripts say of it.

    Attributes
    ----------
    identity
        Counted from 0.
    camera
        0 or 1.
    part
        ``train``, ``query`` or ``gallery``.
    """

    identity: int
    camera: int
    part: str


Cameras = Callable[[Tree, np.random.Generator], list[int]]
"""Gives each picture its camera."""

SplitViews = Callable[[Tree, np.random.Generator], list[View | None]]
"""Splits a dataset; None means a picture that is not used."""


def cameras_of_shots(tree: Tree, _: np.random.Generator) -> list[int]:
    """Take the cameras as they are."""
    return [shot.camera for shot in tree.shots]


def cameras_of_halves(of: Callable[[Shot], object]) -> Cameras:
    """Make a random half of what ``of`` tells of each person's pictures camera 0, the rest camera 1."""

    def cameras(tree: Tree, rng: np.random.Generator) -> list[int]:
        groups: defaultdict[int, list[object]] = defaultdict(list)
        for shot in tree.shots:
            if of(shot) not in groups[shot.person]:
                groups[shot.person].append(of(shot))
        first = {
            (person, members[index])
            for person, members in groups.items()
            for index in rng.permutation(len(members))[: len(members) // 2]
        }
        return [0 if (shot.person, of(shot)) in first else 1 for shot in tree.shots]

    return cameras


def split_people(cameras: Cameras) -> SplitViews:
    """Return a split, by people, of all pictures."""

    def views(tree: Tree, rng: np.random.Generator) -> list[View | None]:
        people = 1 + max(shot.person for shot in tree.shots)
        training = set(rng.permutation(people)[: tree.counts["train_identities"]].tolist())
        return [
            View(shot.person, camera, "train" if shot.person in training else ("query", "gallery")[camera])
            for shot, camera in zip(tree.shots, cameras(tree, rng), strict=True)
        ]

    return views


def prid2011_views(tree: Tree, rng: np.random.Generator) -> list[View | None]:
    """Split PRID 2011: single shots of those tested, frames of those trained on.

    The scripts draw ten frames of a track; no synthetic one is longer. Probes are numbered first, then those
    trained on, then those that only camera B saw.
    """
    by_camera = [{shot.person for shot in tree.shots if shot.camera == camera} for camera in (0, 1)]
    shared = rng.permutation(sorted(by_camera[0] & by_camera[1])).tolist()
    probes = shared[: tree.counts["query_identities"]]
    order = [*probes, *sorted(by_camera[0] - set(probes)), *sorted(by_camera[1] - by_camera[0])]
    identities = {person: identity for identity, person in enumerate(order)}
    training = by_camera[0] - set(probes)
    views: list[View | None] = []
    for shot in tree.shots:
        frame = shot.path.startswith("multi_shot")
        if frame != (shot.person in training):
            views.append(None)
        else:
            part = "train" if frame else ("query", "gallery")[shot.camera]
            views.append(View(identities[shot.person], shot.camera, part))
    return views


def _count(views: Sequence[View | None]) -> dict[str, int]:
    shown = [view for view in views if view is not None]
    parts = {part: [view for view in shown if view.part == part] for part in ("train", "query", "gallery")}
    return {
        "cameras": 2,
        "train_identities": len({view.identity for view in parts["train"]}),
        "train_images": len(parts["train"]),
        "query_identities": len({view.identity for view in parts["query"]}),
        "query_images": len(parts["query"]),
        "gallery_images": len(parts["gallery"]),
    }


def _number(tree: Tree, views: Sequence[View | None]) -> list[str]:
    """Name each picture ``cam_K/IDENTITY_IMAGE.ext``; one that is not used, by an empty name."""
    seen: Counter[tuple[int, int]] = Counter()
    names: list[str] = []
    for shot, view in zip(tree.shots, views, strict=True):
        if view is None:
            names.append("")
            continue
        image = seen[view.identity, view.camera]
        seen[view.identity, view.camera] += 1
        suffix = PurePosixPath(shot.path).suffix
        names.append(f"cam_{view.camera}/{view.identity:05d}_{image:05d}{suffix}")
    return names


def dgd_layout(split: SplitViews, tree: Tree, rng: np.random.Generator) -> Tree:
    """Lay a dataset out as the DGD scripts do: ``cam_0``, ``cam_1``, ``meta.json`` and ``split.json``."""
    views = split(tree, rng)
    names = _number(tree, views)
    return tree.renamed(names, _count(views), _split_files(names, views))


def processed_layout(split: SplitViews, tree: Tree, rng: np.random.Generator) -> Tree:
    """Lay a dataset out as the federated benchmark's scripts do: folders by part, then by person."""
    views = split(tree, rng)
    folders = {"train": "train_all", "query": "query", "gallery": "gallery"}
    names = [
        "" if view is None else f"{folders[view.part]}/{view.identity}/{name.replace('/', '_')}"
        for name, view in zip(_number(tree, views), views, strict=True)
    ]
    processed = tree.renamed(names, _count(views))
    processed.copies = training_copies(names, partial(_fifth, rng))
    return processed


def training_copies(
    names: Sequence[str], choose: Callable[[Sequence[str]], Collection[str]]
) -> dict[str, str]:
    """Copy the images of ``train_all`` that ``choose`` sets apart to ``val``, the others to ``train``."""
    whole = "train_all/"
    training = [name for name in names if name.startswith(whole)]
    apart = choose(training)
    return {f"{'val' if name in apart else 'train'}/{name.removeprefix(whole)}": name for name in training}


def first_of_each(names: Sequence[str]) -> set[str]:
    """Set the first image of each person apart, as the scripts do for the large datasets."""
    return set({PurePosixPath(name).parent: name for name in reversed(names)}.values())


def _fifth(rng: np.random.Generator, names: Sequence[str]) -> set[str]:
    """Set a fifth of the images apart, but never a person's last, as the scripts do for small datasets."""
    left = Counter(PurePosixPath(name).parent for name in names)
    apart: set[str] = set()
    for index in rng.permutation(len(names)):
        person = PurePosixPath(names[index]).parent
        if len(apart) < len(names) // 5 and left[person] > 1:
            left[person] -= 1
            apart.add(names[index])
    return apart


def _split_files(names: Sequence[str], views: Sequence[View | None]) -> dict[str, str]:
    """Return ``meta.json`` and ``split.json``."""
    identities: defaultdict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    parts: defaultdict[str, set[int]] = defaultdict(set)
    for name, view in zip(names, views, strict=True):
        if view is not None:
            identities[view.identity][view.camera].append(name)
            parts[view.part].add(view.identity)
    meta = {
        "name": "synthetic",
        "shot": "multiple",
        "num_cameras": 2,
        "identities": [identities[number] for number in range(len(identities))],
    }
    split = {
        "trainval": sorted(parts["train"]),
        "test_probe": sorted(parts["query"]),
        "test_gallery": sorted(parts["query"] | parts["gallery"]),
    }
    return {"meta.json": json.dumps(meta) + "\n", "split.json": json.dumps(split) + "\n"}
