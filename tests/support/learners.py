"""A client of one archive in a model of its own, for tests of local training."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import Part
from fedreid_mpi.federated.client import (
    Client,
    describe_client,
    initial_private,
    load_client,
    load_data,
    train,
)
from fedreid_mpi.federated.probes import CosineDistance
from fedreid_mpi.model import FlatModel, build_network

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Learner:
    """A client's data, and a model that is loaded with its parts."""

    data: Client
    model: FlatModel
    experiment: object

    def train(self, plan, experiment=None):
        return train(self.data, self.model, plan, experiment or self.experiment).report

    def probe(self, plan):
        state = SimpleNamespace(experiment=self.experiment, model=self.model)
        return CosineDistance(state, plan, self.data).logits()


def the_only(path):
    """One archive, and the one client that holds all of its training images."""
    archive = DatasetArchive.open(path)
    return [archive], Part(archive.name, ((0, archive.split("train")),))


def learner(path, experiment, id=0, device=CPU) -> Learner:
    archives, part = the_only(path)
    spec = describe_client(id, part, archives, experiment.federation)
    size = (archives[0].height, archives[0].width)
    network = build_network(experiment.model, spec.identities, experiment.run.seed, "shared", size=size)
    model = FlatModel(network, device)
    private = initial_private(model, spec, experiment)
    load_client(model, spec, model.shared.clone(), private, experiment)
    return Learner(load_data(spec, part, archives, device), model, experiment)
