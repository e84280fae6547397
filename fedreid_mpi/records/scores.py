"""Scores of a model on a client's test split, or on a dataset that no client trains on."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

CMC_RANKS = 50
"""Length of every stored CMC curve: rank-1 to rank-50."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a model ranks one dataset's gallery.

    Attributes
    ----------
    cmc
        Shape (`CMC_RANKS`,), float64: share of queries with a true match at or before each rank.
    mean_ap, mean_inp
        Mean average precision and mean inverse negative penalty, in [0, 1]; NaN if the protocol has none.
    queries
        Number of queries with at least one match.
    unmatched
        Number of queries without a match.
    """

    cmc: NDArray[np.float64]
    mean_ap: float
    mean_inp: float
    queries: int
    unmatched: int

    def __post_init__(self) -> None:
        """Refuse curves of another length: they could not be stacked in the archive."""
        if self.cmc.shape != (CMC_RANKS,):
            raise ValueError(f"cmc has shape {self.cmc.shape}, expected ({CMC_RANKS},)")


class ModelKind(StrEnum):
    """Which model an evaluation is of.

    ``GLOBAL`` is the model that a client starts the next round from: its group's, if clients are grouped.
    ``LOCAL`` is the client's own after training, ``AGGREGATED`` the global one before distillation, and
    ``REESTIMATED`` the global one with BatchNorm statistics of the client's training images.
    """

    GLOBAL = "global"
    LOCAL = "local"
    AGGREGATED = "aggregated"
    REESTIMATED = "re-estimated"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one model on one dataset after one round."""

    round: int
    client: int
    model: ModelKind
    scores: Scores


@dataclass(frozen=True, slots=True)
class UnseenDataset:
    """A dataset on which global models are scored, and which no client trains on.

    Attributes
    ----------
    id
        From 0, in the order of ``data.unseen``.
    name
        As stored in its archive.
    test_images
        Number of different query and gallery images in all its splits.
    splits
        Number of its test splits.
    """

    id: int
    name: str
    test_images: int
    splits: int


@dataclass(frozen=True, slots=True)
class UnseenEvaluation:
    """Scores of one group's global model on one unseen dataset after one round.

    Attributes
    ----------
    round
        The round after which the model was scored.
    dataset
        Id of the unseen dataset.
    group
        Number of the group, as in the round's record.
    scores
        Means over the dataset's splits; its number of queries is that of all splits together.
    """

    round: int
    dataset: int
    group: int
    scores: Scores
