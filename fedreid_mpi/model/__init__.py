"""The model: backbone and embedding shared, classifier private, all state in one flat buffer."""

from fedreid_mpi.model.batch_norm import batch_norms, batch_statistics
from fedreid_mpi.model.export import for_project
from fedreid_mpi.model.files import (
    StoredModel,
    image_size,
    is_own_model,
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
from fedreid_mpi.model.flat_model import FlatModel, features_of
from fedreid_mpi.model.footprint import Footprint, measure
from fedreid_mpi.model.network import ReIDNetwork, build_network, initial_classifier
from fedreid_mpi.model.recognition import recognise, try_on
from fedreid_mpi.model.weights import Account, account_for, load_backbone_weights, read_weights

__all__ = [
    "Account",
    "FlatModel",
    "Footprint",
    "ReIDNetwork",
    "StoredModel",
    "account_for",
    "batch_norms",
    "batch_statistics",
    "build_network",
    "features_of",
    "for_project",
    "image_size",
    "initial_classifier",
    "is_own_model",
    "load_backbone_weights",
    "load_model",
    "load_shared",
    "load_tensors",
    "load_vectors",
    "measure",
    "read_weights",
    "recognise",
    "save_model",
    "save_tensors",
    "shared_specs",
    "tensors_of",
    "try_on",
    "values_of",
]
