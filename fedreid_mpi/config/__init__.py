"""The experiment: TOML read into frozen models.

Precedence, weakest first: the defaults, the preset, the file, ``--set key=value``. Paths are relative to the
folder of the TOML file, and in ``--set`` to the current one. `Experiment.to_toml` is what the results archive
stores, with paths relative to the run directory (`with_relative_paths`).
"""

from fedreid_mpi.config.backbones import BACKBONES
from fedreid_mpi.config.changes import refused_changes
from fedreid_mpi.config.loading import load_experiment, model_settings, stored_experiment, with_relative_paths
from fedreid_mpi.config.presets import PRESETS
from fedreid_mpi.config.privacy import Privacy
from fedreid_mpi.config.renamed import RENAMED, settings_of
from fedreid_mpi.config.sections import Checkpoint, Compute, Data, Evaluation, Experiment, Reliability, Run
from fedreid_mpi.config.server import Aggregation, Clustering, Distillation
from fedreid_mpi.config.suite import StudyRun, Suite, load_suite
from fedreid_mpi.config.training import Augmentation, Federation, Model, Objective, Optimizer
from fedreid_mpi.config.types import Section

__all__ = [
    "BACKBONES",
    "PRESETS",
    "RENAMED",
    "Aggregation",
    "Augmentation",
    "Checkpoint",
    "Clustering",
    "Compute",
    "Data",
    "Distillation",
    "Evaluation",
    "Experiment",
    "Federation",
    "Model",
    "Objective",
    "Optimizer",
    "Privacy",
    "Reliability",
    "Run",
    "Section",
    "StudyRun",
    "Suite",
    "load_experiment",
    "load_suite",
    "model_settings",
    "refused_changes",
    "settings_of",
    "stored_experiment",
    "with_relative_paths",
]
