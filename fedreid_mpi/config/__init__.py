"""The experiment: TOML read into frozen models.

Precedence, weakest first: the defaults, the preset, the file, ``--set key=value``. Paths are relative to the
folder of the TOML file. `Experiment.to_toml` is what the results archive stores.
"""

from fedreid_mpi.config.loading import load_experiment
from fedreid_mpi.config.sections import (
    PRESETS,
    Aggregation,
    Augmentation,
    Clustering,
    Compute,
    Data,
    Distillation,
    Evaluation,
    Experiment,
    Federation,
    Model,
    Optimizer,
    Run,
    Section,
)

__all__ = [
    "PRESETS",
    "Aggregation",
    "Augmentation",
    "Clustering",
    "Compute",
    "Data",
    "Distillation",
    "Evaluation",
    "Experiment",
    "Federation",
    "Model",
    "Optimizer",
    "Run",
    "Section",
    "load_experiment",
]
