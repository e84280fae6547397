"""What is done with the public dataset: features of the teachers, and the student's fine-tuning.

All ranks see the same batches with the same augmentation, drawn from (seed, round) alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi.algorithms.distillation import distillation_loss, teacher_features
from fedreid_mpi.algorithms.seeds import derive, generator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import ImageStore, augment, normalise
from fedreid_mpi.data.samplers import epoch_batches
from fedreid_mpi.device import autocast
from fedreid_mpi.errors import DataError
from fedreid_mpi.federated.sgd import Batch, Sgd, descend
from fedreid_mpi.model import FlatModel, ReIDNetwork
from fedreid_mpi.records import Heartbeat, Role, RoundPlan, no_heartbeat
from fedreid_mpi.records.pixels import PixelScale

CLUSTERING_BATCH = 32
"""Public images whose embeddings make a client's feature (the authors' batch)."""

OVERLAP = "P1/"
"""The part of CUHK02 that shows the people of CUHK01."""


def choose_public(archive: DatasetArchive, exclude_overlap: bool) -> NDArray[np.int64]:
    """Choose the images of the public dataset's archive that a run uses: indices into them, ascending.

    Raises
    ------
    DataError
        If the archive has no public split, or nothing is left of it.
    """
    chosen = archive.split("public")
    if exclude_overlap:
        paths = archive.paths
        chosen = np.array([image for image in chosen if OVERLAP not in paths[image]], np.int64)
    if len(chosen) < CLUSTERING_BATCH:
        raise DataError(f"{archive.path}: {len(chosen)} public images, expected at least {CLUSTERING_BATCH}")
    return chosen


@dataclass(frozen=True, slots=True)
class PublicImages:
    """The public dataset on one rank's device, as the network expects its pixels."""

    images: ImageStore
    experiment: Experiment
    scale: PixelScale

    @classmethod
    def open(
        cls, archive: DatasetArchive, experiment: Experiment, device: torch.device, scale: PixelScale
    ) -> "PublicImages":
        """Open the images of the public dataset's archive that a run uses, see `choose_public`."""
        chosen = choose_public(archive, experiment.data.exclude_overlap)
        return cls(ImageStore([(archive.images, chosen)], device), experiment, scale)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, plan: RoundPlan, heartbeat: Heartbeat = no_heartbeat) -> Iterator[Tensor]:
        """Yield the round's distillation batches, augmented: shape (B, 3, H, W), float32, on the device."""
        random = generator(self.experiment.run.seed, "distillation", plan.round)
        for rows in epoch_batches(len(self.images), self.experiment.federation.batch_size, False, random):
            heartbeat()
            yield augment(self.images.batch(rows), self.scale, self.experiment.augmentation, random)

    @torch.no_grad()
    def features(self, network: ReIDNetwork, rows: NDArray[np.int64]) -> Tensor:
        """Return a model's embeddings of some images, as they are: shape (rows, width), float32."""
        network.eval()
        images = normalise(self.images.batch(rows), self.scale)
        with autocast(self.experiment.compute, images.device):
            return network.features(images).float()

    def clustering_feature(
        self, network: ReIDNetwork, plan: RoundPlan, heartbeat: Heartbeat = no_heartbeat
    ) -> NDArray[np.float32]:
        """Describe a client's model by what it makes of public images.

        ``"concat"``: the embeddings of one batch drawn by (seed, round), one after the other, scaled to
        length 1 as one vector. ``"mean"``: the mean of all images' embeddings, each scaled to length 1.
        """
        if self.experiment.clustering.feature == "concat":
            random = generator(self.experiment.run.seed, "clustering", plan.round)
            rows = np.sort(random.permutation(len(self.images))[:CLUSTERING_BATCH])
            feature = F.normalize(self.features(network, rows).flatten(), dim=0)
        else:
            every = np.arange(len(self.images))
            batches = np.array_split(every, -(-len(every) // CLUSTERING_BATCH))
            parts = []
            for rows in batches:
                heartbeat()
                parts.append(F.normalize(self.features(network, rows)))
            feature = torch.cat(parts).mean(0)
        return np.asarray(feature.cpu())

    @torch.no_grad()
    def teach(self, network: ReIDNetwork, plan: RoundPlan, heartbeat: Heartbeat = no_heartbeat) -> Tensor:
        """Return a teacher's features of the round's batches in order: shape (images, width), float32."""
        network.eval()
        parts = []
        for images in self.batches(plan, heartbeat):
            with autocast(self.experiment.compute, images.device):
                embeddings = network.features(images).float()
            parts.append(teacher_features(embeddings, self.experiment.distillation.normalize))
        return torch.cat(parts)

    def distil(
        self, student: FlatModel, targets: Tensor, plan: RoundPlan, heartbeat: Heartbeat = no_heartbeat
    ) -> float:
        """Fine-tune the student, in place, in one pass over the public dataset.

        Parameters
        ----------
        student
            The aggregated model.
        targets
            Mean of the teachers' features, as `teach` orders them.
        plan
            Gives the round and the learning rate.
        heartbeat
            Is called before each batch.

        Returns
        -------
        float
            Mean loss over the images, each batch's before its step; NaN if the student diverged.
        """
        settings, run = self.experiment.distillation, self.experiment.run
        # Frozen statistics by default: the public images' would replace those of the clients' datasets.
        student.network.train(settings.batchnorm == "train")
        rate = settings.lr or plan.learning_rate * settings.lr_factor
        parameters = student.parameters(Role.BACKBONE, Role.EMBEDDING)
        optimizer = Sgd(((parameters, rate),), self.experiment.optimizer)

        def batches() -> Iterator[Batch]:
            seen = 0
            for images in self.batches(plan):
                yield images, targets[seen : seen + len(images)].to(images.device)
                seen += len(images)

        def loss_of(images: Tensor, target: Tensor) -> Tensor:
            with autocast(self.experiment.compute, images.device):
                # Dropout is part of the published step; in evaluation mode it does nothing.
                features = student.network.dropout(student.network.features(images))
            return distillation_loss(features.float(), target, settings.loss, settings.normalize)

        seed = derive(run.seed, "distillation", plan.round, "dropout")
        loss = descend(student, optimizer, batches(), loss_of, seed, heartbeat=heartbeat).loss
        return loss if math.isfinite(loss) and student.shared.isfinite().all() else math.nan
