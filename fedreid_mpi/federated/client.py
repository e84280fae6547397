"""Local training: what a client does with the model in one round."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import ImageStore, augment, epoch_batches, normalise
from fedreid_mpi.data.partition import Part
from fedreid_mpi.device import autocast, torch_randomness
from fedreid_mpi.errors import DataError
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import ClientReport, ClientSpec, Heartbeat, Role, RoundPlan, no_heartbeat
from fedreid_mpi.seeds import derive, generator


@dataclass(frozen=True, slots=True)
class Client:
    """A client as its rank holds it: the images, the labels and the model.

    Attributes
    ----------
    spec
        Who it is.
    images
        Its training images.
    labels
        Shape (images,), int64, on the device: identities numbered in the order of their sorted person ids,
        and of the archives where there are several.
    model
        Shared part and private classifier; what the client remembers from round to round.
    """

    spec: ClientSpec
    images: ImageStore
    labels: Tensor
    model: FlatModel


def describe_client(id: int, part: Part, archives: Sequence[DatasetArchive]) -> ClientSpec:
    """Say what the federation needs to know of a client.

    Raises
    ------
    DataError
        If the client cannot be trained: it has fewer than two images.
    """
    if part.images < 2:
        where = archives[part.sources[0][0]].path
        raise DataError(
            f"{where}: {part.images} training images for client {part.name}, expected at least two"
        )
    home = None if part.home is None else archives[part.home]
    test = [role for role in ("query", "gallery") if home is not None and home.has(role)]
    return ClientSpec(
        id=id,
        name=part.name,
        dataset=-1 if part.home is None else part.home,
        images=part.images,
        identities=int(_labels(part, archives).max()) + 1,
        test_images=sum(len(home.split(role)) for role in test) if home is not None else 0,
    )


def build_client(
    spec: ClientSpec,
    part: Part,
    archives: Sequence[DatasetArchive],
    experiment: Experiment,
    device: torch.device,
) -> Client:
    """Load a client: its images and a model with a freshly drawn classifier."""
    network = build_network(experiment.model, spec.identities, experiment.run.seed, "client", spec.id)
    return Client(
        spec=spec,
        images=ImageStore([(archives[n].images, indices) for n, indices in part.sources], device),
        labels=torch.from_numpy(_labels(part, archives)).to(device),
        model=FlatModel(network, device, experiment.compute.channels_last),
    )


def _labels(part: Part, archives: Sequence[DatasetArchive]) -> NDArray[np.int64]:
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


def train(
    client: Client, plan: RoundPlan, experiment: Experiment, heartbeat: Heartbeat = no_heartbeat
) -> ClientReport:
    """Train a client's model, in place, for one round: FedPav's local step (Zhuang et al., ACM TOMM 2023).

    Mini-batch SGD on the cross-entropy over the client's own identities. Every random choice comes from
    (seed, round, client). The optimiser's momentum starts from zero, as the model it belonged to is gone.

    Parameters
    ----------
    client
        Its model already holds the round's shared part.
    plan
        Gives the round and the learning rate.
    experiment
        Gives everything else.
    heartbeat
        Is called before each batch.

    Returns
    -------
    ClientReport
        Without scores.
    """
    began = time.perf_counter()
    settings, model = experiment.optimizer, client.model
    device = model.buffer.device
    stream = (experiment.run.seed, "train", plan.round, client.spec.id)
    random = generator(*stream)
    groups = (
        {"params": model.parameters(Role.BACKBONE), "lr": plan.learning_rate * settings.backbone_lr_factor},
        {"params": model.parameters(Role.EMBEDDING, Role.CLASSIFIER), "lr": plan.learning_rate},
    )
    optimizer = torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    memory_format = torch.channels_last if experiment.compute.channels_last else torch.contiguous_format
    total, seen, steps = torch.zeros((), dtype=torch.float64, device=device), 0, 0
    model.network.train()
    with torch_randomness(device, derive(*stream, "dropout")):
        for _ in range(experiment.federation.local_epochs):
            for rows in epoch_batches(
                len(client.images), experiment.federation.batch_size, experiment.federation.drop_last, random
            ):
                heartbeat()
                images = augment(client.images.batch(rows), experiment.augmentation, random)
                images = images.contiguous(memory_format=memory_format)
                labels = client.labels[torch.from_numpy(rows).to(device)]
                with autocast(experiment.compute, device):
                    logits = model.network(images)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.detach() * len(rows)
                seen += len(rows)
                steps += 1
    optimizer.zero_grad()
    loss_mean = float(total) / seen
    finite = math.isfinite(loss_mean) and model.is_finite()
    return ClientReport(
        client=client.spec.id,
        images=client.spec.images,
        steps=steps,
        loss=loss_mean,
        finite=finite,
        seconds=time.perf_counter() - began,
    )


@contextmanager
def reestimated(
    client: Client, experiment: Experiment, heartbeat: Heartbeat = no_heartbeat
) -> Iterator[None]:
    """Lend a client's model BatchNorm statistics of its own training images; undone at the end.

    The statistics are the means of those of the batches of the images, unaugmented, in their order; nothing
    else of the model changes. What a global model loses by the averaging of statistics shows in the scores.
    """
    model = client.model
    kept = model.buffer[model.statistics].clone()
    layers = [
        module for module in model.network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    momenta = [layer.momentum for layer in layers]
    model.network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.train()
    batches = -(-len(client.images) // experiment.federation.batch_size)
    try:
        with torch.no_grad():
            for rows in np.array_split(np.arange(len(client.images)), batches):
                heartbeat()
                images = normalise(client.images.batch(rows))
                with autocast(experiment.compute, images.device):
                    model.network(images)
        model.network.eval()
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.buffer[model.statistics] = kept


@torch.no_grad()
def probe(client: Client, plan: RoundPlan, experiment: Experiment) -> NDArray[np.float32]:
    """Return the client's logits of one batch of its training images, drawn by (seed, round, client).

    The images are not augmented and the model is in evaluation mode, so that two probes in one round differ
    by the training between them alone.

    Returns
    -------
    ndarray
        Shape (at most batch_size, identities), float32.
    """
    random = generator(experiment.run.seed, "probe", plan.round, client.spec.id)
    rows = random.permutation(len(client.images))[: experiment.federation.batch_size]
    images = normalise(client.images.batch(rows))
    client.model.network.eval()
    with autocast(experiment.compute, images.device):
        logits = client.model.network(images)
    return np.asarray(logits.float().cpu())
