"""The tables of an experiment file: every key with its default, its bounds and what it does."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from fedreid_mpi.config.backbones import BackboneName
from fedreid_mpi.config.conflicts import conflicts
from fedreid_mpi.config.privacy import Privacy
from fedreid_mpi.config.server import Server
from fedreid_mpi.config.types import File, Line, Listed, NonNegative, Positive, Probability, Section, Text
from fedreid_mpi.pixels import Normalization
from fedreid_mpi.records import (
    AggregationRule,
    BatchNormMode,
    ClusteringFeature,
    DistillationLoss,
    EvaluationProtocol,
    Normalised,
    Sampling,
    Schedule,
    Weighting,
)


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
        "in on the node; empty: they are read where they lie",
    )

    @property
    def files(self) -> tuple[Path, ...]:
        """All archives: the clients', those of unseen datasets, then the public one."""
        return (*self.archives, *self.unseen, *([] if self.public is None else [self.public]))


class Federation(Section):
    """Who trains, how much, and whether models are shared."""

    mode: Literal["federated", "local", "centralised"] = Field(
        "federated",
        description="federated: models are averaged; local: standalone, each client trains by itself; "
        "centralised: one model is trained on all images",
    )
    clients: Literal["dataset", "camera", "identity"] = Field(
        "dataset",
        description="what a client holds: a dataset, a camera's images, or a share of a dataset's people",
    )
    identity_clients: int = Field(6, ge=1, description="clients that a dataset's people are dealt out to")
    edge_rounds: int = Field(
        0,
        ge=0,
        description="rounds in which the clients of a dataset average among themselves, between two in "
        "which all do",
    )
    availability: dict[str, Annotated[tuple[Annotated[tuple[int, int], Listed], ...], Listed]] = Field(
        {}, description="rounds in which a client is away: its name to pairs of the first and the last"
    )
    clients_per_round: int = Field(
        0, ge=0, description="clients sampled each round; 0 = all; with privacy.clip: on average"
    )
    local_epochs: int = Field(1, ge=1, description="epochs over the client's images in one round")
    local_iterations: int = Field(
        0, ge=0, lt=2**31, description="batches in one round, instead of epochs; 0 = epochs"
    )
    batch_size: int = Field(32, ge=2, lt=2**31, description="images in a training batch")
    sampler: Sampling = Field(
        "shuffled",
        description="shuffled: an epoch is all images in random order; identities: a batch is some people "
        "with as many images each, of different cameras where there are",
    )
    images_per_identity: int = Field(
        4, ge=2, description="images of each person in a batch of sampler = identities"
    )
    drop_last: bool = Field(
        False, description="leave out an epoch's last, partial batch, with sampler = shuffled"
    )

    @model_validator(mode="after")
    def _whole_people_in_a_batch(self) -> "Federation":
        size, each = self.batch_size, self.images_per_identity
        if self.sampler == "identities" and (size % each or size == each):
            raise ValueError(
                f"batch_size is {size}, expected twice images_per_identity, which is {each}, or another "
                "multiple of it"
            )
        return self


class Model(Section):
    """The network: a shared backbone and embedding, and each client's private classifier."""

    backbone: BackboneName = Field(
        "resnet50", description="feature extractor: one that `fedreid-mpi backbones` lists, or `timm:NAME`"
    )
    embedding_dim: int = Field(
        512,
        ge=0,
        le=2**16,
        description="length of the feature vector; 0 = no embedding layer, the backbone's own feature",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share of the embedding dropped in training"
    )
    neck: Literal["none", "bnneck"] = Field(
        "none", description="bnneck: BatchNorm without shift before a classifier without bias"
    )
    last_stride: Literal[1, 2] = Field(2, description="stride of the backbone's last stage")
    weights: File | None = Field(
        None, description="pre-trained weights of the backbone (.pth or .safetensors)"
    )
    normalization: Normalization = Field(
        "backbone", description="mean and deviation that the weights expect of pixels; half: 0.5 and 0.5"
    )

    @field_validator("embedding_dim")
    @classmethod
    def _no_feature_of_one_number(cls, length: int) -> int:
        if length == 1:
            raise ValueError("1, expected 0 or at least 2")
        return length


