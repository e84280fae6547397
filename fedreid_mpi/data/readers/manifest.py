"""Any other dataset, by a manifest: a CSV or Parquet table with one row per image.

Columns are ``path`` (relative to the manifest), ``pid``, ``camid`` and ``split``; others are ignored.
``split`` is ``train``, ``query``, ``gallery`` or ``multi_query``, or in every row ``public``. The number -1
for a person means junk, in the gallery only.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Choices, Listing, Reader, Record, Variant
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.regular import read_bytes, read_text

COLUMNS = ("path", "pid", "camid", "split")
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
JUNK = "-1"

Row = tuple[str, Mapping[str, object]]
"""Its place, e.g. ``line 7``, and the value in each column."""


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
        _require_columns(path, reader.fieldnames or ())
        for row in reader:
            yield f"line {reader.line_num}", row
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: Parquet needs pyarrow, which is not installed (the extra 'parquet'); CSV needs nothing"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def _require_columns(path: Path, found: Iterable[str]) -> None:
    names = list(found)
    for column in COLUMNS:
        if names.count(column) != 1:
            fault = "twice a" if column in names else "no"
            raise DataError(f"{path}: {fault} column {column!r}, found {', '.join(names)[:200] or 'nothing'}")


def read(rows: Callable[[Path], Iterator[Row]], path: Path, choices: Choices) -> Listing:
    """Read the table and find every file that it names."""
    records: dict[str, Record] = {}
    places: dict[str, str] = {}
    faults: list[str] = []
    for where, row in rows(path):
        try:
            record = _record(path.parent, row)
            if record.path in records:
                raise ValueError(f"{record.path!r} again, first in {places[record.path]}")
        except ValueError as error:
            faults.append(f"{where}: {error}")
        else:
            records[record.path], places[record.path] = record, where
    if faults:
        rest = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise DataError(f"{path}: {'; '.join(faults[:3])}{rest}")
    if not records:
        raise DataError(f"{path}: lists no images")
    roles = {record.role for record in records.values()}
    if SplitRole.PUBLIC in roles and len(roles) > 1:
        raise DataError(f"{path}: split is 'public' in some rows, expected it in all or in none")
    return Listing((tuple(records.values()),), load=partial(_load, path.parent))


def _record(folder: Path, row: Mapping[str, object]) -> Record:
    """Check a row.

    Raises
    ------
    ValueError
        Saying what is wrong with it.
    """
    if None in row or None in row.values():
        raise ValueError("too many values" if None in row else "a value is missing")
    path, pid, camid, split = (str(row[column]) for column in COLUMNS)
    if split not in set(SplitRole):
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SplitRole)}")
    role = SplitRole(split)
    if not (NUMBER.fullmatch(pid) or (pid == JUNK and role == SplitRole.GALLERY)):
        raise ValueError(f"pid is {pid!r}, expected a whole number from 0 (-1 is junk, in the gallery)")
    if not NUMBER.fullmatch(camid):
        raise ValueError(f"camid is {camid!r}, expected a whole number from 0")
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        raise ValueError(f"path is {path!r}, expected a file below the manifest's folder")
    if not _is_file(folder / relative):
        raise ValueError(f"no file {path[:200]!r}")
    return Record(relative.as_posix(), int(pid), int(camid), role)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _load(folder: Path, path: str) -> bytes:
    try:
        return read_bytes(folder / path)
    except OSError as error:
        raise DataError(f"{folder / path}: cannot be read: {error.strerror}") from error


def _is_named(suffix: str, path: Path) -> str | None:
    return f"its name ends with {suffix}" if path.suffix.lower() == suffix and path.is_file() else None


READER = Reader(
    name="custom",
    folders=(),
    variants=tuple(
        Variant(
            name=name,
            looks_for=f"a file with a name that ends with .{name}",
            recognise=partial(_is_named, f".{name}"),
            read=partial(read, rows),
            splits={"given": {}},
        )
        for name, rows in (("csv", _csv_rows), ("parquet", _parquet_rows))
    ),
)
