"""Setting up a run: who the clients are, where each is placed, and what each rank loads."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import partition, require_distinct
from fedreid_mpi.data.staging import open_staged
from fedreid_mpi.device import memory_format, set_arithmetic
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.evaluation import require_tests
from fedreid_mpi.federated.client import describe_client, initial_private, load_data
from fedreid_mpi.federated.distillation import PublicImages
from fedreid_mpi.federated.exchange import broadcast_model
from fedreid_mpi.federated.plan import trainers
from fedreid_mpi.federated.rank_state import Progress, RankState
from fedreid_mpi.model import FlatModel, build_network, load_backbone_weights, load_shared
from fedreid_mpi.records import ClientSpec, Heartbeat, RankInfo
from fedreid_mpi.run.checkpoint import folder_of, group_files, load_memory, load_private, load_server
from fedreid_mpi.run.consistency import bind_device
from fedreid_mpi.run.state import ResumePoint
from fedreid_mpi.wording import counted


def open_archives(experiment: Experiment, is_server: bool) -> tuple[DatasetArchive | DataError, ...]:
    """Open every archive of a run, in the order of `Data.files`; the only place where a run opens one.

    Returns
    -------
    tuple of DatasetArchive or DataError
        On ranks other than the server, an error in place of each archive that cannot be read there:
        `require_same_files` puts it beside what the server sees.

    Raises
    ------
    DataError
        On the server, if an archive cannot be read.
    """
    opened: list[DatasetArchive | DataError] = []
    for path in experiment.data.files:
        try:
            opened.append(DatasetArchive.open(path))
        except DataError as error:
            if is_server:
                raise
            opened.append(error)
    return tuple(opened)


def require_open(opened: Sequence[DatasetArchive | DataError]) -> tuple[DatasetArchive, ...]:
    """Return the archives if all could be opened here.

    Raises
    ------
    DataError
        The first that there is in place of an archive.
    """
    for archive in opened:
        if isinstance(archive, DataError):
            raise archive
    return tuple(archive for archive in opened if isinstance(archive, DatasetArchive))


def by_use(
    experiment: Experiment, opened: Sequence[DatasetArchive]
) -> tuple[tuple[DatasetArchive, ...], tuple[DatasetArchive, ...], tuple[DatasetArchive, ...]]:
    """Sort a run's archives by use: the clients', those of unseen datasets, the public one or none."""
    clients = len(experiment.data.archives)
    trained = clients + len(experiment.data.unseen)
    return tuple(opened[:clients]), tuple(opened[clients:trained]), tuple(opened[trained:])


def describe_clients(experiment: Experiment, opened: Sequence[DatasetArchive]) -> tuple[ClientSpec, ...]:
    """Check that the archives give the federation that was asked for, and return its clients.

    Raises
    ------
    ConfigurationError, DataError
        If they do not.
    """
    require_distinct(opened)
    archives, unseen, _ = by_use(experiment, opened)
    first = archives[0]
    for archive in archives:
        if not archive.has("train"):
            raise DataError(
                f"{archive.path}: has no training images, which data.archives needs (found "
                f"{', '.join(archive.roles())}); data.unseen takes datasets that nobody trains on"
            )
    for archive in unseen:
        require_tests(archive)
    for archive in (*archives, *unseen):
        if (archive.height, archive.width) != (first.height, first.width):
            raise DataError(
                f"{archive.path}: images are {archive.height}x{archive.width}, "
                f"expected {first.height}x{first.width} as in {first.path}: prepare all with one --size"
            )
    specs = tuple(
        describe_client(id, part, archives, experiment.federation)
        for id, part in enumerate(partition(archives, experiment))
    )
    federation, names = experiment.federation, [spec.name for spec in specs]
    if federation.clients_per_round > len(specs):
        raise ConfigurationError(
            f"federation.clients_per_round is {federation.clients_per_round}, expected at most "
            f"{len(specs)}, the number of clients"
        )
    for name in federation.availability:
        if name not in names:
            raise ConfigurationError(
                f"federation.availability names {name!r}, expected one of {', '.join(names)}"
            )
    for spec in specs:
        drops = federation.sampler == "shuffled" and federation.drop_last
        if drops and spec.images < federation.batch_size:
            raise ConfigurationError(
                f"client {spec.name}: "
                f"{counted(spec.images, 'training image is', 'training images are')} less than "
                "federation.batch_size = "
                f"{federation.batch_size}, and federation.drop_last leaves partial batches out"
            )
    return specs


def place_clients(
    experiment: Experiment, specs: Sequence[ClientSpec], ranks: int
) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the clients that each of so many ranks hosts; the server none, unless it is alone."""
    costs = [spec.images if spec.id in trainers(experiment, specs) else 0 for spec in specs]
    return ((), *place(costs, ranks - 1)) if ranks > 1 else place(costs, 1)


