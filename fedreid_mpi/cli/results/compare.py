"""``fedreid-mpi results compare``: methods over datasets and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.results.refusals import Refusals
from fedreid_mpi.cli.results.run_selection import require_runs, takes_runs
from fedreid_mpi.cli.wide_tables import print_blocks
from fedreid_mpi.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.text import Text

    from fedreid_mpi.report.highest import Mark
    from fedreid_mpi.report.study import Method, Study
    from fedreid_mpi.report.tables import Table
    from fedreid_mpi.report.values import Comparison, Spread

MODELS = {"global": "global models", "local": "local models"}
"""Models that are compared, and what they are called."""

MOST_ROUNDS = 6
"""Evaluated rounds that a message lists."""


@click.command("compare")
@takes_runs
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(["rank-1", "rank-5", "rank-10", "mAP", "mINP"]),
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
    "--latex",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Writes the scores as well, for a document with booktabs: one table per model, all metrics in it.",
)
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
    latex: Path | None,
    round_: str | None,
) -> None:
    """Compare the methods under PATHS: run directories, folders that hold some, archives and study files.

    Runs that differ in seed alone are one method, called by the label of its suite and in its order. One
    table per model has the means over the datasets by all metrics; one per metric and model, in percent, has
    one row per dataset and one column per method: mean ± sample deviation over the seeds; a single seed has
    no deviation. On a terminal the highest is bold, and what is not clearly below it (95 % t interval of the
    difference over the seeds) is underlined.
    The global model is the server's average; local models are the clients' after their local epochs, before
    upload. A standalone method (mode "local") has its clients' models in both tables. The best three rounds
    are chosen by the scores of the reported model, which selects on test data. Scores of global models on
    datasets that nobody trains on (data.unseen) have a table of their own; they never choose a round.

    With --against, a difference is marked * where the 95 % t interval of its mean over the seeds leaves out
    0; `--against` a standalone method gives the paper's table of gains. The settings in
    which the methods differ are listed below. As in `results report`, unfinished runs are left out if there
    are finished ones.
    """
    from fedreid_mpi.report.tables import metrics_table
    from fedreid_mpi.report.values import compare_unseen

    study = read_methods(paths, where)
    chosen = tuple(_named(study.methods, name, "--method") for name in chosen)
    if against:
        against = _named(study.methods, against, "--against")
    methods = [each for each in study.methods if not chosen or each.name in (*chosen, against)]
    tables = []
    for model in models or [model for model in MODELS if scored(methods, model)]:
        if shared_datasets(methods) or not any(run.unseen for method in methods for run in method.runs):
            compared = [compare_methods(methods, round_, metric, model) for metric in metrics]
            tables.append(metrics_table("compared", compared))
            if len(metrics) > 1:
                _print_means(compared)
        for metric in metrics:
            unseen = None
            if model == "global":
                at, words = choose_round(methods, round_), "global models on unseen datasets"
                unseen = compare_unseen(methods, at, metric, words)
            if unseen is None or shared_datasets(methods):  # methods may have left out each another dataset
                _print_comparison(compare_methods(methods, round_, metric, model), against)
            if unseen is not None:
                _print_comparison(unseen, against)
    if latex is not None:
        write_latex(latex, tables)
    _print_settings(methods)
    for note in (*(f"Note: {warning}" for warning in study.warnings), *_evaluated(methods)):
        click.echo(note)


def _named(methods: Sequence[Method], wanted: str, option: str) -> str:
    """Return the name of the method that a user means: its own, or that of its runs, which a label hides."""
    names = [method.name for method in methods]
    of_runs = [method.name for method in methods if method.runs[0].settings["run.name"] == wanted]
    if wanted not in names and len(of_runs) != 1:
        raise ConfigurationError(f"{option} {wanted}: no such method, expected one of {', '.join(names)}")
    return wanted if wanted in names else of_runs[0]


def _print_comparison(comparison: Comparison, against: str | None) -> None:
    from fedreid_mpi.report.highest import marks, transposed

    metric, marked = comparison.metric, transposed(marks(comparison.series))
    columns = []
    for number, each in enumerate(comparison.series, start=1):
        spreads = enumerate(each.spreads())
        columns.append((each.label, [_styled(spread, marked.get((row, number))) for row, spread in spreads]))
    print_blocks(f"{metric} in percent, {comparison.when}", comparison.rows, columns)
    if against is None:
        return
    reference = comparison.series[[each.label for each in comparison.series].index(against)]
    differences = [
        (each.label, [f"{spread}{' *' if spread.clear else ''}" for spread in each.minus(reference)])
        for each in comparison.series
        if each is not reference
    ]
    print_blocks(f"{metric} minus {against}, {comparison.when}, by seed", comparison.rows, differences)


def _print_means(compared: Sequence[Comparison]) -> None:
    """Print the means over the datasets: one row per method, one column per metric."""
    from fedreid_mpi.report.highest import marks

    first = compared[0]
    place = first.datasets  # of the mean over all datasets, behind these
    columns = []
    for comparison in compared:
        marked = marks(comparison.series)
        spreads = [series.spreads()[place] for series in comparison.series]
        cells = [_styled(spread, marked.get((row, place + 1))) for row, spread in enumerate(spreads)]
        columns.append((comparison.metric, cells))
    names = [series.label for series in first.series]
    print_blocks(f"{first.rows[place]} datasets in percent, {first.when}", names, columns)


def _styled(spread: Spread, mark: Mark | None) -> Text:
    """Return a figure in bold or underlined, as it is marked; see `fedreid_mpi.report.highest`."""
    from rich.text import Text

    from fedreid_mpi.report.highest import Mark

    styles = {Mark.HIGHEST: "bold", Mark.CLOSE: "underline"}
    return Text(str(spread), style=styles[mark] if mark else "")


def write_latex(path: Path, tables: Sequence[Table]) -> None:
    """Write tables for a document with booktabs, one after the other.

    Raises
    ------
    FedReIDError
        The file cannot be written.
    """
    from fedreid_mpi.report.tables import to_latex
    from fedreid_mpi.storage.atomic import atomic_write, write_errors

    with write_errors(path), atomic_write(path) as temporary:
        temporary.write_text("\n".join(map(to_latex, tables)), encoding="utf-8", errors="replace")


def read_methods(paths: tuple[Path, ...], where: tuple[str, ...]) -> Study:
    """Put the runs that are meant together by method.

    Raises
    ------
    DataError
        There is no run, or one cannot be read: a comparison without it would mislead.
    """
    from fedreid_mpi.report.loading import make_run, make_study
    from fedreid_mpi.results import read_run

    refuse = Refusals()
    found = [(summary.source.path, summary.written) for summary in require_runs(paths, where, refuse)]
    refuse.settle()
    return make_study([make_run(path, read_run(path), written) for path, written in found])


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
        ``"rank-N"``, ``"mAP"`` or ``"mINP"``.
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
    """Return whether any federated method has scores of such a model; all have a global one."""
    from fedreid_mpi.records import ModelKind

    return model == "global" or any(
        method.runs[0].kind is ModelKind.GLOBAL and method.scored(ModelKind.LOCAL) for method in methods
    )


def _evaluated(methods: Sequence[Method]) -> Iterator[str]:
    from fedreid_mpi.report.findings import rounds_in_words

    yield from (f"Note: {words}" for words in rounds_in_words(methods))


def _print_settings(methods: Sequence[Method]) -> None:
    """Print each method's values of the settings in which they differ, and its seeds."""
    from fedreid_mpi.report.settings import differing_keys

    keys = differing_keys([method.settings for method in methods])
    for method in methods:
        values = [f"{key} = {method.settings[key]}" for key in keys if key in method.settings]
        seeds = ", ".join(str(run.seed) for run in method.runs)
        click.echo(f"{method.name} (seed {seeds}): {', '.join(values) or 'the same settings'}")
