"""Joining a federation: who the clients are, where each is placed, and what each rank loads."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.checkpoint import folder_of, group_files, load_client
from fedreid_mpi.comm.base import Communicator
from fedreid_mpi.comm.exchange import distribute
from fedreid_mpi.config import Experiment
from fedreid_mpi.course import Start
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import partition, require_distinct
from fedreid_mpi.data.staging import open_staged
from fedreid_mpi.device import choose_device, set_arithmetic
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.member import Member
from fedreid_mpi.model import FlatModel, build_network, load_backbone_weights, load_tensors
from fedreid_mpi.round import trainers
from fedreid_mpi.teaching import PublicImages
from fedreid_mpi.training import build_client, describe_client
from fedreid_mpi.types import ClientSpec, Pulse, RankInfo


def describe_clients(experiment: Experiment) -> tuple[ClientSpec, ...]:
    """Open every archive once and check that they make the federation that was asked for."""
    every = [DatasetArchive.open(path) for path in experiment.data.files]
    require_distinct(every)
    archives = every[: len(experiment.data.archives)]
    first = archives[0]
    for archive in archives:
        if (archive.height, archive.width) != (first.height, first.width):
            raise DataError(
                f"{archive.path}: images are {archive.height}x{archive.width}, "
                f"expected {first.height}x{first.width} as in {first.path}: prepare all with one --size"
            )
    specs = tuple(
        describe_client(id, part, archives) for id, part in enumerate(partition(archives, experiment))
    )
    federation, names = experiment.federation, [spec.name for spec in specs]
    if federation.clients_per_round > len(specs):
        raise ConfigurationError(
            f"federation.clients_per_round is {federation.clients_per_round}, expected at most the "
            f"{len(specs)} clients that there are"
        )
    for name in federation.availability:
        if name not in names:
            raise ConfigurationError(
                f"federation.availability names {name!r}, expected one of {', '.join(names)}"
            )
    for spec in specs:
        if federation.drop_last and spec.images < federation.batch_size:
            raise ConfigurationError(
                f"client {spec.name}: {spec.images} training images are less than federation.batch_size = "
                f"{federation.batch_size}, and federation.drop_last leaves partial batches out"
            )
    return specs


def content_digests(experiment: Experiment) -> tuple[str, ...]:
    """Return the content digests of all archives, the public one last."""
    return tuple(DatasetArchive.open(path).content_digest for path in experiment.data.files)


def place_clients(
    experiment: Experiment, specs: Sequence[ClientSpec], ranks: int
) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the clients that each of so many ranks hosts; the server none, unless it is alone."""
    costs = [spec.images if spec.id in trainers(experiment, specs) else 0 for spec in specs]
    return ((), *place(costs, ranks - 1)) if ranks > 1 else place(costs, 1)


def join(
    comm: Communicator,
    experiment: Experiment,
    specs: tuple[ClientSpec, ...],
    run_dir: Path,
    start: Start,
    pulse: Pulse,
) -> Member:
    """Load this rank's part: its device, its clients, and the models that they start from.

    Parameters
    ----------
    comm, experiment
        The ranks and the resolved configuration.
    specs
        All clients, in id order.
    run_dir
        Holds the checkpoint, where the run does not start at its beginning.
    start
        Where the run starts.
    pulse
        Is called between batches.
    """
    placement = place_clients(experiment, specs, comm.size)
    public = experiment.data.public

    def build() -> Member:
        where = comm.location
        torch.cuda.empty_cache()  # after a loss this rank may be bound to another GPU
        device = choose_device(experiment.compute, where.index, where.count, where.host)
        set_arithmetic(experiment.compute, device)
        stage = experiment.data.stage
        archives = tuple(open_staged(path, stage) for path in experiment.data.archives)
        parts = partition(archives, experiment)
        network = build_network(experiment.model, None, experiment.run.seed, "shared")
        if experiment.model.weights is not None and comm.is_server and start.after < 0:
            load_backbone_weights(experiment.model.weights, network, experiment.model.backbone)
        return Member(
            comm=comm,
            experiment=experiment,
            specs=specs,
            placement=placement,
            clients=tuple(
                build_client(specs[id], parts[id], archives, experiment, device)
                for id in placement[comm.rank]
            ),
            shared=FlatModel(network, device, experiment.compute.channels_last),
            archives=archives,
            public=PublicImages.open(public, experiment, device) if public is not None else None,
            pulse=pulse,
        )

    member = comm.phase("start", build)
    member.groups.extend(start.groups)
    member.newcomers.update(start.newcomers)
    if start.after < 0:
        if comm.is_server:
            member.models.append(member.shared.shared.to("cpu", copy=True))
        _hand_out(member)
    else:
        folder = folder_of(run_dir, start.after)
        if experiment.federation.mode != "local":
            comm.phase("resume", partial(_load_groups, member, folder))
            _hand_out(member)
        comm.phase("resume", partial(_load_clients, member, folder))
    return member


def _hand_out(member: Member) -> None:
    """Give each client its group's model."""
    for number, group in enumerate(member.groups):
        if member.comm.is_server:
            member.shared.shared.copy_(member.models[number])
        distribute(member.comm, member.shared.shared)
        for client in member.clients:
            if client.spec.id in group:
                client.model.load_shared(member.shared.shared)


def _load_groups(member: Member, folder: Path) -> None:
    if member.comm.is_server:
        for name in group_files(len(member.groups)):
            load_tensors(folder / name, member.shared, member.shared.specs)
            member.models.append(member.shared.shared.to("cpu", copy=True))


def _load_clients(member: Member, folder: Path) -> None:
    for client in member.clients:
        load_client(folder, client, member.experiment)


def introduce(member: Member) -> RankInfo:
    """Say where this rank runs and what it does."""
    comm, device = member.comm, member.shared.buffer.device
    clients = member.placement[comm.rank]
    tasks = ["server"] * comm.is_server + ["client"] * bool(clients)
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    where = comm.location
    return RankInfo(comm.rank, where.host, " and ".join(tasks) or "idle", name, clients, where.cores)
