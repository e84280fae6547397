"""A client: its images and what it keeps to itself, and its local training in the rank's working model."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi import config
from fedreid_mpi.algorithms.seeds import derive, generator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import ImageStore, augment, normalise
from fedreid_mpi.data.partition import Part
from fedreid_mpi.data.samplers import count_batches, training_batches
from fedreid_mpi.device import autocast
from fedreid_mpi.errors import DataError
from fedreid_mpi.federated.contributions import contribute
from fedreid_mpi.federated.memory import remember
from fedreid_mpi.federated.objectives import corrections_of, objective_of
from fedreid_mpi.federated.sgd import Batch, Sgd, descend
from fedreid_mpi.federated.turn import ClientTurn, FinishedTurn, Vectors, local_normalisation
from fedreid_mpi.model import FlatModel, batch_norms, initial_classifier
from fedreid_mpi.records import (
    ClientReport,
    ClientSpec,
    Heartbeat,
    ParamSpec,
    Role,
    RoundPlan,
    no_heartbeat,
)
from fedreid_mpi.records.pixels import PixelScale
from fedreid_mpi.wording import counted

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """A client's data as its rank holds them.

    Attributes
    ----------
    spec
        Who it is.
    images
        Its training images.
    labels
        Shape (images,), int64, on the device: identities numbered in the order of their sorted person ids,
        and of the archives where there are several.
    people, cameras
        Shape (images,), int64, on the host: the labels again, and the camera that took each image.
    """

    spec: ClientSpec
    images: ImageStore
    labels: Tensor
    people: NDArray[np.int64]
    cameras: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a client's training, besides the model.

    Attributes
    ----------
    report
        For the server; without what probes measure; not finite where the loss or the memory is not.
    memory
        What the client is to remember in place of what it remembered before.
    contributed
        What it adds to the round's averages besides its model, by kind.
    """

    report: ClientReport
    memory: Vectors
    contributed: Vectors


def describe_client(
    id: int, part: Part, archives: Sequence[DatasetArchive], federation: config.Federation
) -> ClientSpec:
    """Describe what the federation needs to know of a client.

    Raises
    ------
    DataError
        If the client cannot be trained: it has fewer than two images.
    """
    if part.images < 2:
        where = archives[part.sources[0][0]].path
        raise DataError(
            f"{where}: {counted(part.images, 'training image')} for client {part.name}, expected at least two"
        )
    home = None if part.home is None else archives[part.home]
    test = [role for role in ("query", "gallery") if home is not None and home.has(role)]
    people = people_of(part, archives)
    return ClientSpec(
        id=id,
        name=part.name,
        dataset=-1 if part.home is None else part.home,
        images=part.images,
        identities=int(people.max()) + 1,
        test_images=sum(len(home.split(role)) for role in test) if home is not None else 0,
        steps=count_batches(people, cameras_of(part, archives), federation),
    )


def load_data(
    spec: ClientSpec, part: Part, archives: Sequence[DatasetArchive], device: torch.device
) -> Client:
    """Open a client's training images and label them."""
    people = people_of(part, archives)
    return Client(
        spec=spec,
        images=ImageStore([(archives[n].images, indices) for n, indices in part.sources], device),
        labels=torch.from_numpy(people).to(device),
        people=people,
        cameras=cameras_of(part, archives),
    )


def cameras_of(part: Part, archives: Sequence[DatasetArchive]) -> NDArray[np.int64]:
    """Return the camera that took each of a client's images, as its archive numbers it."""
    return np.concatenate([archives[number].camids[indices] for number, indices in part.sources])


def people_of(part: Part, archives: Sequence[DatasetArchive]) -> NDArray[np.int64]:
    """Label a client's images; the same person id in two archives means two people."""
    labels: list[NDArray[np.int64]] = []
    first = 0
    for number, indices in part.sources:
        labels.append(first + label_identities(archives[number].pids[indices]))
        first = int(labels[-1].max()) + 1
    return np.concatenate(labels)


