"""The model: backbone and embedding shared, classifier private, all state in one flat buffer."""

from fedreid_mpi.model.files import (
    StoredModel,
    load_backbone_weights,
    load_model,
    load_tensors,
    save_model,
    save_tensors,
    shared_specs,
)
from fedreid_mpi.model.flat_model import FlatModel
from fedreid_mpi.model.network import ReIDNetwork, build_network

__all__ = [
    "FlatModel",
    "ReIDNetwork",
    "StoredModel",
    "build_network",
    "load_backbone_weights",
    "load_model",
    "load_tensors",
    "save_model",
    "save_tensors",
    "shared_specs",
]
