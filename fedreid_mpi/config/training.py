"""What clients do: who they are, their network, and how it is trained."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedreid_mpi.config.backbones import BackboneName
from fedreid_mpi.config.types import File, Listed, NonNegative, Positive, Probability, Section
from fedreid_mpi.records import Sampling, Schedule
from fedreid_mpi.records.pixels import Normalization


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
    """What a client minimises: the cross-entropy, and further terms."""

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
