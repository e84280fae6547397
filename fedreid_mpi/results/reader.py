"""The results of a run, finished or still going on, as values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.config import settings_of
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import (
    ClientSpec,
    Event,
    Message,
    ModelKind,
    RankInfo,
    RoundRecord,
    RunHeader,
    Scores,
    UnseenDataset,
    UnseenEvaluation,
)
from fedreid_mpi.results.datasets import HeldDataset, datasets_of, weighted_mean
from fedreid_mpi.results.schema import FIELDS
from fedreid_mpi.results.segments import list_segments, read_joined
from fedreid_mpi.results.writer import tabulate


@dataclass(frozen=True, slots=True)
class RunResults:
    """A run's results, its segments joined.

    There are R rounds, K clients (in id order), E evaluated rounds, and M = 4 models (in the order of
    `ModelKind`). What is missing is NaN, or -1 if it is a count; [File formats](format.md) describes each.

    Attributes
    ----------
    header
        What was known before the first round of the last attempt.
    run_id
        Identity of the run: attempts share it, different runs never do.
    files
        The archive's files, in order; for a run in a study file, that file.
    rounds
        Shape (R,), int64: round numbers.
    learning_rate
        Shape (R,), float64.
    evaluated
        Shape (R,), bool: whether the round was planned to end with an evaluation.
    epsilon
        Shape (R,), float64: the ε of differential privacy that was spent by the end of the round.
    participated, position, loss, weight, cosine_distance, group, distillation_loss, steps, images, finite
        Shape (R, K): each client's training.
    seconds
        Shape (R, K), float64: duration of each client's training.
    phases, phase_seconds
        Names of P phases; their durations in seconds, shape (R, P), float64.
    traffic, bytes_sent
        Names of T kinds of messages; bytes sent, shape (R, T), int64.
    groupings, distances
        Rounds in which clients were grouped anew, shape (G,), int64; cosine distances between the clients'
        features, shape (G, K, K), float32.
    messages
        The ledger: round, rank, message, and how often it was sent.
    evaluations
        Shape (E,), int64: rounds after which models were scored.
    cmc
        Shape (E, K, M, `CMC_RANKS`), float64.
    mean_ap, mean_inp, queries, unmatched
        Shape (E, K, M).
    unseen
        Scores on datasets that no client trains on, in order of round, group and dataset; `unseen_score`
        gives them by dataset.
    events
        What was out of the ordinary, in order.
    """

    header: RunHeader
    run_id: str
    files: tuple[Path, ...]
    rounds: NDArray[np.int64]
    learning_rate: NDArray[np.float64]
    evaluated: NDArray[np.bool_]
    epsilon: NDArray[np.float64]
    participated: NDArray[np.bool_]
    position: NDArray[np.int32]
    loss: NDArray[np.float64]
    weight: NDArray[np.float64]
    cosine_distance: NDArray[np.float64]
    group: NDArray[np.int32]
    distillation_loss: NDArray[np.float64]
    steps: NDArray[np.int64]
    images: NDArray[np.int64]
    finite: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    phases: tuple[str, ...]
    phase_seconds: NDArray[np.float64]
    traffic: tuple[str, ...]
    bytes_sent: NDArray[np.int64]
    groupings: NDArray[np.int64]
    distances: NDArray[np.float32]
    messages: tuple[tuple[int, int, Message, int], ...]
    evaluations: NDArray[np.int64]
    cmc: NDArray[np.float64]
    mean_ap: NDArray[np.float64]
    mean_inp: NDArray[np.float64]
    queries: NDArray[np.int64]
    unmatched: NDArray[np.int64]
    unseen: tuple[UnseenEvaluation, ...]
    events: tuple[Event, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration, parsed; keys of earlier versions have their present names."""
        return settings_of(self.header.configuration)

    @property
    def datasets(self) -> tuple[HeldDataset, ...]:
        """The datasets of the federation, and which clients hold each."""
        return datasets_of(self.header.clients, self.settings)

    @property
    def mode(self) -> str:
        """The configuration's ``federation.mode``."""
        return str(self.settings.get("federation", {}).get("mode", "federated"))

    def score(self, round: int, client: int, model: ModelKind) -> Scores | None:
        """Return the scores of one model on one client's test split; None if it was not scored."""
        rows = np.flatnonzero(self.evaluations == round)
        cell = (rows[0] if rows.size else 0, client, list(ModelKind).index(model))
        if not rows.size or self.queries[cell] < 0:
            return None
        return Scores(
            cmc=self.cmc[cell],
            mean_ap=float(self.mean_ap[cell]),
            mean_inp=float(self.mean_inp[cell]),
            queries=int(self.queries[cell]),
            unmatched=int(self.unmatched[cell]),
        )

    def unseen_score(self, round: int, dataset: int) -> Scores | None:
        """Return the global models' mean scores on one unseen dataset; None if one was not scored.

        If clients are grouped, it is the mean over the groups' models, weighted by their numbers of clients:
        the expected score of the model of a client drawn at random.
        """
        rows = np.flatnonzero(self.rounds == round)
        groups = self.group[rows[0]][self.group[rows[0]] >= 0] if rows.size else np.empty(0, np.int32)
        found = {
            each.group: each.scores for each in self.unseen if (each.round, each.dataset) == (round, dataset)
        }
        numbers, members = np.unique(groups, return_counts=True)
        if not found or not set(numbers.tolist()) <= set(found):
            return None
        return weighted_mean([found[number] for number in numbers.tolist()], members)

    @property
    def mean_loss(self) -> NDArray[np.float64]:
        """Mean training loss of each round over all images seen: shape (R,), NaN where nothing is finite."""
        images = np.where(self.finite, self.images, 0)
        total, seen = (np.where(self.finite, self.loss, 0) * images).sum(axis=1), images.sum(axis=1)
        return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)

    def scores(self, round: int, model: ModelKind) -> tuple[Scores | None, ...]:
        """Return the scores of one model on every client's test split, in id order."""
        return tuple(self.score(round, client, model) for client in range(len(self.header.clients)))


