"""Results as TensorBoard event files, written by hand: TensorFlow would be a large dependency for few bytes.

An event file is a sequence of TFRecords (length, masked CRC-32C of it, data, masked CRC-32C of that), each
an ``Event`` in protocol buffers' encoding; see tensorflow/core/util/event.proto and
tensorflow/core/framework/summary.proto.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fedreid_mpi.files import naming, replacing
from fedreid_mpi.report.tables import METRICS, dataset_scores
from fedreid_mpi.results import RunResults
from fedreid_mpi.types import ModelKind

FILE_NAME = "events.out.tfevents.0.fedreid_mpi"

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C (Castagnoli) of some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


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
    FedReIDError
        The file cannot be written.
    """
    seconds = np.nansum(results.phase_seconds, axis=1).cumsum().tolist()
    records = [_record(_event(0.0, 0, version="brain.Event:2"))]
    for round, time in zip(results.rounds.tolist(), seconds, strict=True):
        scalars = dict(_scalars(results, round))
        records.append(_record(_event(time, round, scalars)))
    path = folder / FILE_NAME
    with naming(path):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(records))
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


def _record(data: bytes) -> bytes:
    """Frame one TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(time: float, step: int, scalars: Mapping[str, float] | None = None, version: str = "") -> bytes:
    """Encode an ``Event``: wall_time = 1, step = 2, file_version = 3 or summary = 5."""
    event = b"\x09" + struct.pack("<d", time) + b"\x10" + _varint(step)
    if version:
        return event + _bytes(3, version.encode())
    # Summary: repeated value = 1; Value: tag = 1, simple_value = 2.
    values = (
        _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value) for tag, value in (scalars or {}).items()
    )
    return event + _bytes(5, b"".join(_bytes(1, value) for value in values))


def _bytes(number: int, data: bytes) -> bytes:
    """Encode a field of variable length."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
