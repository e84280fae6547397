"""Results as TensorBoard event files, of finished runs and during a run."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import ModelKind, RoundRecord, RunHeader
from fedreid_mpi.report.score_table import METRICS, dataset_scores
from fedreid_mpi.results import RunResults, results_of
from fedreid_mpi.storage.atomic import atomic_write, write_errors

FILE_NAME = "events.out.tfevents.0.fedreid_mpi"

LIVE_FOLDER = "tensorboard"
"""Folder of the events within a run directory, written during the run."""

PATIENCE = 5.0
"""Seconds that a run waits at its end for events that are still to be written."""


def require_library() -> None:
    """Import what writes TensorBoard's files.

    Raises
    ------
    ConfigurationError
        tensorboardX is not installed.
    """
    try:
        import tensorboardX.record_writer  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "TensorBoard's files need tensorboardX: pip install 'fedreid_mpi[tensorboard]', or choose CSV"
        ) from error


def write_events(results: RunResults, folder: Path) -> Path:
    """Write all curves of a run: scores by dataset and model, and loss, weight and group by client.

    Steps are rounds. Clock times are those of the run, counted from its start, not from a date.

    Parameters
    ----------
    results
        The run.
    folder
        Made if need be; TensorBoard shows each folder as a run.

    Raises
    ------
    ConfigurationError
        tensorboardX is not installed.
    FedReIDError
        The file cannot be written.
    """
    require_library()
    seconds = np.nansum(results.phase_seconds, axis=1).cumsum().tolist()
    path = folder / FILE_NAME
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            writer = _open(temporary, 0.0)
            for round, time_ in zip(results.rounds.tolist(), seconds, strict=True):
                writer.write(_event(results, round, time_))
            writer.close()
    return path


class LiveEvents:
    """Writes the curves of a run round by round, during the run; an observer of a run.

    A thread of its own writes, so that a slow disk does not slow down rounds. An error is reported once, and
    the run continues without. An attempt writes a file of its own, and makes TensorBoard forget the rounds of
    earlier ones that it repeats.

    Parameters
    ----------
    run_dir
        Its folder `LIVE_FOLDER` is for ``tensorboard --logdir``.
    warn
        Called with one line about what went wrong.
    """

    def __init__(self, run_dir: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = run_dir / LIVE_FOLDER, warn
        self._records: queue.SimpleQueue[tuple[RoundRecord, float] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def started(self, header: RunHeader, notes: Sequence[str]) -> None:
        """Begin; the file is made with the first round."""
        self._thread = threading.Thread(target=self._write, args=(header,), name="tensorboard", daemon=True)
        self._thread.start()

    def finished(self, record: RoundRecord) -> None:
        """Hand a round over to be written."""
        self._records.put((record, time.time()))

    def close(self) -> None:
        """Wait a little for what is still to be written."""
        if self._thread is not None:
            self._records.put(None)
            self._thread.join(PATIENCE)
            self._thread = None

    def _write(self, header: RunHeader) -> None:
        writer = None
        try:
            while (entry := self._records.get()) is not None:
                record, now = entry
                round = record.plan.round
                if writer is None:
                    self._folder.mkdir(exist_ok=True)
                    path = self._folder / f"events.out.tfevents.{int(now)}.attempt{header.attempt:03d}"
                    writer = _open(path, now, round)
                writer.write(_event(results_of(header, [record]), round, now))
                writer.flush()
            if writer is not None:
                writer.close()
        except Exception as error:  # noqa: BLE001 (never the end of a run)
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            self._warn(f"--log tensorboard: {self._folder}: cannot be written: {reason}; the run continues")


def _open(path: Path, now: float, first: int | None = None) -> Any:  # noqa: ANN401 (tensorboardX has no types)
    """Begin a file of events; those of other files from the first step on are to be forgotten."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(path))
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    if first is not None:
        session = SessionLog(status=SessionLog.START)
        writer.write(Event(wall_time=now, step=first, session_log=session).SerializeToString())
    return writer


def _event(results: RunResults, round: int, now: float) -> bytes:
    """Return the curves' values in a round."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(results, round)]
    return bytes(Event(wall_time=now, step=round, summary=Summary(value=values)).SerializeToString())


def _scalars(results: RunResults, round: int) -> Iterator[tuple[str, float]]:
    """List the finite figures of a round by name."""
    names = [dataset.name for dataset in results.datasets]
    for model in ModelKind:
        for name, scores in zip(names, dataset_scores(results, round, model).tolist(), strict=True):
            for metric, score in zip(METRICS, scores, strict=True):
                if np.isfinite(score):
                    yield f"{metric} {model}/{name}", score
    row = int(np.flatnonzero(results.rounds == round)[0])
    yield "learning rate", float(results.learning_rate[row])
    for client in results.header.clients:
        for label, column in (
            ("loss", results.loss),
            ("weight", results.weight),
            ("cosine distance", results.cosine_distance),
        ):
            if np.isfinite(column[row, client.id]):
                yield f"{label}/{client.name}", float(column[row, client.id])
        if results.group[row, client.id] >= 0:
            yield f"group/{client.name}", float(results.group[row, client.id])
