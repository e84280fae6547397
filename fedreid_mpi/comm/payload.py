"""What may travel between ranks: model values, features, numbers and the program's own small records.

Images, labels and paths stay on the client that has them. Each rank checks what it is about to send, so that
code that tries to send anything else fails the run before a byte has left.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Real
from pathlib import Path

import numpy as np

from fedreid_mpi.records import GridSum
from fedreid_mpi.wording import counted

PACKAGE = __name__.partition(".")[0]

NUMBERS = 100
"""Most bare numbers that a client may send in one list: enough for measurements, not for labels."""

ELEMENTS = 1 << 20
"""Most values of an array within a record: enough for a client's clustering feature."""

TEXT = 1 << 17
"""Most characters of a text within a record: enough for the traceback of an error."""

BYTES = (1 << 31) - 1
"""Most bytes of a small value, pickled: MPI counts them in a C int."""


class ForbiddenMessageError(RuntimeError):
    """Code tried to send what must not leave a rank: a programming error, which ends the run."""


def check_rows(rows: object, kind: str) -> None:
    """Refuse to send arrays other than float32 with one or two axes: model values or features.

    Raises
    ------
    ForbiddenMessageError
        If it is of another type or shape.
    """
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.ndim not in (1, 2):
        raise ForbiddenMessageError(
            f"tried to send {_describe(rows)} as {kind}, expected a float32 array of one or two axes"
        )


def check_sum(value: object, kind: str) -> None:
    """Refuse to send integers other than a sum of updates on a grid.

    Raises
    ------
    ForbiddenMessageError
        If it is of another type: labels are integers as well.
    """
    values = value.values if isinstance(value, GridSum) else value
    if values is value or not (
        isinstance(values, np.ndarray) and values.dtype in (np.int64, np.uint64) and values.ndim == 1
    ):
        raise ForbiddenMessageError(
            f"tried to send {_describe(values)} as {kind}, expected a sum of updates of one axis"
        )


def check_value(value: object, from_server: bool) -> None:
    """Refuse to send small values other than the program's own records and numbers.

    Parameters
    ----------
    value
        Frozen dataclasses and enumerations of this package, numbers, None, and tuples, lists and dictionaries
        of these. Text and arrays of floats may only travel within dataclasses.
    from_server
        Whether the server sends it to all ranks. It may then also hold text, paths and the experiment, which
        come from the command line, and any number of numbers.

    Raises
    ------
    ForbiddenMessageError
        If anything else is in it.
    """
    if value is None or isinstance(value, Real) or _is_ours(value, Enum):
        return
    if is_dataclass(value) and _is_ours(value, type(value)) and _is_frozen(value):
        for field in fields(value):
            _check_part(getattr(value, field.name), from_server)
    elif isinstance(value, list | tuple | Mapping):
        if not from_server and sum(isinstance(item, Real) for item in _items(value)) > NUMBERS:
            raise ForbiddenMessageError(
                f"tried to send {_describe(value)}, expected at most {NUMBERS} numbers"
            )
        for item in _items(value):
            check_value(item, from_server)
    elif not (from_server and (isinstance(value, str | Path) or _is_experiment(value))):
        raise ForbiddenMessageError(
            f"tried to send {_describe(value)}, expected numbers or the program's own records"
        )


def pack(value: object) -> bytes:
    """Pickle a small value.

    Raises
    ------
    ForbiddenMessageError
        If it is too long for a message.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if len(data) > BYTES:
        raise ForbiddenMessageError(
            f"tried to send {_describe(value)}, {len(data):,} bytes, expected at most {BYTES:,}"
        )
    return data


def kind_of(value: object) -> str:
    """Name the types of the records in a small value, for the ledger, e.g. ``"ClientReport"``."""
    return "+".join(sorted({type(leaf).__name__ for leaf in _leaves(value)})) or type(value).__name__


def _check_part(value: object, from_server: bool) -> None:
    """Check a field of a record, where text and arrays of floats are allowed up to a size."""
    if isinstance(value, str) and len(value) <= TEXT:
        return
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size <= ELEMENTS:
        return
    if isinstance(value, list | tuple | Mapping):
        for item in _items(value):
            _check_part(item, from_server)
        return
    check_value(value, from_server)


def _items(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple | Mapping):
        for item in _items(value):
            yield from _leaves(item)
    elif value is not None:
        yield value


def _is_ours(value: object, kind: type) -> bool:
    return isinstance(value, kind) and type(value).__module__.partition(".")[0] == PACKAGE


def _is_frozen(value: object) -> bool:
    return bool(type(value).__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _is_experiment(value: object) -> bool:
    return type(value).__module__.startswith(f"{PACKAGE}.config")


def _describe(value: object) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return f"{kind} of {counted(len(value), 'item')}" if isinstance(value, list | tuple | Mapping) else kind
