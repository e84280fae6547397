"""Writes the results archive: segments that are replaced as a whole, so that a kill loses no round.

A segment is never changed in place: HDF5 files that are cut off while being extended lose rounds that were
already safe. At most `rounds_per_segment` rounds are rewritten at a time, some hundred kilobytes.
"""

import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.records import CMC_RANKS, Evaluation, ModelKind, RoundRecord, RunHeader
from fedreid_mpi.results.archive import HDF5_OPTIONS, write_archive
from fedreid_mpi.results.schema import FIELDS, SCALES
from fedreid_mpi.results.segments import find_segments, identify, read_segment
from fedreid_mpi.storage.atomic import atomic_write, write_errors
from fedreid_mpi.storage.hdf5.checksum import seal


class ResultsWriter:
    """Writes a run's records into ``results_<attempt>_<segment>.h5`` files.

    Parameters
    ----------
    run_dir
        Existing folder of the run.
    header
        What is known before the first round; every segment carries it.
    rounds_per_segment
        Number of rounds after which a new file is begun.

    Raises
    ------
    FedReIDError
        The folder already holds results of this attempt.
    """

    def __init__(self, run_dir: Path, header: RunHeader, rounds_per_segment: int = 100) -> None:
        self._run_dir = run_dir
        self._header = header
        self._rounds_per_segment = rounds_per_segment
        self._segment = 1
        self._records: tuple[RoundRecord, ...] = ()
        if self._path.exists():
            raise FedReIDError(f"{self._path}: exists; results of an attempt are never overwritten")
        for stale in sorted(run_dir.glob(".results_*.tmp")):  # of an attempt that was killed
            stale.unlink()
        earlier = find_segments(run_dir)
        self._run_id = identify(*read_segment(earlier[0])) if earlier else uuid.uuid4().hex

    @property
    def _path(self) -> Path:
        """File of the current segment."""
        return self._run_dir / f"results_{self._header.attempt:03d}_{self._segment:03d}.h5"

    def write(self, record: RoundRecord) -> None:
        """Add a round; when this returns, it is safe on disk.

        Raises
        ------
        ValueError
            The round does not come after the last one.
        FedReIDError
            The file cannot be written; the rounds before are still in the archive.
        """
        if self._records and record.plan.round <= self._records[-1].plan.round:
            raise ValueError(f"round {record.plan.round} written after {self._records[-1].plan.round}")
        if len(self._records) == self._rounds_per_segment:
            self._segment += 1
            self._records = ()
        records = (*self._records, record)
        with write_errors(self._path), atomic_write(self._path) as temporary:
            temporary.write_bytes(_segment(self._header, self._run_id, records))
            seal(temporary)
        self._records = records


def _segment(header: RunHeader, run_id: str, records: Sequence[RoundRecord]) -> bytes:
    """Make a segment in memory: it is small, and HDF5 can crash the process where a disk is full."""
    attributes = {
        "name": header.name,
        "seed": header.seed,
        "configuration": header.configuration,
        "git_commit": header.git_commit,
        "git_dirty": header.git_dirty,
        "source_digest": header.source_digest,
        "versions": json.dumps(dict(header.versions)),
        "parameters": header.parameters,
        "attempt": header.attempt,
        "run_id": run_id,
    }
    memory = io.BytesIO()
    with h5py.File(memory, "w", **HDF5_OPTIONS) as file:
        write_archive(file, attributes, tabulate(header, records))
    return memory.getvalue()