class Optimizer(Section):
    """SGD on the client; in a federation its momentum starts anew each round."""

    lr: Positive = Field(0.05, description="learning rate of embedding and classifier")
    backbone_lr_factor: NonNegative = Field(
        0.1, description="the backbone's learning rate as a multiple of lr"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum of SGD")
    nesterov: bool = Field(True, description="Nesterov's form of the momentum")
    weight_decay: NonNegative = Field(5e-4, description="L2 penalty on all parameters")
    schedule: Schedule = Field("constant", description="learning rate over the rounds")
    step_every: int = Field(40, ge=1, description="rounds between two steps of schedule = step")
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Listed] = Field(
        (20, 30), min_length=1, description="rounds after which schedule = milestones takes a step"
    )
    step_factor: Positive = Field(0.1, description="factor of each step of schedule = step or milestones")
    warmup: int = Field(0, ge=0, description="rounds of linear warm-up")

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, rounds: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= before for before, later in pairwise(rounds)):
            raise ValueError(f"{list(rounds)}, expected rounds in ascending order, each once")
        return rounds

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Optimizer":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class Objective(Section):
    """What a client minimises: the cross-entropy, and terms beside it."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="label smoothing of the cross-entropy"
    )
    triplet: NonNegative = Field(
        0.0,
        description="weight of the batch-hard triplet loss, on embeddings before the last BatchNorm; 0 = off",
    )
    margin: NonNegative | Literal["soft"] = Field(
        0.3, description="margin of the triplet loss; soft: ln(1 + exp(·)) instead of a margin"
    )
    contrastive: NonNegative = Field(
        0.0,
        description="MOON: weight μ of the contrast between the features of the round's model and those of "
        "the client's last one; 0 = off",
    )
    temperature: Positive = Field(0.5, description="MOON: temperature τ of the contrast")
    proximal: NonNegative = Field(
        0.0, description="FedProx: strength μ that holds parameters near the round's; 0 = off"
    )


class Augmentation(Section):
    """What is done to training images, batched on the device."""

    pad: int = Field(10, ge=0, description="pixels of padding before the random crop to the original size")
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    erasing: Probability = Field(0.0, description="probability of erasing a random rectangle with zeros")
    jitter: Annotated[
        tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]], Listed
    ] = Field((0.0, 0.0, 0.0, 0.0), description="strength of brightness, contrast, saturation and hue jitter")


class Aggregation(Section):
    """How the server joins the clients' models."""

    rule: AggregationRule = Field(
        "average",
        description="average: FedPav; fednova: changes are divided by the number of steps behind them; "
        "scaffold: control variates correct the clients' gradients",
    )
    weights: Weighting = Field("samples", description="weight of a client's model")
    probe: Literal["own", "public"] = Field(
        "own",
        description="what weights = cosine-distance measures on: a batch of the client's own images, or one "
        "of the public dataset, the same for all clients",
    )
    bn: BatchNormMode = Field(
        "average",
        description="BatchNorm: average the statistics; keep each client's own statistics, scale and shift "
        "(local); or take the statistics of the round's first participant (reference)",
    )


class Distillation(Section):
    """Knowledge distillation on the server, from the clients' models, with the public dataset."""

    enabled: bool = Field(False, description="fine-tune the aggregated model on the public dataset")
    every: int = Field(1, ge=1, description="rounds between distillations")
    lr_factor: Positive = Field(0.1, description="the student's learning rate as a multiple of the round's")
    lr: NonNegative = Field(
        0.0, description="the student's learning rate, the same in every round; 0: by lr_factor"
    )
    loss: DistillationLoss = Field(
        "squared-distance",
        description="squared-distance: between features, mean over images; mse: mean over all elements",
    )
    normalize: Normalised = Field("both", description="whose features are scaled to length 1")
    batchnorm: Literal["frozen", "train"] = Field(
        "frozen", description="train: statistics follow the public images, and dropout is on"
    )
    scope: Literal["group", "global"] = Field(
        "group", description="with clustering: who teaches a group's model"
    )


class Clustering(Section):
    """Client clustering: groups of similar clients, each with a model of its own."""

    enabled: bool = Field(False, description="average within groups that FINCH finds")
    every: int = Field(1, ge=1, description="rounds between two groupings")
    feature: ClusteringFeature = Field(
        "concat",
        description="concat: embeddings of one public batch; mean: mean embedding of the public dataset",
    )
    partition: int = Field(0, ge=0, description="level of FINCH's hierarchy, 0 = finest")
    max_distance: Annotated[float, Field(gt=0, le=2)] | None = Field(
        None, description="cosine distance from which neighbours are not linked"
    )


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

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
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
