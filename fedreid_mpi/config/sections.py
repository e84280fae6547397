"""An experiment file and its tables: every key with its default, its bounds and what it does.

The tables here are of the run itself; those of clients and server have modules of their own.
"""

from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, model_validator

from fedreid_mpi.config.conflicts import conflicts
from fedreid_mpi.config.privacy import Privacy
from fedreid_mpi.config.server import Aggregation, Clustering, Distillation, Server
from fedreid_mpi.config.training import Augmentation, Federation, Model, Objective, Optimizer
from fedreid_mpi.config.types import File, Line, Listed, NonNegative, Section, Text
from fedreid_mpi.records import EvaluationProtocol


class Run(Section):
    """What the run is called, and its one seed."""

    name: Line = Field("run", description="name of the run in tables and archives")
    seed: int = Field(0, ge=0, lt=2**63, description="every random choice of the run derives from it")
    rounds: int = Field(300, ge=1, lt=2**31, description="rounds of local training and aggregation")
    label: Text = Field("", description="what reports call its method; empty: the name")
    position: int = Field(0, ge=0, description="position of its method in reports, in ascending order")


class Data(Section):
    """The datasets: archives written by ``fedreid-mpi prepare``, from which clients are made."""

    archives: Annotated[tuple[File, ...], Listed] = Field(
        min_length=1, description="dataset archives, or patterns (`*.h5`): clients are numbered in this order"
    )
    unseen: Annotated[tuple[File, ...], Listed] = Field(
        (),
        description="archives of datasets that nobody trains on: global models are scored on all splits of "
        "these as well, whenever they are scored",
    )
    public: File | None = Field(
        None,
        description="archive of the public dataset, for distillation, clustering and aggregation.probe",
    )
    exclude_overlap: bool = Field(
        False,
        description="leave out the part of the public dataset (CUHK02's P1) that shows a client's people",
    )
    stage: str = Field(
        "",
        description="folder on each node's own disk that archives are copied to first; $VARIABLES are filled "
        "in on the node; empty: they are read in place",
    )

    @property
    def files(self) -> tuple[Path, ...]:
        """All archives: the clients', those of unseen datasets, then the public one."""
        return (*self.archives, *self.unseen, *([] if self.public is None else [self.public]))


class Evaluation(Section):
    """When and how models are scored."""

    every: int = Field(10, ge=1, description="rounds between evaluations; the last round is always evaluated")
    protocol: EvaluationProtocol = Field(
        "standard", description="definition of average precision and of the gallery"
    )
    mirror: bool = Field(
        True, description="a feature is that of the image plus that of its mirror image; false: of the image"
    )
    local_models: bool = Field(True, description="score each client's own model before aggregation as well")
    reestimate_bn: bool = Field(
        False,
        description="score the global model also with BatchNorm statistics re-estimated on each client's "
        "training images",
    )


class Checkpoint(Section):
    """What is kept on disk, so that a run can be resumed."""

    every_rounds: int = Field(
        1, ge=1, description="rounds between two checkpoints; the last round and a stop always make one"
    )
    keep: int = Field(2, ge=1, description="number of newest checkpoints that are kept")
    local_models: Literal["last", "every", "none"] = Field(
        "last",
        description="checkpoints that hold each client's own model, as it was before aggregation, for "
        "models/local",
    )


class Reliability(Section):
    """Fault tolerance: failures that a run tolerates."""

    min_clients: int = Field(
        1, ge=1, description="least number of clients whose models make up a round; with fewer the run ends"
    )
    rank_timeout: NonNegative = Field(
        0.0, description="seconds without a heartbeat after which a rank counts as lost; 0 = never"
    )


class Compute(Section):
    """Devices and arithmetic."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="arithmetic of training and features"
    )
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="memory layout NHWC for images and filters; auto: on CPUs, where it is faster"
    )
    threads: int = Field(1, ge=1, description="CPU threads of each rank; changes the last bits")
    deterministic: bool = Field(
        True, description="the same bits on the same GPU model with the same versions"
    )
    share_gpus: bool = Field(False, description="allow more client ranks than GPUs on a node")


class Experiment(Section):
    """A whole experiment, resolved: nothing is left to defaults elsewhere."""

    preset: Literal["default", "paper", "published"] = "default"
    run: Run = Run()
    data: Data
    federation: Federation = Federation()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    objective: Objective = Objective()
    augmentation: Augmentation = Augmentation()
    aggregation: Aggregation = Aggregation()
    server: Server = Server()
    privacy: Privacy = Privacy()
    distillation: Distillation = Distillation()
    clustering: Clustering = Clustering()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    reliability: Reliability = Reliability()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _check_sections_against_each_other(self) -> "Experiment":
        for conflict in conflicts(self):
            raise ValueError(conflict)
        return self

    @property
    def uses_public(self) -> bool:
        """Whether anything is done with the public dataset."""
        return self.distillation.enabled or self.clustering.enabled or self.measures_by_public

    @property
    def measures_by_public(self) -> bool:
        """Whether the clients' cosine distances are measured on public images."""
        aggregation = self.aggregation
        return aggregation.weights == "cosine-distance" and aggregation.probe == "public"

    def to_toml(self) -> str:
        """Return the resolved configuration as TOML, without keys that are unset."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
