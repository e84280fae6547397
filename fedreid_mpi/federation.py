"""The federation: who is where, then round after round until the last. The only loop."""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch

from fedreid_mpi.algorithms.placement import place
from fedreid_mpi.comm.base import Communicator
from fedreid_mpi.comm.exchange import distribute
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import partition
from fedreid_mpi.device import choose_device, set_arithmetic
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.files import replacing
from fedreid_mpi.member import Member
from fedreid_mpi.model import FlatModel, build_network, load_backbone_weights, save_model
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.round import plan_round, play_round, trainers
from fedreid_mpi.teaching import PublicImages
from fedreid_mpi.training import build_client, describe_client
from fedreid_mpi.types import ClientSpec, RankInfo, RoundRecord, RunHeader

LIBRARIES = ("fedreid_mpi", "torch", "numpy", "h5py", "mpi4py")


class Observer(Protocol):
    """Whoever watches a run, on the server."""

    def started(self, header: RunHeader) -> None:
        """Be told who is where, before the first round."""

    def finished(self, record: RoundRecord) -> None:
        """Be told what came of a round, once it is on disk."""


def run_federation(
    comm: Communicator, experiment: Experiment, run_dir: Path, observer: Observer, git_commit: str = ""
) -> None:
    """Run an experiment to its end; called alike on every rank.

    Parameters
    ----------
    comm
        The ranks.
    experiment
        The same on every rank.
    run_dir
        Receives ``results_*.h5`` and ``models/``; must not hold a run yet.
    observer
        Called on the server alone.
    git_commit
        Commit of the package's source, for the archive.

    Raises
    ------
    PhaseError
        On every rank alike, if any failed in a phase.
    """
    specs = comm.decide("datasets", partial(_describe_clients, experiment))
    comm.decide("run directory", partial(_claim, run_dir))
    member = _join(comm, experiment, specs)
    ranks = comm.gather(_introduce(member))
    writer = None
    if ranks is not None:
        header = _header(member, ranks, git_commit)
        writer = ResultsWriter(run_dir, header)
        observer.started(header)
    for round in range(experiment.run.rounds + 1):
        plan = comm.decide("plan", partial(plan_round, experiment, specs, round))
        record = play_round(member, plan)
        comm.phase("commit", partial(_commit, member, run_dir, writer, record, round))
        if record is not None:
            observer.finished(record)


def _claim(run_dir: Path) -> None:
    """Make the run directory, private to its user, or refuse one that is in use or cannot be written."""
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(run_dir.glob("results_*.h5")):
            raise ConfigurationError(
                f"--run-dir {run_dir}: already holds a run, expected a new or empty folder"
            )
        (run_dir / "models").mkdir(exist_ok=True)
        with replacing(run_dir / "models" / ".writable") as probe:
            probe.touch()
        (run_dir / "models" / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(f"--run-dir {run_dir}: cannot be written: {error.strerror}") from error


def _describe_clients(experiment: Experiment) -> tuple[ClientSpec, ...]:
    """Open every archive once and check that they make the federation that was asked for."""
    archives = [DatasetArchive.open(path) for path in experiment.data.archives]
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


def _join(comm: Communicator, experiment: Experiment, specs: tuple[ClientSpec, ...]) -> Member:
    """Load this rank's part: its device, its clients, and the model that all start from."""
    costs = [spec.images if spec.id in trainers(experiment, specs) else 0 for spec in specs]
    hosted = dict(zip(comm.client_ranks, place(costs, len(comm.client_ranks)), strict=True))
    placement = tuple(hosted.get(rank, ()) for rank in range(comm.size))
    public = experiment.data.public

    def build() -> Member:
        where = comm.location
        device = choose_device(experiment.compute, where.index, where.count, where.host)
        set_arithmetic(experiment.compute, device)
        archives = tuple(DatasetArchive.open(path) for path in experiment.data.archives)
        parts = partition(archives, experiment)
        network = build_network(experiment.model, None, experiment.run.seed, "shared")
        if experiment.model.weights is not None and comm.is_server:
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
        )

    member = comm.phase("start", build)
    distribute(comm, member.shared.shared)
    for client in member.clients:
        client.model.load_shared(member.shared.shared)
    member.groups.append(tuple(spec.id for spec in specs))
    member.newcomers.update(spec.id for spec in specs)
    if comm.is_server:
        member.models.append(member.shared.shared.to("cpu", copy=True))
    return member


def _introduce(member: Member) -> RankInfo:
    """Say where this rank runs and what it does."""
    comm, device = member.comm, member.shared.buffer.device
    clients = member.placement[comm.rank]
    tasks = ["server"] * comm.is_server + ["client"] * bool(clients)
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    where = comm.location
    return RankInfo(comm.rank, where.host, " and ".join(tasks) or "idle", name, clients, where.cores)


def _header(member: Member, ranks: Sequence[RankInfo], git_commit: str) -> RunHeader:
    experiment = member.experiment
    return RunHeader(
        name=experiment.run.name,
        seed=experiment.run.seed,
        configuration=experiment.to_toml(),
        clients=member.specs,
        ranks=tuple(ranks),
        versions={library: version(library) for library in LIBRARIES},
        git_commit=git_commit,
        parameters=member.shared.shared.numel(),
    )


def _commit(
    member: Member, run_dir: Path, writer: ResultsWriter | None, record: RoundRecord | None, round: int
) -> None:
    """Put the round on disk: first the models, then the record that says they are there."""
    height, width = member.archives[0].height, member.archives[0].width
    folder, settings = run_dir / "models", member.experiment.model
    if member.experiment.federation.mode == "local":
        for client in member.clients:
            path = folder / f"{client.spec.id}_{client.spec.name}.safetensors"
            save_model(path, client.model, settings, height, width, round)
    elif member.comm.is_server:
        names = [f"group_{n}" for n in range(len(member.models))] if len(member.models) > 1 else ["global"]
        for name, model in zip(names, member.models, strict=True):
            member.shared.shared.copy_(model)
            save_model(folder / f"{name}.safetensors", member.shared, settings, height, width, round)
        for path in sorted(folder.glob("*.safetensors")):
            if path.stem not in names:  # groups of an earlier round
                path.unlink()
    if writer is not None and record is not None:
        writer.write(record)