def read_run(path: Path) -> RunResults:
    """Read the results of a run.

    Parameters
    ----------
    path
        Run directory, one file of the archive, or a run of a study file: ``STUDY.h5/RUN``.

    Raises
    ------
    DataError
        If there are no results, or a file is truncated, of another kind, version or run.
    """
    segments = list_segments(path)
    attributes, arrays = read_joined(segments)
    files = tuple(segment.path for segment in segments)
    return _results(_header(attributes, arrays), attributes["run_id"], files, arrays)


def results_of(header: RunHeader, records: Sequence[RoundRecord]) -> RunResults:
    """Return rounds as if they had been written and read again; without an identity."""
    return _results(header, "", (), tabulate(header, records))


def _results(
    header: RunHeader, run_id: str, files: tuple[Path, ...], arrays: Mapping[str, NDArray[Any]]
) -> RunResults:
    return RunResults(
        header=header,
        run_id=run_id,
        files=files,
        rounds=arrays["rounds/round"],
        learning_rate=arrays["rounds/learning_rate"],
        evaluated=arrays["rounds/evaluated"],
        epsilon=arrays["rounds/epsilon"],
        participated=arrays["rounds/participated"],
        position=arrays["rounds/position"],
        loss=arrays["rounds/loss"],
        weight=arrays["rounds/weight"],
        cosine_distance=arrays["rounds/cosine_distance"],
        group=arrays["rounds/group"],
        distillation_loss=arrays["rounds/distillation_loss"],
        steps=arrays["rounds/steps"],
        images=arrays["rounds/images"],
        finite=arrays["rounds/finite"],
        seconds=arrays["rounds/seconds"],
        phases=tuple(arrays["rounds/phase"].tolist()),
        phase_seconds=arrays["rounds/phase_seconds"],
        traffic=tuple(arrays["rounds/traffic"].tolist()),
        bytes_sent=arrays["rounds/bytes_sent"],
        groupings=arrays["groupings/round"],
        distances=arrays["groupings/distance"],
        messages=_messages(arrays),
        evaluations=arrays["evaluations/round"],
        cmc=arrays["evaluations/cmc"],
        mean_ap=arrays["evaluations/mean_ap"],
        mean_inp=arrays["evaluations/mean_inp"],
        queries=arrays["evaluations/queries"],
        unmatched=arrays["evaluations/unmatched"],
        unseen=_unseen_evaluations(arrays),
        events=tuple(
            Event(*event)
            for event in zip(
                *(arrays[f"events/{name}"].tolist() for name in ("round", "kind", "text")), strict=True
            )
        ),
    )


