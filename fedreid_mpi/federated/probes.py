"""What is measured of a client's model before and after its training, while it is loaded.

A probe is made anew for each turn of a client, if the round asks for it. It looks at the model before the
training, after it, or both, and returns what it measured: fields of the client's report, and vectors that are
averaged over the clients. To add one, write a class and list it in `PROBES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.algorithms.weighting import cosine_distance
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.device import autocast
from fedreid_mpi.federated.client import Client
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.scoring import score_loaded
from fedreid_mpi.federated.sums import FEATURES
from fedreid_mpi.model import batch_statistics
from fedreid_mpi.records import RoundPlan


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a probe measured.

    Attributes
    ----------
    report
        Field of the `ClientReport` to its value.
    sums
        Kind to vector, shape (elements,), float32, which is averaged over the clients of a group.
    """

    report: Mapping[str, Any] = field(default_factory=dict)
    sums: Mapping[str, Tensor] = field(default_factory=dict)


class Probe(Protocol):
    """Looks at the working model before and after a client's training."""

    def before(self) -> None:
        """Look at the model before the training."""

    def after(self) -> Measurement | None:
        """Look at the trained model; return None if the measurement is not finite: the client diverged."""


class CosineDistance:
    """How far the training moved the client's logits, for the cosine distance weight.

    Logits are taken before and after on the same unaugmented batch, without dropout. BatchNorm takes the
    statistics of that batch both times: running ones move in training, and would make up most of the
    distance. So the difference is what the training did to the parameters alone.

    The batch is of public images, drawn by (seed, round), the same for all clients (Zhuang et al., ACM TOMM
    2023, Algorithms 2 and 3), or of the client's own training images, drawn by (seed, round, client).
    """

    def __init__(self, state: RankState, plan: RoundPlan, client: Client) -> None:
        self._state, experiment = state, state.experiment
        if experiment.aggregation.probe == "public":
            assert state.public is not None
            images, random = state.public.images, generator(experiment.run.seed, "probe", plan.round)
        else:
            random = generator(experiment.run.seed, "probe", plan.round, client.spec.id)
            images = client.images
        rows = random.permutation(len(images))[: experiment.federation.batch_size]
        self._images = normalise(images.batch(rows), state.model.network.pixel_scale)

    @torch.no_grad()
    def logits(self) -> NDArray[np.float32]:
        """Return the client's logits of the batch: shape (at most batch_size, identities), float32."""
        network = self._state.model.network
        with batch_statistics(network), autocast(self._state.experiment.compute, self._images.device):
            logits = network(self._images)
        return np.asarray(logits.float().cpu())

    def before(self) -> None:
        """Keep the logits."""
        self._before = self.logits()

    def after(self) -> Measurement | None:
        """Compare the logits with those before."""
        logits = self.logits()
        if not np.isfinite(logits).all():
            return None
        return Measurement({"cosine_distance": cosine_distance(self._before, logits)})


@dataclass(frozen=True, slots=True)
class _After:
    """A probe that looks at the trained model only."""

    state: RankState
    plan: RoundPlan
    client: Client

    def before(self) -> None:
        """Do nothing."""


class ClusteringFeature(_After):
    """The feature that the client is clustered by: what its model makes of public images."""

    def after(self) -> Measurement | None:
        """Describe the trained model."""
        assert self.state.public is not None
        feature = self.state.public.clustering_feature(
            self.state.model.network, self.plan, self.state.heartbeat
        )
        return Measurement({"feature": feature}) if np.isfinite(feature).all() else None


class TeacherFeatures(_After):
    """Features of the round's public images, to be distilled."""

    def after(self) -> Measurement | None:
        """Compute the features with the trained model."""
        assert self.state.public is not None
        features = self.state.public.teach(self.state.model.network, self.plan, self.state.heartbeat)
        return Measurement(sums={FEATURES: features.flatten()})


class LocalScores(_After):
    """How well the client's own model ranks its test split."""

    def after(self) -> Measurement | None:
        """Score the trained model."""
        scores = score_loaded(self.state, self.client.spec)
        return None if scores is None else Measurement({"local_scores": scores})


def _is_weighed_by_distance(state: RankState, plan: RoundPlan, client: Client) -> bool:
    experiment = state.experiment
    return experiment.aggregation.weights == "cosine-distance" and experiment.federation.mode == "federated"


def _is_scored(state: RankState, plan: RoundPlan, client: Client) -> bool:
    return plan.evaluate and state.experiment.evaluation.local_models and client.spec.test_images > 0


PROBES: Sequence[
    tuple[
        Callable[[RankState, RoundPlan, Client], bool],
        Callable[[RankState, RoundPlan, Client], Probe],
    ]
] = (
    (_is_weighed_by_distance, CosineDistance),
    (lambda state, plan, client: plan.cluster, ClusteringFeature),
    (lambda state, plan, client: plan.distil, TeacherFeatures),
    (_is_scored, LocalScores),
)
"""Whether a turn needs a probe, and what makes it; in the order in which they look."""


def probes_of(state: RankState, plan: RoundPlan, client: Client) -> tuple[Probe, ...]:
    """Return the probes of a client's turn."""
    return tuple(make(state, plan, client) for asked, make in PROBES if asked(state, plan, client))
