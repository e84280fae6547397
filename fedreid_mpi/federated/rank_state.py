"""What one rank holds of the federation between two rounds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.federated.client import Client
from fedreid_mpi.federated.distillation import PublicImages
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import ClientSpec, Heartbeat


@dataclass(slots=True)
class Progress:
    """What changes from round to round; the one mutable value of a rank's state.

    Attributes
    ----------
    groups
        Members of each group of clients that share a model.
    untrained
        Ids of the clients that have not trained yet.
    models
        On the server, the model of each group: shape (shared,), float32, on the host.
    seconds
        Wall-clock seconds of this round's steps so far.
    """

    groups: tuple[tuple[int, ...], ...]
    untrained: frozenset[int]
    models: tuple[Tensor, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankState:
    """One rank's part of the federation.

    Attributes
    ----------
    comm
        The ranks.
    experiment
        The resolved configuration.
    specs
        All clients, in id order.
    placement
        Ids of the clients that each rank hosts.
    clients
        The clients that this rank hosts, in id order. Between two rounds each holds the shared model that it
        starts the next round from, beside its own classifier.
    shared
        A model without classifier, through which shared models pass on their way to clients and scores.
    archives
        All datasets, in the order of ``data.archives``: any client rank can score any of them.
    public
        The public dataset, where the experiment uses one.
    heartbeat
        Is called between batches; raises `Abandoned` where the round is to be given up.
    progress
        All of it that changes from round to round, beside the clients' own models.
    """

    comm: Communicator
    experiment: Experiment
    specs: tuple[ClientSpec, ...]
    placement: tuple[tuple[int, ...], ...]
    clients: tuple[Client, ...]
    shared: FlatModel
    archives: tuple[DatasetArchive, ...]
    public: PublicImages | None
    heartbeat: Heartbeat
    progress: Progress

    def advance(self, count: int) -> None:
        """Take note of a finished batch of images."""
        self.heartbeat()

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the wall-clock time of a block to the step's seconds."""
        began = time.perf_counter()
        yield
        seconds = self.progress.seconds
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - began