def stable_figures(run_dir: Path) -> dict[str, NDArray[Any]]:
    """Return every dataset that is not volatile, by path, joined over the segments.

    They are equal, bit for bit, in two runs of the same experiment on any numbers of ranks.

    Raises
    ------
    DataError
        As `read_run`.
    """
    _, arrays = read_joined(list_segments(run_dir))
    return {field.path: arrays[field.path] for field in FIELDS if not field.volatile}


def _messages(arrays: Mapping[str, NDArray[Any]]) -> tuple[tuple[int, int, Message, int], ...]:
    """Rebuild the ledger from ``/messages``."""
    names = ("round", "rank", "kind", "dtype", "shape", "bytes", "count")
    return tuple(
        (round, rank, Message(kind, dtype, tuple(shape.tolist()), size), count)
        for round, rank, kind, dtype, shape, size, count in zip(
            *(arrays[f"messages/{name}"].tolist() for name in names), strict=True
        )
    )


def _unseen_evaluations(arrays: Mapping[str, NDArray[Any]]) -> tuple[UnseenEvaluation, ...]:
    """Rebuild the scores on unseen datasets from ``/unseen_scores``."""
    figures = ("mean_ap", "mean_inp", "queries", "unmatched")
    return tuple(
        UnseenEvaluation(round, dataset, group, Scores(cmc, *values))
        for round, dataset, group, cmc, *values in zip(
            *(arrays[f"unseen_scores/{name}"].tolist() for name in ("round", "dataset", "group")),
            arrays["unseen_scores/cmc"],
            *(arrays[f"unseen_scores/{name}"].tolist() for name in figures),
            strict=True,
        )
    )


def client_specs(arrays: Mapping[str, NDArray[Any]]) -> tuple[ClientSpec, ...]:
    """Rebuild the clients from ``/client`` and ``/clients``, in id order."""
    names = ("name", "dataset", "images", "identities", "test_images")
    columns = [arrays["client"], *(arrays[f"clients/{name}"] for name in names)]
    clients = zip(*(column.tolist() for column in columns), strict=True)
    try:
        return tuple(ClientSpec(*client) for client in clients)
    except ValueError as error:
        raise DataError(f"impossible results: {error}") from error


def _header(attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> RunHeader:
    """Rebuild the header from root attributes, ``/clients`` and ``/ranks``."""
    names = ("rank", "host", "role", "device", "clients", "cores")
    ranks = zip(*(arrays[f"ranks/{name}"].tolist() for name in names), strict=True)
    return RunHeader(
        name=str(attributes["name"]),
        seed=int(attributes["seed"]),
        configuration=str(attributes["configuration"]),
        clients=client_specs(arrays),
        ranks=tuple(
            RankInfo(rank, host, role, device, tuple(hosted.tolist()), tuple(cores.tolist()))
            for rank, host, role, device, hosted, cores in ranks
        ),
        versions=json.loads(attributes["versions"]),
        git_commit=str(attributes["git_commit"]),
        git_dirty=bool(attributes.get("git_dirty", False)),
        source_digest=str(attributes.get("source_digest", "")),
        parameters=int(attributes["parameters"]),
        attempt=int(attributes["attempt"]),
        unseen=tuple(
            UnseenDataset(*dataset)
            for dataset in zip(
                *(arrays[f"unseen/{name}"].tolist() for name in ("id", "name", "test_images", "splits")),
                strict=True,
            )
        ),
    )
