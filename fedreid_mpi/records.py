"""The values that flow through a run: frozen, checked when made, small enough to be sent by name.

``ClientSpec`` says who takes part, ``RoundPlan`` what a round does, ``ClientReport`` what a client's training
gave, ``Group`` which models are averaged, and ``RoundRecord`` what goes into the results archive.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.scores import CMC_RANKS, Evaluation, ModelKind, Scores, UnseenDataset, UnseenEvaluation
from fedreid_mpi.wording import counted

# Records hold these, so they can be imported from here as well.
__all__ = ["CMC_RANKS", "Evaluation", "ModelKind", "Scores", "UnseenDataset", "UnseenEvaluation"]

EvaluationProtocol = Literal["standard", "published", "single-gallery-shot"]
"""How a ranked gallery becomes scores; see `fedreid_mpi.evaluation.ranking`."""

Weighting = Literal["samples", "cosine-distance", "uniform"]
"""What a client's model weighs; see `fedreid_mpi.algorithms.weighting`."""

AggregationRule = Literal["average", "fednova", "scaffold"]
"""How clients' models are averaged; see `fedreid_mpi.federated.server_step`."""

ServerOptimizer = Literal["none", "momentum", "adam", "yogi"]
"""What the server makes of the clients' mean; see `fedreid_mpi.algorithms.server_optimizers`."""

BatchNormMode = Literal["average", "local", "reference"]
"""What happens to BatchNorm's state; see `fedreid_mpi.algorithms.grouping`."""

DistillationLoss = Literal["squared-distance", "mse"]
"""What the student's error is; see `fedreid_mpi.algorithms.distillation`."""

Normalised = Literal["both", "teachers", "none"]
"""Whose features are scaled to length 1 in distillation."""

ClusteringFeature = Literal["concat", "mean"]
"""What a client is clustered by; see `fedreid_mpi.federated.distillation`."""

Sampling = Literal["shuffled", "identities"]
"""What makes up a training batch; see `fedreid_mpi.data.samplers`."""

Schedule = Literal["constant", "step", "milestones", "cosine"]
"""How the learning rate changes over the rounds; see `fedreid_mpi.algorithms.schedule`."""

Advance = Callable[[int], None]
"""Called by long work with the number of items just finished; the command line draws a bar from it."""

Heartbeat = Callable[[], None]
"""Called by long work between two batches; raises `Abandoned` if the round is to be abandoned."""


