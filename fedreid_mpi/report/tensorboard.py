"""Results as TensorBoard event files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.score_table import METRICS, dataset_scores
from fedreid_mpi.results import RunResults
from fedreid_mpi.storage.atomic import atomic_write, write_errors

FILE_NAME = "events.out.tfevents.0.fedreid_mpi"


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
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError as error:
        raise ConfigurationError(
            "TensorBoard's files need tensorboardX: pip install 'fedreid_mpi[tensorboard]', or choose CSV"
        ) from error
    seconds = np.nansum(results.phase_seconds, axis=1).cumsum().tolist()
    path = folder / FILE_NAME
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            writer = RecordWriter(str(temporary))
            writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
            for round, time in zip(results.rounds.tolist(), seconds, strict=True):
                values = [
                    Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(results, round)
                ]
                event = Event(wall_time=time, step=round, summary=Summary(value=values))
                writer.write(event.SerializeToString())
            writer.close()
    return path


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
