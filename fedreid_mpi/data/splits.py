"""Splits and cameras for datasets that come without: seeded, after the rule of the DGD scripts.

The scripts (Xiao et al., Learning Deep Feature Representations with Domain Guided Dropout, CVPR 2016) shuffle
without a seed, and the federated benchmark (Zhuang et al., Performance Optimization for Federated Person
Re-identification via Benchmark Analysis, ACM MM 2020) uses their output. So a split that is drawn again has
the published sizes but other people in it.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np

from fedreid_mpi import seeds
from fedreid_mpi.data.archive import SplitRole

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


def role_of(pid: int, camid: int, training: Collection[int]) -> SplitRole:
    """Say what an image of one of two cameras is for.

    Of the people not trained on, views of camera 0 are queries and views of camera 1 the gallery, so somebody
    without a view in camera 0 is in the gallery only.
    """
    if pid in training:
        return SplitRole.TRAIN
    return SplitRole.QUERY if camid == 0 else SplitRole.GALLERY
