"""What a round does, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.records.scores import Evaluation, Scores, UnseenEvaluation


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
