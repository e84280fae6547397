"""``fedreid-mpi results compare``: methods over datasets and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

MODELS = {"global": "global models", "local": "local models"}
"""Models that are compared, and what they are called."""

MOST_ROUNDS = 6
"""Evaluated rounds that a message lists."""


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
@click.option(
    "--model",
    "models",
    type=click.Choice(list(MODELS)),
    multiple=True,
    help="Which models are compared; may be repeated (default: both, as far as they are scored).",
)
@click.option(
    "--method",
    "chosen",
    metavar="NAME",
    multiple=True,
    help="Only this method; may be repeated (default: all).",
)
@click.option("--against", metavar="NAME", help="Add differences from this method, paired by seed.")
@click.option(
    "--round",
    "round_",
    metavar="N|best",
    help="A round, or the best three of the rounds that all runs evaluated (default: the last of these).",
)
def command(
    paths: tuple[Path, ...],
    where: tuple[str, ...],
    metrics: tuple[str, ...],
    models: tuple[str, ...],
    chosen: tuple[str, ...],
    against: str | None,
    round_: str | None,
) -> None:
    """Compare the methods under PATHS: run directories, folders that hold some, archives and study files.

    Runs that differ in seed alone are one method. A table per metric and model, in percent, has one row per
    dataset and one column per method: mean ± sample deviation over the seeds; a single seed has no deviation.
    The global model is the server's average; local models are the clients' after their local epochs, before
    upload. A standalone method (mode "local") has its clients' models in both tables. The best three rounds
    are chosen by the scores of the reported model, which selects on test data. Scores of global models on
    datasets that nobody trains on (data.unseen) have a table of their own; they never choose a round.

    With --against, a difference is marked * where the 95 % t interval of its mean over the seeds leaves out
    0; `--against` a standalone method gives the paper's table of gains. The settings in
    which the methods differ are listed below. As in `results report`, unfinished runs are left out if there
    are finished ones.
    """
    from fedreid_mpi.report.values import compare_unseen

    study = read_methods(paths, where)
    found = {method.name: method for method in study.methods}
    for option, names in (("--method", chosen), ("--against", filter(None, (against,)))):
        for name in names:
            if name not in found:
                raise ConfigurationError(
                    f"{option} {name}: no such method, expected one of {', '.join(found)}"
                )
    methods = [each for each in study.methods if not chosen or each.name in (*chosen, against)]
    for model in models or [model for model in MODELS if scored(methods, model)]:
        for metric in metrics:
            unseen = None
            if model == "global":
                at, words = choose_round(methods, round_), "global models on unseen datasets"
                unseen = compare_unseen(methods, at, metric, words)
            if unseen is None or shared_datasets(methods):  # methods may have left out each another dataset
                _print_comparison(compare_methods(methods, round_, metric, model), against)
            if unseen is not None:
                _print_comparison(unseen, against)
    _print_settings(methods)
    for note in (*(f"Note: {warning}" for warning in study.warnings), *_evaluated(methods)):
        click.echo(note)


def _print_comparison(comparison: Comparison, against: str | None) -> None:
    metric = comparison.metric
    columns = [(each.label, [str(spread) for spread in each.spreads()]) for each in comparison.series]
    print_blocks(f"{metric} in percent, {comparison.when}", comparison.rows, columns)
    if against is None:
        return
    reference = comparison.series[[each.label for each in comparison.series].index(against)]
    columns = [
        (each.label, [f"{spread}{' *' if spread.clear else ''}" for spread in each.minus(reference)])
        for each in comparison.series
        if each is not reference
    ]
    print_blocks(f"{metric} minus {against}, {comparison.when}, by seed", comparison.rows, columns)


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


def compare_methods(
    methods: Sequence[Method], when: str | None, metric: str, model: str = "global"
) -> Comparison:
    """Compare methods after a round, or after the last one that all of their runs evaluated.

    Parameters
    ----------
    methods
        All are shown, those without such a model with dashes.
    when
        A round, ``"best"`` or None.
    metric
        ``"rank-1"`` or ``"mAP"``.
    model
        One of `MODELS`.

    Raises
    ------
    ConfigurationError
        There is no such round, or no dataset that all are tested on.
    """
    from fedreid_mpi.records import ModelKind
    from fedreid_mpi.report.values import compare

    kind = ModelKind.LOCAL if model == "local" else None
    at = choose_round(methods, when)
    if not shared_datasets(methods):
        tested = "; ".join(f"{method.name}: {', '.join(method.datasets) or 'none'}" for method in methods)
        raise ConfigurationError(
            f"no dataset is tested by every method ({tested}); compare some that share one (--method)"
        )
    return compare([(method.name, method, kind) for method in methods], at, metric, MODELS[model])


def choose_round(methods: Sequence[Method], when: str | None) -> int | str:
    """Return the round that is meant: a number, or ``"best"``; by default the last that all runs evaluated.

    Raises
    ------
    ConfigurationError
        There is no such round.
    """
    from fedreid_mpi.report.values import common_rounds

    rounds = common_rounds(methods)
    if when not in (None, "best"):
        if not str(when).isdecimal():
            raise ConfigurationError(f"--round {when}: expected the number of a round, or best")
        if without := [each for each in methods if int(str(when)) not in _evaluated_rounds(each)]:
            raise ConfigurationError(f"--round {when}: not evaluated by every run: {_rounds_of(without)}")
    elif not rounds:
        raise ConfigurationError(
            f"no round was evaluated by every run ({_rounds_of(methods)}); compare some that share one "
            "(--method)"
        )
    return "best" if when == "best" else rounds[-1] if when is None else int(when)


def _evaluated_rounds(method: Method) -> list[int]:
    """Return the rounds that all runs of a method evaluated."""
    return sorted(set.intersection(*(set(run.results.evaluations.tolist()) for run in method.runs)))


def _rounds_of(methods: Sequence[Method]) -> str:
    """Name methods with the rounds that they evaluated, of many the first and the last ones."""
    named = []
    for method in methods:
        rounds = [str(round) for round in _evaluated_rounds(method) if round]
        shown = rounds if len(rounds) <= MOST_ROUNDS else [*rounds[:2], "…", rounds[-1]]
        named.append(f"{method.name}: {', '.join(shown) or 'none'}")
    return "; ".join(named)


def shared_datasets(methods: Sequence[Method]) -> set[str]:
    """Return the names of the datasets that all methods are tested on."""
    return set.intersection(*(set(method.datasets) for method in methods))


def scored(methods: Sequence[Method], model: str) -> bool:
    """Tell whether any federated method has scores of such a model; all have a global one."""
    from fedreid_mpi.records import ModelKind

    return model == "global" or any(
        method.runs[0].kind is ModelKind.GLOBAL and method.scored(ModelKind.LOCAL) for method in methods
    )


def _evaluated(methods: Sequence[Method]) -> Iterator[str]:
    from fedreid_mpi.report.findings import rounds_in_words

    yield from (f"Note: {words}" for words in rounds_in_words(methods))


def _print_settings(methods: Sequence[Method]) -> None:
    """Say what each method has of the settings in which they differ, and how many seeds."""
    from fedreid_mpi.report.study import differing_keys

    keys = differing_keys([method.settings for method in methods])
    for method in methods:
        values = [f"{key} = {method.settings[key]}" for key in keys if key in method.settings]
        seeds = ", ".join(str(run.seed) for run in method.runs)
        click.echo(f"{method.name} (seed {seeds}): {', '.join(values) or 'the same settings'}")
