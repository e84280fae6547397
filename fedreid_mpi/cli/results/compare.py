"""``fedreid-mpi results compare``: methods over datasets and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.results.run_selection import require_runs, takes_runs
from fedreid_mpi.cli.results.wide_tables import print_blocks
from fedreid_mpi.errors import ConfigurationError

if TYPE_CHECKING:
    from fedreid_mpi.report.study import Method, Study
    from fedreid_mpi.report.values import Comparison


@click.command("compare")
@takes_runs
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(["rank-1", "mAP"]),
    multiple=True,
    default=("rank-1", "mAP"),
    show_default=True,
    help="What is compared; may be repeated.",
)
@click.option("--against", metavar="NAME", help="Adds differences to this method, paired by seed.")
@click.option(
    "--round",
    "round_",
    type=int,
    metavar="N",
    help="A round (default: the last that all runs evaluated).",
)
def command(
    paths: tuple[Path, ...],
    where: tuple[str, ...],
    metrics: tuple[str, ...],
    against: str | None,
    round_: int | None,
) -> None:
    """Compare the methods under PATHS: run directories, folders that hold some, archives and study files.

    Runs that differ in seed alone are one method. A table a metric, in percent, has a row a dataset and a
    column a method: mean ± sample deviation over the seeds; a single seed has no deviation. Scores are the
    global model's, in mode local those of each client's own model. Below stands in which settings the methods
    differ. As in `results report`, unfinished runs are left out where there are finished ones.
    """
    study = read_methods(paths, where)
    names = [method.name for method in study.methods]
    if against is not None and against not in names:
        raise ConfigurationError(f"--against {against}: no such method, expected one of {', '.join(names)}")
    for metric in metrics:
        comparison = compare_methods(study.methods, round_, metric)
        columns = [(each.label, [str(spread) for spread in each.spreads()]) for each in comparison.series]
        print_blocks(f"{metric} in percent, {comparison.when}", comparison.rows, columns)
        if against is not None:
            reference = comparison.series[names.index(against)]
            columns = [
                (each.label, [str(spread) for spread in each.less(reference)])
                for each in comparison.series
                if each is not reference
            ]
            print_blocks(f"{metric} less that of {against}, by seed", comparison.rows, columns)
    _print_settings(study.methods)
    for warning in study.warnings:
        click.echo(f"Note: {warning}")


def read_methods(paths: tuple[Path, ...], where: tuple[str, ...]) -> Study:
    """Put the runs that are meant together by method.

    Raises
    ------
    DataError
        There is no run, or one cannot be read: a comparison without it would mislead.
    """
    from fedreid_mpi.report.study import make_run, make_study
    from fedreid_mpi.results import read_run

    refuse = Refusals()
    found = [summary.source.path for summary in require_runs(paths, where, refuse)]
    refuse.settle()
    return make_study([make_run(path, read_run(path)) for path in found])


def compare_methods(methods: Sequence[Method], round: int | None, metric: str) -> Comparison:
    """Compare methods after a round, or after the last one that all of their runs evaluated.

    Raises
    ------
    ConfigurationError
        There is no such round.
    """
    from fedreid_mpi.report.values import compare, last_common_round

    evaluated = (run.results.evaluations for method in methods for run in method.runs)
    if round is not None and not all(round in rounds for rounds in evaluated):
        raise ConfigurationError(f"--round {round}: not evaluated by every run")
    when = last_common_round(methods) if round is None else round
    if when is None:
        raise ConfigurationError("no round was evaluated by every run; compare fewer of them")
    return compare([(method.name, method, None) for method in methods], when, metric)


def _print_settings(methods: Sequence[Method]) -> None:
    """Say what each method has of the settings in which they differ, and how many seeds."""
    from fedreid_mpi.report.study import differing_keys

    keys = differing_keys([method.settings for method in methods])
    for method in methods:
        values = [f"{key} = {method.settings[key]}" for key in keys if key in method.settings]
        seeds = ", ".join(str(run.seed) for run in method.runs)
        click.echo(f"{method.name} (seed {seeds}): {', '.join(values) or 'the same settings'}")
