"""What a client minimises: a sum of terms, and corrections of its gradient.

A term or a correction is made anew for each turn of a client, from what it may need: the settings, the model,
the shared part that the round began with, and what the client remembers. To add one, write its mathematics in
a file of its own in ``algorithms``, a function here, and list that in `TERMS` or `CORRECTIONS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi.algorithms.fedprox import proximal_gradient
from fedreid_mpi.algorithms.moon import PREVIOUS, contrastive_loss
from fedreid_mpi.algorithms.scaffold import CONTROLS, controlled_gradient
from fedreid_mpi.algorithms.triplet import batch_hard_loss
from fedreid_mpi.device import autocast
from fedreid_mpi.federated.sgd import Correction, LossOf
from fedreid_mpi.federated.turn import ClientTurn, paired, shared_parameters
from fedreid_mpi.model import batch_statistics, features_of


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network makes of a batch.

    Attributes
    ----------
    images
        Shape (B, 3, H, W), float32.
    embeddings
        Shape (B, width), float32: before the last BatchNorm.
    features
        Shape (B, width), float32: after the last BatchNorm; what images are compared by.
    logits
        Shape (B, identities), float32.
    labels
        Shape (B,), int64.
    """

    images: Tensor
    embeddings: Tensor
    features: Tensor
    logits: Tensor
    labels: Tensor


Term = Callable[[Outputs], Tensor]
"""From what the network makes of a batch to one term of the loss: its mean, shape (), float32."""


def cross_entropy(turn: ClientTurn) -> Term | None:
    """Classify the client's identities: FedPav's loss, with label smoothing if it is set."""
    smoothing = turn.experiment.objective.label_smoothing
    return lambda outputs: F.cross_entropy(outputs.logits, outputs.labels, label_smoothing=smoothing)


def triplet(turn: ClientTurn) -> Term | None:
    """Draw each person's images together and away from others': the batch-hard triplet loss.

    It acts on the embeddings before the last BatchNorm, the cross-entropy on the features after it: in one
    space the two would pull against each other (Luo et al., CVPR Workshops 2019, section 3.5).
    """
    objective = turn.experiment.objective
    weight, margin = objective.triplet, objective.margin
    if not weight:
        return None
    return lambda outputs: weight * batch_hard_loss(outputs.embeddings, outputs.labels, margin)


def contrast(turn: ClientTurn) -> Term | None:
    """Hold the features near those of the round's model, and away from those of the client's last one: MOON.

    In all three models BatchNorm takes the batch's own statistics, so that they differ in their parameters
    alone; the two that are not trained run without dropout. A client that has not trained before has no last
    model, and the term is left out; it would have no gradient anyway, as both models would be the same.
    """
    experiment, model = turn.experiment, turn.model
    weight, temperature = experiment.objective.contrastive, experiment.objective.temperature
    if not weight or PREVIOUS not in turn.memory:
        return None
    network = model.network
    of_global = features_of(model, model.shared.clone())  # with the client's own BatchNorm, where it has some
    of_previous = features_of(model, turn.memory[PREVIOUS].to(model.buffer.device))

    def term(outputs: Outputs) -> Tensor:
        images = outputs.images
        with torch.no_grad(), batch_statistics(network), autocast(experiment.compute, images.device):
            others = of_global(images).float(), of_previous(images).float()
        network.train()
        return weight * contrastive_loss(outputs.features, *others, temperature)

    return term


def proximal(turn: ClientTurn) -> Correction | None:
    """Hold the parameters near their values at the beginning of the round: FedProx."""
    strength, model = turn.experiment.objective.proximal, turn.model
    if not strength:
        return None
    pairs = paired(model, shared_parameters(model, turn.experiment), turn.start)
    return lambda: proximal_gradient(pairs, strength)


def control(turn: ClientTurn) -> Correction | None:
    """Correct the gradients by how the client's differ from those of all clients: SCAFFOLD."""
    model = turn.model
    if CONTROLS not in turn.broadcast:
        return None
    common = turn.broadcast[CONTROLS]
    difference = (common - turn.memory.get(CONTROLS, torch.zeros_like(common))).to(model.buffer.device)
    pairs = paired(model, shared_parameters(model, turn.experiment), difference)
    return lambda: controlled_gradient(pairs)


TERMS: Sequence[Callable[[ClientTurn], Term | None]] = (cross_entropy, triplet, contrast)
"""Make the terms of the loss, which are added up; a function returns None if its term is switched off."""

CORRECTIONS: Sequence[Callable[[ClientTurn], Correction | None]] = (proximal, control)
"""Make what changes the gradients before each step; a function returns None if it is switched off."""


def objective_of(turn: ClientTurn) -> LossOf:
    """Return the loss of a client's turn: the sum of its terms, each a mean over the batch."""
    terms = [term for make in TERMS if (term := make(turn)) is not None]
    network, compute = turn.model.network, turn.experiment.compute

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        with autocast(compute, images.device):
            embeddings = network.embed(images)
            features = network.neck(embeddings)
            logits = network.classify(features)
        outputs = Outputs(images, embeddings.float(), features.float(), logits.float(), labels)
        first, *others = (term(outputs) for term in terms)
        return sum(others, start=first)

    return loss_of


def corrections_of(turn: ClientTurn) -> tuple[Correction, ...]:
    """Return the corrections of the gradient in a client's turn."""
    return tuple(correct for make in CORRECTIONS if (correct := make(turn)) is not None)
