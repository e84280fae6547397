"""What keys of the experiment choose from, in words that the mathematics and the archives use as well."""

from typing import Literal

EvaluationProtocol = Literal["standard", "published", "single-gallery-shot"]
"""How a ranked gallery becomes scores; see `fedreid_mpi.evaluation.ranking`."""

Weighting = Literal["samples", "cosine-distance", "uniform"]
"""What a client's model weighs; see `fedreid_mpi.algorithms.weighting`."""

AggregationRule = Literal["average", "fednova", "scaffold"]
"""How clients' models are averaged; see `fedreid_mpi.federated.server_step`."""

ServerOptimizer = Literal["none", "momentum", "adam", "yogi"]
"""What the server makes of the clients' mean; see `fedreid_mpi.algorithms.server_optimizers`."""

BatchNormMode = Literal["average", "local", "reference"]
"""What happens to BatchNorm's state; see `fedreid_mpi.algorithms.grouping`."""

DistillationLoss = Literal["squared-distance", "mse"]
"""What the student's error is; see `fedreid_mpi.algorithms.distillation`."""

Normalised = Literal["both", "teachers", "none"]
"""Whose features are scaled to length 1 in distillation."""

ClusteringFeature = Literal["concat", "mean"]
"""What a client is clustered by; see `fedreid_mpi.federated.distillation`."""

Sampling = Literal["shuffled", "identities"]
"""What makes up a training batch; see `fedreid_mpi.data.samplers`."""

Schedule = Literal["constant", "step", "milestones", "cosine"]
"""How the learning rate changes over the rounds; see `fedreid_mpi.algorithms.schedule`."""
