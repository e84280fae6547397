"""What one rank holds of the federation between two rounds."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.federated.client import Client
from fedreid_mpi.federated.distillation import PublicImages
from fedreid_mpi.federated.turn import Vectors
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
        The shared model of each group: shape (shared,), float32, on the rank's device. None where a rank that
        is not the server hosts none of the group's clients, and in mode ``"local"``.
    private
        Of each client that this rank hosts, what it keeps to itself; see `client.private_specs`: float32, on
        the host.
    memory
        Of each client that this rank hosts and that has trained, what it remembers of its last turn
        (`memory`), on the host.
    server
        What the server remembers between two rounds, on its host: name to vector, shape (elements,), float32;
        empty on other ranks. A round takes over a new mapping at its end, and changes none.
    seconds
        Wall-clock seconds of this round's steps so far.
    spare
        Memory of sums that an earlier round is done with.
    """

    groups: tuple[tuple[int, ...], ...]
    untrained: frozenset[int]
    models: tuple[Tensor | None, ...] = ()
    private: dict[int, Tensor] = field(default_factory=dict)
    memory: dict[int, Vectors] = field(default_factory=dict)
    server: Vectors = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    spare: list[Tensor] = field(default_factory=list)

    def shared_of(self, client: int) -> Tensor | None:
        """Return the shared model that a client trains from; None: it shares nothing."""
        if not self.models:
            return None
        return next(model for group, model in zip(self.groups, self.models, strict=True) if client in group)


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
        The data of the clients that this rank hosts, in id order.
    model
        The rank's one model, which serves its clients in turn, and scores. What is in it between two uses
        means nothing.
    archives
        All clients' datasets, in the order of ``data.archives``: any client rank can score any of them.
    unseen
        Those that nobody trains on, in the order of ``data.unseen``.
    public
        The public dataset, where the experiment uses one.
    heartbeat
        Is called between batches; raises `Abandoned` where the round is to be given up.
    progress
        All of it that changes from round to round.
    notes
        What is worth telling of how it was set up.
    """

    comm: Communicator
    experiment: Experiment
    specs: tuple[ClientSpec, ...]
    placement: tuple[tuple[int, ...], ...]
    clients: tuple[Client, ...]
    model: FlatModel
    archives: tuple[DatasetArchive, ...]
    unseen: tuple[DatasetArchive, ...]
    public: PublicImages | None
    heartbeat: Heartbeat
    progress: Progress
    notes: tuple[str, ...] = ()

    def needs_model_of(self, group: Collection[int]) -> bool:
        """Return whether this rank keeps the shared model of a group of clients."""
        return self.comm.is_server or any(client.spec.id in group for client in self.clients)

    @property
    def hosts(self) -> dict[int, int]:
        """The rank of each client."""
        return {client: rank for rank, clients in enumerate(self.placement) for client in clients}

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