def tabulate(header: RunHeader, records: Sequence[RoundRecord]) -> dict[str, NDArray[Any]]:
    """Lay header and records out as arrays, one for each line of the schema."""
    evaluations = [evaluation for record in records for evaluation in record.evaluations]
    events = [event for record in records for event in record.events]
    unseen = [evaluation for record in records for evaluation in record.unseen]
    grouped = [record for record in records if record.feature_distances is not None]
    messages = [
        (record.plan.round, rank, message, count)
        for record in records
        for rank, ledger in sorted(record.messages.items())
        for message, count in ledger.items()
    ]
    arrays: dict[str, Any] = {
        "client": [client.id for client in header.clients],
        "other_client": [client.id for client in header.clients],
        "cmc_rank": range(1, CMC_RANKS + 1),
        "ranks/rank": [info.rank for info in header.ranks],
        "ranks/host": [info.host for info in header.ranks],
        "ranks/role": [info.role for info in header.ranks],
        "ranks/device": [info.device for info in header.ranks],
        "ranks/clients": _ragged(info.clients for info in header.ranks),
        "ranks/cores": _ragged(info.cores for info in header.ranks),
        "clients/name": [client.name for client in header.clients],
        "clients/dataset": [client.dataset for client in header.clients],
        "clients/images": [client.images for client in header.clients],
        "clients/identities": [client.identities for client in header.clients],
        "clients/test_images": [client.test_images for client in header.clients],
        "rounds/round": [record.plan.round for record in records],
        "rounds/learning_rate": [record.plan.learning_rate for record in records],
        "rounds/evaluated": [record.plan.evaluate for record in records],
        "rounds/phase": _labels(record.phase_seconds for record in records),
        "rounds/traffic": _labels(record.bytes_sent for record in records),
        "groupings/round": [record.plan.round for record in grouped],
        "messages/round": [round for round, *_ in messages],
        "messages/rank": [rank for _, rank, *_ in messages],
        "messages/kind": [message.kind for *_, message, _ in messages],
        "messages/dtype": [message.dtype for *_, message, _ in messages],
        "messages/shape": _ragged(message.shape for *_, message, _ in messages),
        "messages/bytes": [message.bytes for *_, message, _ in messages],
        "messages/count": [count for *_, count in messages],
        "evaluations/round": sorted({evaluation.round for evaluation in evaluations}),
        "evaluations/model": list(ModelKind),
        "unseen/id": [dataset.id for dataset in header.unseen],
        "unseen/name": [dataset.name for dataset in header.unseen],
        "unseen/test_images": [dataset.test_images for dataset in header.unseen],
        "unseen/splits": [dataset.splits for dataset in header.unseen],
        "unseen_scores/round": [evaluation.round for evaluation in unseen],
        "unseen_scores/group": [evaluation.group for evaluation in unseen],
        "unseen_scores/dataset": [evaluation.dataset for evaluation in unseen],
        "unseen_scores/cmc": np.reshape([each.scores.cmc for each in unseen], (len(unseen), CMC_RANKS)),
        **{
            f"unseen_scores/{name}": [getattr(evaluation.scores, name) for evaluation in unseen]
            for name in ("mean_ap", "mean_inp", "queries", "unmatched")
        },
        "events/round": [event.round for event in events],
        "events/kind": [event.kind for event in events],
        "events/text": [event.text for event in events],
    }
    lengths = {axis: len(arrays[scale]) for axis, scale in SCALES.items()}
    for field in FIELDS:
        if field.absent is None:
            arrays[field.path] = np.asarray(arrays[field.path], dtype=field.dtype)
        else:
            shape = [lengths[axis] for axis in field.axes]
            arrays[field.path] = np.full(shape, field.absent, dtype=field.dtype)
    for row, record in enumerate(records):
        _fill_round(arrays, row, record)
    for row, record in enumerate(grouped):
        arrays["groupings/distance"][row] = record.feature_distances
    _fill_scores(arrays, evaluations)
    return arrays


def _fill_round(arrays: Mapping[str, NDArray[Any]], row: int, record: RoundRecord) -> None:
    """Enter one record into the arrays of ``/rounds``."""
    if record.epsilon is not None:
        arrays["rounds/epsilon"][row] = record.epsilon
    for position, client in enumerate(record.plan.participants):
        arrays["rounds/participated"][row, client] = True
        arrays["rounds/position"][row, client] = position
    for report in record.reports:
        for name in ("loss", "steps", "images", "finite", "seconds"):
            arrays[f"rounds/{name}"][row, report.client] = getattr(report, name)
    for client, weight in record.weights.items():
        arrays["rounds/weight"][row, client] = weight
    for report in record.reports:
        if report.cosine_distance is not None:
            arrays["rounds/cosine_distance"][row, report.client] = report.cosine_distance
    for client, group in record.groups.items():
        arrays["rounds/group"][row, client] = group
        arrays["rounds/distillation_loss"][row, client] = record.distillation_loss.get(group, np.nan)
    for column, phase in enumerate(arrays["rounds/phase"]):
        arrays["rounds/phase_seconds"][row, column] = record.phase_seconds.get(phase, np.nan)
    for column, kind in enumerate(arrays["rounds/traffic"]):
        arrays["rounds/bytes_sent"][row, column] = record.bytes_sent.get(kind, 0)


def _fill_scores(arrays: Mapping[str, NDArray[Any]], evaluations: Iterable[Evaluation]) -> None:
    """Enter scores into the arrays of ``/evaluations``."""
    models = list(ModelKind)
    for evaluation in evaluations:
        row = np.searchsorted(arrays["evaluations/round"], evaluation.round)
        cell = (row, evaluation.client, models.index(evaluation.model))
        for name in ("cmc", "mean_ap", "mean_inp", "queries", "unmatched"):
            arrays[f"evaluations/{name}"][cell] = getattr(evaluation.scores, name)


def _labels(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all mappings, each once, in order of first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _ragged(rows: Iterable[tuple[int, ...]]) -> NDArray[np.object_]:
    """Return an array of integer arrays of different lengths."""
    values = [np.asarray(row, dtype=np.int32) for row in rows]
    ragged = np.empty(len(values), dtype=object)
    ragged[:] = values
    return ragged
