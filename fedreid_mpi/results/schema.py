"""What a results archive holds: every dataset with its axes, units and meaning, in one table.

Writer and reader both walk this table, and each dataset carries its line of it as attributes, so that the
file alone is enough to read it.
"""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.records import CMC_RANKS

KIND = "fedreid_mpi results"
FORMAT_VERSION = 3
OLDEST_VERSION = 2
"""That is still read; `fedreid_mpi.results.layouts` says where the versions differ."""

STUDY_KIND = "fedreid_mpi study"
STUDY_VERSION = 2
OLDEST_STUDY = 1

RUNS = "runs"
"""Group of a study file with the runs, each laid out as a results archive."""

ABOUT = (
    "Results of one run of fedreid_mpi (federated person re-identification), a netCDF-4 file. Every axis has "
    "a dimension scale; every dataset has a description, units and the flag 'volatile'. What is not volatile "
    "is equal to the last bit for the same experiment on any number of MPI ranks. A run may be spread over "
    "several files results_<attempt>_<segment>.h5, one after the other in rounds; where a later attempt "
    "repeats rounds of an earlier one, the later one counts."
)

GROUPS = {
    "ranks": "MPI ranks of this attempt.",
    "clients": "Clients of the federation: sites with their own images.",
    "rounds": "Training: one row per round. Round 0 is the untrained model.",
    "groupings": "What clients were grouped by: one row per round in which they were grouped anew.",
    "evaluations": "Scores on each client's test split: one row an evaluated round.",
    "unseen": "Datasets that nobody trains on.",
    "unseen_scores": "Scores of global models on them: one row per round, group and dataset.",
    "messages": "Ledger of all that left a rank: what and how much, never its contents.",
    "events": "Anything out of the ordinary, in the order in which it happened.",
}

SCALES = {
    "rank": "ranks/rank",
    "client": "client",
    "other_client": "other_client",
    "round": "rounds/round",
    "phase": "rounds/phase",
    "traffic": "rounds/traffic",
    "grouping": "groupings/round",
    "evaluation": "evaluations/round",
    "model": "evaluations/model",
    "cmc_rank": "cmc_rank",
    "unseen": "unseen/id",
    "unseen_score": "unseen_scores/round",
    "message": "messages/round",
    "event": "events/round",
}
"""Axis to the dataset that is its dimension scale, in the group of all that has the axis or above it.

There netCDF looks for it, and calls the dimension by the last part of its name.
"""

GROWING = ("round", "grouping", "evaluation", "unseen_score", "message", "event")
"""Axes that grow during the run; their scales hold round numbers."""

LABELLED = ("phase", "traffic")
"""Axes whose entries may differ from one segment to the next; their scales hold words."""

TEXT = h5py.string_dtype()
INTEGERS = h5py.vlen_dtype(np.dtype(np.int32))
"""Of lists of integers in memory; in files they are text."""


@dataclass(frozen=True, slots=True)
class Field:
    """One dataset of the archive.

    Attributes
    ----------
    path
        Group and name.
    axes
        Names of its axes, keys of `SCALES`.
    dtype
        Of the values in memory; `fedreid_mpi.results.layouts.stored_type` is that in files.
    units
        As in UDUNITS; ``"1"`` for pure numbers, empty for words.
    description
        For whoever opens the file.
    volatile
        Whether it may differ between two runs of the same experiment.
    absent
        The value for what is missing; None if nothing can be missing.
    optional
        Whether files of earlier versions lack it; it is read as empty from them.
    former
        Group and name in version 2, where they were others.
    """

    path: str
    axes: tuple[str, ...]
    dtype: Any
    units: str
    description: str
    volatile: bool = False
    absent: float | int | bool | None = None
    optional: bool = False
    former: str = ""


_ROUND_CLIENT = ("round", "client")
_SCORE = ("evaluation", "client", "model")
_UNSEEN = ("unseen_score",)

