"""The model: backbone and embedding shared, classifier private, all state in one flat buffer."""

from fedreid_mpi.model.batch_norm import batch_norms, batch_statistics
from fedreid_mpi.model.files import (
    StoredModel,
    load_backbone_weights,
    load_model,
    load_shared,
    load_tensors,
    load_vectors,
    save_model,
    save_tensors,
    shared_specs,
    tensors_of,
    values_of,
)
from fedreid_mpi.model.flat_model import FlatModel
from fedreid_mpi.model.footprint import Footprint, measure
from fedreid_mpi.model.network import ReIDNetwork, build_network, initial_classifier

__all__ = [
    "FlatModel",
    "Footprint",
    "ReIDNetwork",
    "StoredModel",
    "batch_norms",
    "batch_statistics",
    "build_network",
    "initial_classifier",
    "load_backbone_weights",
    "load_model",
    "load_shared",
    "load_tensors",
    "load_vectors",
    "measure",
    "save_model",
    "save_tensors",
    "shared_specs",
    "tensors_of",
    "values_of",
]
