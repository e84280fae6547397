"""Results for other programs: long tables as CSV or Parquet."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.records import ModelKind, Scores
from fedreid_mpi.results import RunResults
from fedreid_mpi.storage.atomic import atomic_write, write_errors

Row = dict[str, Any]


def score_rows(results: RunResults) -> Iterator[Row]:
    """List all scores, a row for each evaluated round, client and model; shares, not percent.

    Rows of datasets that nobody trains on are marked ``unseen``: one for each group of clients, whose global
    model it is, with client -1, the dataset's name and its position in ``data.unseen``.
    """
    header, run = results.header, _run(results)
    groups = dict(zip(results.rounds.tolist(), results.group.tolist(), strict=True))
    for round in results.evaluations.tolist():
        for client in header.clients:
            for model in ModelKind:
                if (scores := results.score(round, client.id, model)) is not None:
                    yield run | {
                        "round": round,
                        "client": client.id,
                        "client_name": client.name,
                        "dataset": client.dataset,
                        "model": str(model),
                        "group": groups[round][client.id],
                        "unseen": False,
                        **figures(scores),
                    }
        for each in results.unseen:
            if each.round == round:
                yield run | {
                    "round": round,
                    "client": -1,
                    "client_name": header.unseen[each.dataset].name,
                    "dataset": each.dataset,
                    "model": str(ModelKind.GLOBAL),
                    "group": each.group,
                    "unseen": True,
                    **figures(each.scores),
                }


def figures(scores: Scores) -> Row:
    """List what a table has of scores; shares, not percent."""
    return {
        **{f"rank_{rank}": float(scores.cmc[rank - 1]) for rank in (1, 5, 10, 20)},
        "mean_ap": scores.mean_ap,
        "mean_inp": scores.mean_inp,
        "queries": scores.queries,
        "unmatched": scores.unmatched,
    }


def training_rows(results: RunResults) -> Iterator[Row]:
    """List what is known of each client's training, a row for each round and client."""
    run = _run(results)
    for row, round in enumerate(results.rounds.tolist()):
        for client in results.header.clients:
            cell = (row, client.id)
            yield run | {
                "round": round,
                "client": client.id,
                "client_name": client.name,
                "learning_rate": float(results.learning_rate[row]),
                "participated": bool(results.participated[cell]),
                "loss": float(results.loss[cell]),
                "weight": float(results.weight[cell]),
                "cosine_distance": float(results.cosine_distance[cell]),
                "group": int(results.group[cell]),
                "distillation_loss": float(results.distillation_loss[cell]),
                "steps": int(results.steps[cell]),
                "images": int(results.images[cell]),
                "finite": bool(results.finite[cell]),
                "seconds": float(results.seconds[cell]),
            }


def write_csv(path: Path, runs: Iterable[list[Row]]) -> None:
    """Write rows, a run at a time; NaN is an empty cell.

    Raises
    ------
    DataError
        There are no rows.
    FedReIDError
        The file cannot be written.
    """
    with (
        write_errors(path),
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = None
        for rows in runs:
            if rows and writer is None:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
            if writer is not None:
                writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in rows)
        if writer is None:
            raise _nothing(path)


def write_parquet(path: Path, runs: Iterable[list[Row]]) -> None:
    """Write rows, a group of them a run.

    Raises
    ------
    ConfigurationError
        pyarrow is not installed.
    DataError
        There are no rows.
    FedReIDError
        The file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'fedreid_mpi[parquet]', or choose CSV"
        ) from error
    with write_errors(path), atomic_write(path) as temporary:
        writer = None
        for rows in runs:
            if rows:
                table = pyarrow.Table.from_pylist(rows, schema=writer and writer.schema)
                writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
        if writer is None:
            raise _nothing(path)
        writer.close()


def _nothing(path: Path) -> DataError:
    return DataError(f"{path}: not written, the runs have nothing for this table")


def _run(results: RunResults) -> Row:
    """Describe which run a row is of."""
    header = results.header
    return {"run_id": results.run_id, "name": header.name, "seed": header.seed, "mode": results.mode}
