"""``fedreid-mpi results export``: results for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.results.model_export import write_model
from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.results.run_selection import require_runs, takes_runs
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.report.export import Row
    from fedreid_mpi.results.summary import RunSummary

PROJECTS = ("torchreid", "fastreid", "timm")

FORMATS = {".csv": "csv", ".parquet": "parquet", ".tex": "latex"}


@click.command("export")
@takes_runs
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File or folder to write."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "parquet", "latex", "tensorboard"]),
    help="Default: by the ending of the output, .csv, .parquet or .tex.",
)
@click.option(
    "--table",
    type=click.Choice(["scores", "training"]),
    default="scores",
    show_default=True,
    help="Of CSV and Parquet.",
)
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(["rank-1", "rank-5", "rank-10", "mAP", "mINP"]),
    multiple=True,
    default=("rank-1",),
    show_default=True,
    help="Of LaTeX; may be repeated: all are in one table.",
)
@click.option(
    "--model",
    type=click.Choice(["global", "local", "torchreid", "fastreid", "timm"]),
    default="global",
    show_default=True,
    help="Of LaTeX: the server's models, or the clients' before upload. With the name of a project: "
    "write the model itself, for that project to load.",
)
@SHARED
def command(
    paths: tuple[Path, ...],
    where: tuple[str, ...],
    output: Path,
    format_: str | None,
    table: str,
    metrics: tuple[str, ...],
    model: str,
) -> None:
    """Write the results of the runs under PATHS for other programs.

    \b
      csv, parquet  all rounds in one long table: a row for each run, round, client and model (scores),
                    or for each run, round and client (training)
      latex         the table of `results compare --latex`, for a document with booktabs
      tensorboard   OUTPUT is a folder for `tensorboard --logdir`, with one folder per run
    With --model torchreid, fastreid or timm, PATHS is one model file, or one run directory, whose global
    model is meant, and OUTPUT (.pth; of timm also .safetensors) is a state dict for that project.

    \b
      fedreid-mpi results export runs/1 --model fastreid -o fastreid.pth
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi.errors import ConfigurationError

    if model in PROJECTS:
        write_model(paths, output, model)
        return
    chosen = format_ or FORMATS.get(output.suffix)
    if chosen is None:
        raise ConfigurationError(f"-o {output}: expected .csv, .parquet or .tex, or --format")
    if chosen == "latex":
        _write_latex(paths, where, output, metrics, model)
        return
    refuse = Refusals()
    summaries = require_runs(paths, where, refuse)
    if chosen == "tensorboard":
        _write_events(summaries, output)
    else:
        _write_table(summaries, output, chosen, table)
    click.echo(f"{output}: {counted(len(summaries), 'run')}")
    refuse.settle()


def _write_latex(
    paths: tuple[Path, ...], where: tuple[str, ...], output: Path, metrics: tuple[str, ...], model: str
) -> None:
    from fedreid_mpi.cli.results.compare import compare_methods, read_methods, write_latex
    from fedreid_mpi.report.tables import metrics_table

    methods = read_methods(paths, where).methods
    table = metrics_table(output.stem, [compare_methods(methods, None, each, model) for each in metrics])
    write_latex(output, [table])
    click.echo(f"{output}: {counted(len(methods), 'method')}, {table.caption}")


def _write_events(summaries: list[RunSummary], output: Path) -> None:
    from fedreid_mpi.report.tensorboard import write_events
    from fedreid_mpi.results import read_run
    from fedreid_mpi.results.collection import label_runs

    for label, summary in zip(label_runs(summaries), summaries, strict=True):
        write_events(read_run(summary.source.path), output / label)


def _write_table(summaries: list[RunSummary], output: Path, format: str, table: str) -> None:
    from fedreid_mpi.report.export import score_rows, training_rows, write_csv, write_parquet
    from fedreid_mpi.results import read_run

    def runs() -> Iterator[list[Row]]:
        for summary in summaries:
            yield list((score_rows if table == "scores" else training_rows)(read_run(summary.source.path)))

    (write_csv if format == "csv" else write_parquet)(output, runs())
