"""Scores by dataset, whatever part of one a client holds: a dataset, a camera, a share of its people."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.records import ClientSpec, Scores

_PART = re.compile(r"-(camera|share)\d+$")


@dataclass(frozen=True, slots=True)
class HeldDataset:
    """A dataset of the federation, and who holds it.

    Attributes
    ----------
    name
        As in its archive.
    clients
        Ids of the clients that hold its images, ascending, at least one.
    test_images
        Number of query and gallery images; 0: no test split.
    """

    name: str
    clients: tuple[int, ...]
    test_images: int


def datasets_of(clients: Sequence[ClientSpec], settings: Mapping[str, Any]) -> tuple[HeldDataset, ...]:
    """List the datasets of a federation in client-id order; the pool of all images is none.

    Parameters
    ----------
    clients
        In id order.
    settings
        The configuration, parsed; it says what a client holds.
    """
    whole = settings.get("federation", {}).get("clients", "dataset") == "dataset"
    members: dict[int, list[ClientSpec]] = {}
    for client in clients:
        if client.dataset >= 0:
            members.setdefault(client.dataset, []).append(client)
    return tuple(
        HeldDataset(
            name=held[0].name if whole else _PART.sub("", held[0].name),
            clients=tuple(client.id for client in held),
            test_images=held[0].test_images,
        )
        for held in members.values()
    )


def weighted_mean(scores: Sequence[Scores], weights: NDArray[Any]) -> Scores:
    """Average the scores of several models on one dataset; its queries are the same for all of them.

    Parameters
    ----------
    scores
        Of M models; of one model they come back as they are.
    weights
        Shape (M,).
    """
    if len(scores) == 1:
        return scores[0]
    cmc = np.average([each.cmc for each in scores], axis=0, weights=weights)
    mean_ap, mean_inp = (
        float(np.average([getattr(each, name) for each in scores], weights=weights))
        for name in ("mean_ap", "mean_inp")
    )
    return Scores(cmc, mean_ap, mean_inp, scores[0].queries, scores[0].unmatched)


def mean_over_clients(scores: NDArray[Any], datasets: Sequence[HeldDataset]) -> NDArray[np.float64]:
    """Average scores over the clients of each dataset.

    One model for all its clients has one score, which each of them carries, and their mean is that score.
    Where groups of clients have a model each, or each client its own, it is the mean over the clients.

    Parameters
    ----------
    scores
        Shape (K, ...): one row per client; NaN where one was not scored.
    datasets
        D of them.

    Returns
    -------
    NDArray
        Shape (D, ...), float64; NaN where no client of the dataset was scored.
    """
    means = np.full((len(datasets), *scores.shape[1:]), np.nan)
    for row, dataset in enumerate(datasets):
        held = scores[list(dataset.clients)]
        there = np.isfinite(held)
        first = np.take_along_axis(held, there.argmax(axis=0)[None], axis=0)[0]
        # Differences to the first one: equal scores have exactly themselves as their mean.
        deviation = np.where(there, held - first, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        means[row] = np.where(there.any(axis=0), first + deviation, np.nan)
    return means