def no_heartbeat() -> None:
    """Do nothing: the heartbeat of work that no other rank waits for."""


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """One client of the federation: a site with its own images.

    Attributes
    ----------
    id
        From 0, in the order of ``data.archives``. Models are added in this order; ties go to the lower id.
    name
        Name of the dataset, as stored in its archive; with the camera or the share of the people, if the
        client has only those.
    dataset
        Position in ``data.archives`` of the archive with the client's test split; -1 for the pool of all
        images, which has none.
    images
        Number of training images.
    identities
        Number of people among them: the size of the client's private classifier.
    test_images
        Number of query and gallery images; 0 if the client has no test split.
    steps
        Number of batches that it trains on in one round. Not stored.
    """

    id: int
    name: str
    dataset: int
    images: int
    identities: int
    test_images: int
    steps: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse a client that cannot be trained."""
        if self.images < 2 or self.identities < 1:
            raise ValueError(
                f"client {self.name}: {counted(self.images, 'image')} of "
                f"{counted(self.identities, 'identity', 'identities')}"
            )


class Role(StrEnum):
    """Where a tensor of the model belongs; the flat model is laid out in this order."""

    BACKBONE = "backbone"
    EMBEDDING = "embedding"
    STATISTICS = "statistics"
    CLASSIFIER = "classifier"


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """One floating-point tensor of the model and its place in the flat buffer.

    Attributes
    ----------
    name
        Dotted name in the module's ``state_dict``.
    shape, stride
        Of the tensor, in elements.
    offset
        First element in the flat buffer, a multiple of 16 (64 bytes).
    role
        Region of the buffer. All but ``CLASSIFIER`` are shared with the server.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    role: Role

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What one round does; decided on the server, broadcast, never revised.

    Attributes
    ----------
    round
        Number of the round, from 1. Round 0 is the untrained model's evaluation.
    participants
        Ids of the clients that train, in the round's seeded order.
    learning_rate
        Of embedding and classifier in this round.
    evaluate
        Whether the round ends with an evaluation.
    cluster
        Whether the participants are grouped anew before aggregation.
    distil
        Whether the server fine-tunes the aggregated models on the public dataset.
    edge
        Whether clients average only with those of the same dataset.
    """

    round: int
    participants: tuple[int, ...]
    learning_rate: float
    evaluate: bool
    cluster: bool = False
    distil: bool = False
    edge: bool = False


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What the server learns about one client's training: numbers, never parameters or images.

    Attributes
    ----------
    client
        Id of the client.
    images
        Number of training images it holds: its weight in FedPav.
    steps
        Number of optimiser steps taken.
    loss
        Mean training loss over the images seen.
    finite
        Whether loss, parameters and all that was measured of the trained model are finite.
    seconds
        Wall-clock time of the training.
    local_scores
        Scores of the trained model on the client's own test split, if they are asked for.
    cosine_distance
        Mean distance between the logits before and after training, if it is the client's weight.
    feature
        What the client is clustered by, if clients are: shape (values,), float32.
    """

    client: int
    images: int
    steps: int
    loss: float
    finite: bool
    seconds: float
    local_scores: Scores | None = None
    cosine_distance: float | None = None
    feature: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class GridSum:
    """A sum of updates, the only integers that may travel: shape (elements,), int64, or uint64 if masked."""

    values: NDArray[np.int64] | NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Group:
    """Clients that share a model from the end of a round on.

    Attributes
    ----------
    members
        Ids of the clients, ascending.
    weights
        Id to weight of the models that are averaged: those of members, except for clients that never trained,
        which get the mean of all. Empty if nobody in the group trained; its old model is then kept.
    statistics_weights
        The same for BatchNorm's running statistics.
    before
        Index of the group of the previous round whose model is kept if nobody trained.
    """

    members: tuple[int, ...]
    weights: Mapping[int, float]
    statistics_weights: Mapping[int, float]
    before: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something out of the ordinary that a reader of the results should know."""

    round: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """What left a rank, as it is entered in the ledger: never its contents.

    Attributes
    ----------
    kind
        What it carries: ``"models"``, ``"features"``, ``"controls"``, the types of a small value's parts,
        joined by ``"+"``, or ``"heartbeat"``, a sign of life.
    dtype
        ``"float32"``; ``"int64"`` for sums of updates and for a heartbeat, ``"uint64"`` for masked sums;
        ``"pickle"`` for a small value.
    shape
        Of an array; empty for a small value.
    bytes
        Size of one such message.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """All that is kept of one round.

    ``phase_seconds``, ``bytes_sent``, ``messages``, ``events`` and the reports' ``seconds`` are volatile:
    they differ from run to run. Everything else is stable: equal to the last bit for any number of ranks.

    Attributes
    ----------
    plan
        What was done.
    reports
        One a participant, in client-id order.
    weights
        Client id to the weight its model had within its group.
    groups
        Client id to the number of its group, for all clients; groups are numbered by their lowest client.
    distillation_loss
        Group to the student's mean loss, where the round distilled.
    epsilon
        What has been spent of differential privacy, where updates are clipped.
    feature_distances
        Where clients were grouped anew: cosine distance between the features of each two clients, shape
        (clients, clients), float32, NaN for those that have none.
    evaluations
        In client-id order, the global model's before the local ones'.
    unseen
        Scores on datasets that nobody trains on, by group, then by dataset.
    events
        In the order in which they happened.
    phase_seconds
        Wall-clock seconds of each phase as the server saw it.
    bytes_sent
        Bytes that travelled between ranks, by kind.
    messages
        Rank to the messages that left it, each with how often.
    """

    plan: RoundPlan
    reports: tuple[ClientReport, ...] = ()
    weights: Mapping[int, float] = field(default_factory=dict)
    groups: Mapping[int, int] = field(default_factory=dict)
    distillation_loss: Mapping[int, float] = field(default_factory=dict)
    epsilon: float | None = None
    feature_distances: NDArray[np.float32] | None = None
    evaluations: tuple[Evaluation, ...] = ()
    unseen: tuple[UnseenEvaluation, ...] = ()
    events: tuple[Event, ...] = ()
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_sent: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[int, Mapping[Message, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankInfo:
    """One MPI rank, where it runs and what it does; the rows of the table printed at the start."""

    rank: int
    host: str
    role: str
    device: str
    clients: tuple[int, ...]
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What is known of a run before its first round; stored as the archive's attributes.

    Attributes
    ----------
    name, seed
        From the configuration.
    configuration
        The resolved configuration as TOML.
    clients
        In id order.
    ranks
        In rank order (volatile).
    versions
        Library name to version (volatile).
    git_commit
        Commit of the package's source where it is a git checkout, else an empty string (volatile).
    parameters
        Number of floating-point values that a client shares with the server.
    attempt
        1 for the first start of a run (volatile).
    unseen
        Datasets that nobody trains on, in id order.
    git_dirty
        Whether files of the package were changed since that commit (volatile).
    source_digest
        Digest of the package's source; empty in archives from before there was one (volatile).
    """

    name: str
    seed: int
    configuration: str
    clients: tuple[ClientSpec, ...]
    ranks: tuple[RankInfo, ...]
    versions: Mapping[str, str]
    git_commit: str
    parameters: int
    attempt: int = 1
    unseen: tuple[UnseenDataset, ...] = ()
    git_dirty: bool = False
    source_digest: str = ""