FIELDS = (
    Field("client", ("client",), np.int32, "1", "Number of the client, from 0.", former="clients/id"),
    Field("other_client", ("other_client",), np.int32, "1",
          "Number of the client again, where two are compared.", former="clients/id"),
    Field("cmc_rank", ("cmc_rank",), np.int32, "1", "Length of the ranked list, from 1.",
          former="evaluations/cmc_rank"),
    Field("ranks/rank", ("rank",), np.int32, "1", "Number of the MPI rank.", volatile=True),
    Field("ranks/host", ("rank",), TEXT, "", "Host name.", volatile=True),
    Field("ranks/role", ("rank",), TEXT, "", "What the rank does.", volatile=True),
    Field("ranks/device", ("rank",), TEXT, "", "Device it computes on.", volatile=True),
    Field("ranks/clients", ("rank",), INTEGERS, "1", "Ids of the clients it starts with.", volatile=True),
    Field("ranks/cores", ("rank",), INTEGERS, "1", "CPU cores it is bound to.", volatile=True),
    Field("clients/name", ("client",), TEXT, "", "Name of the dataset, with the part that the client holds."),
    Field("clients/dataset", ("client",), np.int32, "1",
          "Dataset that the client is tested on, a position in data.archives; -1: none."),
    Field("clients/images", ("client",), np.int64, "1", "Number of training images."),
    Field("clients/identities", ("client",), np.int64, "1", "Number of people among the training images."),
    Field("clients/test_images", ("client",), np.int64, "1", "Number of query and gallery images."),
    Field("rounds/round", ("round",), np.int64, "1", "Number of the round."),
    Field("rounds/learning_rate", ("round",), np.float64, "1", "Learning rate of embedding and classifier."),
    Field("rounds/evaluated", ("round",), np.bool_, "1", "Whether the round was to end with an evaluation."),
    Field("rounds/epsilon", ("round",), np.float64, "1",
          "ε of differential privacy for all rounds so far, at the configuration's δ; NaN without.",
          absent=np.nan, optional=True),
    Field("rounds/participated", _ROUND_CLIENT, np.bool_, "1", "Whether the client trained.", absent=False),
    Field("rounds/position", _ROUND_CLIENT, np.int32, "1",
          "Position of the client in the round's seeded order, from 0; -1 if it did not train.", absent=-1),
    Field("rounds/loss", _ROUND_CLIENT, np.float64, "1",
          "Mean training loss over the images seen; NaN without a report.", absent=np.nan),
    Field("rounds/weight", _ROUND_CLIENT, np.float64, "1",
          "Weight of the client's model in the average; NaN if it was left out.", absent=np.nan),
    Field("rounds/cosine_distance", _ROUND_CLIENT, np.float64, "1",
          "Mean cosine distance between the client's logits before and after training; NaN if not measured.",
          absent=np.nan),
    Field("rounds/group", _ROUND_CLIENT, np.int32, "1",
          "Group of clients that share a model after the round, numbered by lowest client; -1: none.",
          absent=-1),
    Field("rounds/distillation_loss", _ROUND_CLIENT, np.float64, "1",
          "Mean loss of the student of the client's group; NaN if it was not distilled.", absent=np.nan),
    Field("rounds/steps", _ROUND_CLIENT, np.int64, "1",
          "Number of optimiser steps; -1 without a report.", absent=-1),
    Field("rounds/images", _ROUND_CLIENT, np.int64, "1",
          "Number of training images the client reported; -1 without a report.", absent=-1),
    Field("rounds/finite", _ROUND_CLIENT, np.bool_, "1",
          "Whether loss, model and features were finite after training; else false.", absent=False),
    Field("rounds/seconds", _ROUND_CLIENT, np.float64, "s",
          "Wall-clock time of the client's training; NaN without a report.", volatile=True, absent=np.nan),
    Field("rounds/phase", ("phase",), TEXT, "", "Phases of a round.", volatile=True),
    Field("rounds/phase_seconds", ("round", "phase"), np.float64, "s",
          "Wall-clock time of the phase on the server; NaN if there was none.", volatile=True, absent=np.nan),
    Field("rounds/traffic", ("traffic",), TEXT, "", "Kinds of message between ranks.", volatile=True),
    Field("rounds/bytes_sent", ("round", "traffic"), np.int64, "byte",
          "Bytes that travelled between ranks.", volatile=True, absent=0),
    Field("groupings/round", ("grouping",), np.int64, "1", "Round in which clients were grouped anew."),
    Field("groupings/distance", ("grouping", "client", "other_client"), np.float32, "1",
          "Cosine distance between the features of two clients; NaN where one has none.", absent=np.nan),
    Field("evaluations/round", ("evaluation",), np.int64, "1", "Round after which the models were scored."),
    Field("evaluations/model", ("model",), TEXT, "",
          "Model scored: the global one (the group's) that the next round starts from, the client's own "
          "after training, the aggregated one before distillation, or the global one with BatchNorm "
          "statistics re-estimated on the client's training images."),
    Field("evaluations/cmc", (*_SCORE, "cmc_rank"), np.float64, "1",
          "Share of queries with a true match at or before each rank; NaN if not scored.", absent=np.nan),
    Field("evaluations/mean_ap", _SCORE, np.float64, "1",
          "Mean average precision (mAP), 0 to 1; NaN if not scored.", absent=np.nan),
    Field("evaluations/mean_inp", _SCORE, np.float64, "1",
          "Mean inverse negative penalty (mINP), 0 to 1; NaN if not scored.", absent=np.nan),
    Field("evaluations/queries", _SCORE, np.int64, "1",
          "Queries with at least one true match; -1 if not scored.", absent=-1),
    Field("evaluations/unmatched", _SCORE, np.int64, "1",
          "Queries without a true match, which count in no score; -1 if not scored.", absent=-1),
    Field("unseen/id", ("unseen",), np.int32, "1",
          "Number of the dataset, a position in data.unseen.", optional=True),
    Field("unseen/name", ("unseen",), TEXT, "", "Name of the dataset.", optional=True),
    Field("unseen/test_images", ("unseen",), np.int64, "1",
          "Number of query and gallery images, those of all its splits, each once.", optional=True),
    Field("unseen/splits", ("unseen",), np.int64, "1", "Number of its test splits.", optional=True),
    Field("unseen_scores/round", _UNSEEN, np.int64, "1",
          "Round after which the model was scored.", optional=True),
    Field("unseen_scores/group", _UNSEEN, np.int32, "1",
          "Group whose global model was scored, as in /rounds/group of that round.", optional=True),
    Field("unseen_scores/dataset", _UNSEEN, np.int32, "1", "Dataset, as in /unseen/id.", optional=True),
    Field("unseen_scores/cmc", (*_UNSEEN, "cmc_rank"), np.float64, "1",
          "Share of queries with a true match at or before each rank: mean over the splits.", optional=True),
    Field("unseen_scores/mean_ap", _UNSEEN, np.float64, "1",
          "Mean average precision (mAP), 0 to 1, likewise; NaN if the protocol has none.", optional=True),
    Field("unseen_scores/mean_inp", _UNSEEN, np.float64, "1",
          "Mean inverse negative penalty (mINP), 0 to 1, likewise; NaN if the protocol has none.",
          optional=True),
    Field("unseen_scores/queries", _UNSEEN, np.int64, "1",
          "Queries with at least one true match, those of all splits together.", optional=True),
    Field("unseen_scores/unmatched", _UNSEEN, np.int64, "1",
          "Queries without a true match, likewise.", optional=True),
    Field("messages/round", ("message",), np.int64, "1", "Round in which it was sent.", volatile=True),
    Field("messages/rank", ("message",), np.int32, "1", "Rank that sent it.", volatile=True),
    Field("messages/kind", ("message",), TEXT, "",
          "What it carries: models, features, controls, or the type of a small value.", volatile=True),
    Field("messages/dtype", ("message",), TEXT, "",
          "float32; int64 for sums of updates and signs of life; uint64 for masked sums; pickle for a small "
          "value.", volatile=True),
    Field("messages/shape", ("message",), INTEGERS, "1", "Shape of an array.", volatile=True),
    Field("messages/bytes", ("message",), np.int64, "byte", "Size of one such message.", volatile=True),
    Field("messages/count", ("message",), np.int64, "1", "How often it was sent.", volatile=True),
    Field("events/round", ("event",), np.int64, "1", "Round in which it happened.", volatile=True),
    Field("events/kind", ("event",), TEXT, "", "What sort of event.", volatile=True),
    Field("events/text", ("event",), TEXT, "", "What happened.", volatile=True),
)  # fmt: skip
"""All datasets; groups and datasets are created in this order."""


def empty(field: Field) -> NDArray[Any]:
    """Return what is read where an archive lacks an optional field."""
    shape = [CMC_RANKS if axis == "cmc_rank" else 0 for axis in field.axes]
    return np.empty(shape, np.str_ if field.dtype is TEXT else field.dtype)
