"""The values that flow through a run: frozen, checked when made, small enough to be sent by name.

``ClientSpec`` says who takes part, ``RoundPlan`` what a round does, ``ClientReport`` what a client's training
gave, ``Group`` which models are averaged, and ``RoundRecord`` what goes into the results archive.
"""

from fedreid_mpi.records.choices import (
    AggregationRule,
    BatchNormMode,
    ClusteringFeature,
    DistillationLoss,
    EvaluationProtocol,
    Normalised,
    Sampling,
    Schedule,
    ServerOptimizer,
    Weighting,
)
from fedreid_mpi.records.progress import Advance, Heartbeat, no_heartbeat
from fedreid_mpi.records.rounds import ClientReport, Event, GridSum, Group, Message, RoundPlan, RoundRecord
from fedreid_mpi.records.runs import ClientSpec, ParamSpec, RankInfo, Role, RunHeader
from fedreid_mpi.records.scores import (
    CMC_RANKS,
    Evaluation,
    ModelKind,
    Scores,
    UnseenDataset,
    UnseenEvaluation,
)

__all__ = [
    "CMC_RANKS",
    "Advance",
    "AggregationRule",
    "BatchNormMode",
    "ClientReport",
    "ClientSpec",
    "ClusteringFeature",
    "DistillationLoss",
    "Evaluation",
    "EvaluationProtocol",
    "Event",
    "GridSum",
    "Group",
    "Heartbeat",
    "Message",
    "ModelKind",
    "Normalised",
    "ParamSpec",
    "RankInfo",
    "Role",
    "RoundPlan",
    "RoundRecord",
    "RunHeader",
    "Sampling",
    "Schedule",
    "Scores",
    "ServerOptimizer",
    "UnseenDataset",
    "UnseenEvaluation",
    "Weighting",
    "no_heartbeat",
]
