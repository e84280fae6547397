"""Scores of stored models for other programs: CSV or JSON, by the ending of the name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.evaluation.comparison import Outcome
from fedreid_mpi.report.export import Row, figures, write_csv
from fedreid_mpi.storage.atomic import atomic_write, write_errors

ENDINGS = (".csv", ".json")


def require_table(path: Path) -> None:
    """Refuse a name of which nothing is known.

    Raises
    ------
    ConfigurationError
        Its ending is none of `ENDINGS`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigurationError(f"-o {path}: expected a name that ends in {' or '.join(ENDINGS)}")


def outcome_rows(outcomes: Sequence[Outcome], made: Mapping[str, str | float]) -> list[Row]:
    """List all scores, one row per model, dataset and split; shares, not percent.

    Parameters
    ----------
    outcomes
        What was scored.
    made
        How, e.g. ``protocol``: columns of every row.
    """
    return [
        {
            "model": str(each.trial.candidate.path),
            "model_digest": each.trial.candidate.stored.digest,
            "round": each.trial.candidate.stored.round,
            "dataset": each.trial.archive.name,
            "archive": str(each.trial.archive.path),
            "split": number,
            **figures(scores),
            **made,
        }
        for each in outcomes
        for number, scores in each.scores.items()
    ]


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV, NaN as an empty cell, or as a JSON list of objects, NaN as null.

    Raises
    ------
    FedReIDError
        The file cannot be written.
    """
    if path.suffix.lower() == ".csv":
        write_csv(path, [rows])
        return
    plain = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    with write_errors(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")