def set_up(
    comm: Communicator,
    experiment: Experiment,
    opened: Sequence[DatasetArchive],
    specs: tuple[ClientSpec, ...],
    run_dir: Path,
    start: ResumePoint,
    heartbeat: Heartbeat,
) -> RankState:
    """Load this rank's part: its device, its clients, and the models that they start from.

    Parameters
    ----------
    comm, experiment
        The ranks and the resolved configuration.
    opened
        All archives, in the order of `Data.files`.
    specs
        All clients, in id order.
    run_dir
        Holds the checkpoint, where the run does not start at its beginning.
    start
        Where the run starts.
    heartbeat
        Is called between batches.
    """
    placement = place_clients(experiment, specs, comm.size)
    device = bind_device(comm, experiment.compute)

    def build() -> RankState:
        torch.cuda.empty_cache()  # after a loss this rank may be bound to another GPU
        set_arithmetic(experiment.compute, device)
        staged = tuple(open_staged(archive, experiment.data.stage, comm.heartbeat) for archive in opened)
        archives, unseen, public = by_use(experiment, staged)
        parts = partition(archives, experiment)
        largest = max(spec.identities for spec in specs)
        size = (archives[0].height, archives[0].width)
        network = build_network(experiment.model, largest, experiment.run.seed, "shared", size=size)
        notes: tuple[str, ...] = ()
        if experiment.model.weights is not None and comm.is_server and start.after < 0:
            account = load_backbone_weights(experiment.model.weights, network, experiment.model.backbone)
            notes = (f"{experiment.model.weights.name}: {account.summary}",)
        return RankState(
            comm=comm,
            experiment=experiment,
            specs=specs,
            placement=placement,
            clients=tuple(load_data(specs[id], parts[id], archives, device) for id in placement[comm.rank]),
            model=FlatModel(network, device, memory_format(experiment.compute, device)),
            archives=archives,
            unseen=unseen,
            public=PublicImages.open(public[0], experiment, device, network.pixel_scale) if public else None,
            heartbeat=heartbeat,
            notes=notes,
            progress=Progress(start.groups, frozenset(start.untrained)),
        )

    state = comm.phase("start", build)
    if start.after < 0:
        begin(state)
    else:
        resume(state, folder_of(run_dir, start.after), start.private)
    return state


def begin(state: RankState) -> None:
    """Give every rank the initial model, and every client what it keeps to itself."""
    broadcast_model(state.comm, state.model.shared)
    shares = state.experiment.federation.mode != "local"
    keeps = shares and state.needs_model_of(state.progress.groups[0])
    state.progress.models = (state.model.shared.clone() if keeps else None,) if shares else ()
    state.progress.private = {
        client.spec.id: initial_private(state.model, client.spec, state.experiment)
        for client in state.clients
    }


def resume(state: RankState, folder: Path, private: Sequence[str]) -> None:
    """Give every rank the shared models of a checkpoint, and its clients all that is their own."""
    comm, model, progress = state.comm, state.model, state.progress
    if state.experiment.federation.mode != "local":
        kept: list[Tensor | None] = []
        for name, group in zip(group_files(len(progress.groups)), progress.groups, strict=True):

            def load(name: str = name) -> None:
                if comm.is_server:
                    load_shared(folder / name, model)

            comm.phase("resume", load)
            broadcast_model(comm, model.shared)
            kept.append(model.shared.clone() if state.needs_model_of(group) else None)
        progress.models = tuple(kept)

    def remember() -> None:
        progress.private = load_private(folder, private, state)
        progress.memory = load_memory(folder, private, state)
        progress.server = load_server(folder) if comm.is_server else {}

    comm.phase("resume", remember)


def rank_info(state: RankState) -> RankInfo:
    """Describe where this rank runs and what it does."""
    comm, device = state.comm, state.model.buffer.device
    clients = state.placement[comm.rank]
    tasks = ["server"] * comm.is_server + ["client"] * bool(clients)
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    where = comm.location
    return RankInfo(comm.rank, where.host, " and ".join(tasks) or "idle", name, clients, where.cores)
