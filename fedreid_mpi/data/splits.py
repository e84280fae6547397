"""Splits and cameras for datasets that come without: seeded, after the rules by which they were published.

The DGD scripts (Xiao et al., Learning Deep Feature Representations with Domain Guided Dropout, CVPR 2016)
shuffle without a seed, and the federated benchmark (Zhuang et al., Performance Optimization for Federated
Person Re-identification via Benchmark Analysis, ACM MM 2020) uses their output. The field's lists of several
splits were drawn alike. So a split that is drawn again has the published sizes but other people in it.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np

from fedreid_mpi import seeds
from fedreid_mpi.data.archive import SplitRole

SPLITS = 10
"""Number of splits over which scores of the small datasets are averaged, by the field's custom."""

T = TypeVar("T")
Key = TypeVar("Key", int, str)


def generator(seed: int, dataset: str, choice: str) -> np.random.Generator:
    """Return the generator of one random choice in a dataset's split."""
    return seeds.generator(seed, "split", dataset, choice)


def sample(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Draw ``count`` items, or all where there are fewer; in their old order."""
    return [items[index] for index in sorted(rng.permutation(len(items))[:count])]


def sample_half(items: Iterable[Key], rng: np.random.Generator) -> set[Key]:
    """Draw the smaller half of the distinct items; the order in which they come does not matter."""
    everything = sorted(set(items))
    return set(sample(everything, len(everything) // 2, rng))


def draw_training(
    people: Iterable[Key], count: int, seed: int, dataset: str, name: str, splits: int = SPLITS
) -> list[set[Key]]:
    """Draw the people to train on in each of several splits; the others are tested.

    Parameters
    ----------
    people
        All of them; the order in which they come does not matter.
    count
        How many to draw for a split.
    seed
        Of the splits.
    dataset, name
        Which dataset and splits these are, so that others are drawn independently.
    splits
        How many. The first ones are the same whatever their number.
    """
    everybody = sorted(set(people))
    return [
        set(sample(everybody, count, generator(seed, dataset, f"{name} {number}")))
        for number in range(splits)
    ]


def role_of(pid: int, camid: int, training: Collection[int]) -> SplitRole:
    """Say what an image of one of two cameras is for.

    Of the people not trained on, views of camera 0 are queries and views of camera 1 the gallery, so somebody
    without a view in camera 0 is in the gallery only.
    """
    if pid in training:
        return SplitRole.TRAIN
    return SplitRole.QUERY if camid == 0 else SplitRole.GALLERY
