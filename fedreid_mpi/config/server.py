"""What the server does: how models are joined, and what follows."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedreid_mpi.config.types import NonNegative, Positive, Section
from fedreid_mpi.records import (
    AggregationRule,
    BatchNormMode,
    ClusteringFeature,
    DistillationLoss,
    Normalised,
    ServerOptimizer,
    Weighting,
)

ADAPTIVE = ("adam", "yogi")
"""Optimisers that move each parameter by about their rate, however little the clients moved it."""

ADAPTIVE_RATE = 0.01


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


class Server(Section):
    """What the server makes of the clients' mean: its distance from the round's model is a gradient."""

    optimizer: ServerOptimizer = Field("none", description="none: the mean is the new model")
    lr: Positive = Field(
        1.0, description=f"learning rate; of adam and yogi {ADAPTIVE_RATE:g} where none is given"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="momentum; of adam and yogi, decay of the first moment"
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="decay of adam's and yogi's second moment"
    )
    epsilon: Positive = Field(1e-3, description="keeps adam and yogi from dividing by very small numbers")

    @model_validator(mode="before")
    @classmethod
    def _rate_of_adaptive_optimizers(cls, content: Any) -> Any:  # noqa: ANN401 (whatever stands in a file)
        """Fill in a rate that they can be used with: steps of about 1 are larger than most weights."""
        if isinstance(content, dict) and content.get("optimizer") in ADAPTIVE:
            return {"lr": ADAPTIVE_RATE, **content}
        return content


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
