"""Splits and cameras for datasets that are released without: seeded, by the published rules.

The DGD scripts (Xiao et al., Learning Deep Feature Representations with Domain Guided Dropout, CVPR 2016)
shuffle without a seed, and the federated benchmark (Zhuang et al., Performance Optimization for Federated
Person Re-identification via Benchmark Analysis, ACM MM 2020) uses their output. The field's lists of several
splits were drawn in the same way. So a newly drawn split has the published sizes, but other people in it.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np

from fedreid_mpi.algorithms import seeds
from fedreid_mpi.data.archive import SplitRole

SPLITS = 10
"""Number of splits over which scores of the small datasets are usually averaged."""

T = TypeVar("T")
Key = TypeVar("Key", int, str)


def generator(seed: int, dataset: str, choice: str) -> np.random.Generator:
    """Return the random generator for one choice in a dataset's split."""
    return seeds.generator(seed, "split", dataset, choice)


def sample(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Draw ``count`` items, or all if there are fewer; they keep their order."""
    return [items[index] for index in sorted(rng.permutation(len(items))[:count])]


def sample_half(items: Iterable[Key], rng: np.random.Generator) -> set[Key]:
    """Draw half of the distinct items, rounded down; their order does not matter."""
    everything = sorted(set(items))
    return set(sample(everything, len(everything) // 2, rng))


def draw_training(
    people: Iterable[Key], count: int, seed: int, dataset: str, name: str, splits: int = SPLITS
) -> list[set[Key]]:
    """Draw the people to train on in each of several splits; the others are for testing.

    Parameters
    ----------
    people
        All of them; their order does not matter.
    count
        Number to draw for each split.
    seed
        Seed of the splits.
    dataset, name
        Names of dataset and splits, so that those of others are drawn independently.
    splits
        Number of splits; it does not affect the first ones.
    """
    everybody = sorted(set(people))
    return [
        set(sample(everybody, count, generator(seed, dataset, f"{name} {number}")))
        for number in range(splits)
    ]


def role_of(pid: int, camid: int, training: Collection[int]) -> SplitRole:
    """Return what an image of one of two cameras is for.

    Of people not trained on, images of camera 0 are queries and images of camera 1 the gallery, so somebody
    without an image in camera 0 is in the gallery only.
    """
    if pid in training:
        return SplitRole.TRAIN
    return SplitRole.QUERY if camid == 0 else SplitRole.GALLERY