def label_identities(pids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels of person ids: 0, 1, … in sorted order of the ids."""
    return np.unique(pids, return_inverse=True)[1].astype(np.int64)


def private_specs(model: FlatModel, spec: ClientSpec, experiment: Experiment) -> tuple[ParamSpec, ...]:
    """Return the tensors that a client keeps to itself.

    Its classifier; with ``aggregation.bn = "local"`` also its BatchNorm (FedBN, Li et al., ICLR 2021); in
    mode ``"local"``, where nothing is shared, its whole model.
    """
    if experiment.federation.mode == "local":
        return model.specs_for(spec.identities)
    own = local_normalisation(model, experiment)
    return tuple(
        each for each in model.specs_for(spec.identities) if each.role is Role.CLASSIFIER or each.name in own
    )


def initial_private(model: FlatModel, spec: ClientSpec, experiment: Experiment) -> Tensor:
    """Return what a client keeps before it has trained; the model holds the shared part that all begin with.

    Returns
    -------
    Tensor
        Shape (elements of `private_specs`,), float32, on the host.
    """
    model.use_identities(spec.identities)
    drawn = initial_classifier(model.network, spec.identities, experiment.run.seed, spec.id)
    for each in model.specs_for(spec.identities):
        if each.role is Role.CLASSIFIER:
            model.view(each).copy_(drawn[each.name])
    return take_private(model, spec, experiment)


def load_client(
    model: FlatModel, spec: ClientSpec, shared: Tensor | None, private: Tensor, experiment: Experiment
) -> None:
    """Make the working model a client's: the shared part first, then what is the client's own."""
    model.use_identities(spec.identities)
    if shared is not None:
        model.shared.copy_(shared)
    model.write(private_specs(model, spec, experiment), private)


def take_private(model: FlatModel, spec: ClientSpec, experiment: Experiment) -> Tensor:
    """Take out of the working model what its client keeps to itself, onto the host."""
    return model.read(private_specs(model, spec, experiment)).cpu()


def train(
    client: Client,
    model: FlatModel,
    plan: RoundPlan,
    experiment: Experiment,
    heartbeat: Heartbeat = no_heartbeat,
    start: Tensor | None = None,
    memory: Vectors = MappingProxyType({}),
    broadcast: Vectors = MappingProxyType({}),
) -> Trained:
    """Train a client in the working model for one round: FedPav's local step (Zhuang et al., ACM TOMM 2023).

    Mini-batch SGD on the client's own identities. Every random choice comes from (seed, round, client). The
    optimiser's momentum is what the client remembers: nothing in a federation, where the model that it
    belonged to is gone.

    Parameters
    ----------
    client
        Its data.
    model
        Loaded with the client's shared and private parts.
    plan
        Gives the round and the learning rate.
    experiment
        Gives everything else.
    heartbeat
        Is called before each batch.
    start
        The shared part that the model is loaded with, where it is at hand.
    memory
        What the client remembers of its last turn.
    broadcast
        What the server sends to all clients besides the model.
    """
    began = time.perf_counter()
    stream = (experiment.run.seed, "train", plan.round, client.spec.id)
    turn = ClientTurn(experiment, model, model.shared.clone() if start is None else start, memory, broadcast)
    optimizer = Sgd(
        (
            (
                model.parameters(Role.BACKBONE),
                plan.learning_rate * experiment.optimizer.backbone_lr_factor,
            ),
            (model.parameters(Role.EMBEDDING, Role.CLASSIFIER), plan.learning_rate),
        ),
        experiment.optimizer,
        memory.get("momentum"),
    )
    if not model.network.training:
        model.network.train()
    descent = descend(
        model,
        optimizer,
        _batches(client, model.network.pixel_scale, experiment, generator(*stream)),
        objective_of(turn),
        derive(*stream, "dropout"),
        corrections_of(turn),
        heartbeat,
    )
    finished = FinishedTurn(turn, optimizer, descent.steps)
    remembered = remember(finished)
    finite = bool(np.isfinite(descent.loss)) and all(each.isfinite().all() for each in remembered.values())
    report = ClientReport(
        client=client.spec.id,
        images=client.spec.images,
        steps=descent.steps,
        loss=descent.loss,
        finite=finite,
        seconds=time.perf_counter() - began,
    )
    _LOG.debug(
        "round %d: %s: loss %.4f, %s, %.2f s",
        *(plan.round, client.spec.name, report.loss, counted(report.steps, "step"), report.seconds),
    )
    return Trained(report, remembered, contribute(finished, remembered))


def _batches(
    client: Client, scale: PixelScale, experiment: Experiment, random: np.random.Generator
) -> Iterator[Batch]:
    """Yield the augmented batches of a client's training in one round.

    They are prepared two at a time: a step drives what prepares them out of a processor's caches.
    """
    prepared: list[Batch] = []
    for rows in training_batches(client.people, client.cameras, experiment.federation, random):
        images = augment(client.images.batch(rows), scale, experiment.augmentation, random)
        prepared.append((images, client.labels[torch.from_numpy(rows).to(client.labels.device)]))
        if len(prepared) == 2:
            yield from prepared
            prepared.clear()
    yield from prepared


@contextmanager
def reestimated(
    client: Client, model: FlatModel, experiment: Experiment, heartbeat: Heartbeat = no_heartbeat
) -> Iterator[None]:
    """Lend the working model BatchNorm statistics of a client's training images; undone at the end.

    The statistics are the means of those of the batches of the images, unaugmented; nothing else of the model
    changes. What a global model loses by the averaging of statistics shows in the scores. Images are drawn
    into batches by (seed, client): in the order of their paths a batch would show two people or three, and
    the variance between people would be missed. No batch holds a single image, which has no variance.
    """
    kept = model.buffer[model.statistics].clone()
    layers = batch_norms(model.network)
    momenta = [layer.momentum for layer in layers]
    model.network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    count = len(client.images)
    order = generator(experiment.run.seed, "reestimate", client.spec.id).permutation(count)
    batches = min(-(-count // experiment.federation.batch_size), count // 2)
    try:
        with torch.no_grad():
            for number, rows in enumerate(np.array_split(order, batches), 1):
                heartbeat()
                for layer in layers:
                    # A plain mean over the batches. With None torch does the same, but reads its counter back
                    # from the GPU, in every layer.
                    layer.momentum = 1 / number
                images = normalise(client.images.batch(rows), model.network.pixel_scale)
                with autocast(experiment.compute, images.device):
                    model.network.features(images)
        model.network.eval()
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.buffer[model.statistics] = kept
