"""``fedreid-mpi results show``: the table of scores of one run, and its plots."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import output_console, print_table
from fedreid_mpi.cli.results.figures import figure_formats
from fedreid_mpi.cli.results.places import beside
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table
    from rich.text import Text

    from fedreid_mpi.report.score_table import ScoreTable
    from fedreid_mpi.results import RunResults

_EVENTS_SHOWN = 10


@click.command("show")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="RUN_DIR",
    help='A standalone run (mode "local") on the same archives: adds its scores, and the gains of '
    "the global and the local models.",
)
@click.option("--round", "round_", type=int, metavar="N", help="An evaluated round (default: the last one).")
@click.option(
    "--plots",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the plots (default: RUN_DIR/plots, FILE-plots next to a file, STUDY-plots/RUN).",
)
@click.option(
    "--ledger",
    is_flag=True,
    help="Instead of scores: what the server saw of each client, by round, and whether as it is, in a sum, "
    "or masked.",
)
@figure_formats("Files of the plots; may be repeated.")
@SHARED
def command(
    run_dir: Path,
    baseline: Path | None,
    round_: int | None,
    plots: Path | None,
    ledger: bool,
    formats: tuple[str, ...],
) -> None:
    """Print the table of scores of a run, and plot them.

    \b
    The table has one row per dataset and, in percent, rank-1, rank-5 and mAP of
      untrained   the model before the first round
      global      the global model, the server's average
      re-estimated  the same with BatchNorm statistics of the client's own images
      local       the local models: each client's after its local epochs, before upload
      standalone  each client trained alone (--baseline, or a run of mode "local")
      global gain, local gain  these models minus standalone

    Where several clients share a dataset, as with clients by camera, the table gives their number, and local
    scores are means over them. Where clients are grouped it gives the groups, and global scores are those of
    the groups' models. Datasets that nobody trains on (data.unseen) are listed below the mean, which leaves
    them out: with several groups, the mean over the clients and then one row per group. RUN_DIR may be a run
    of a study file: STUDY.h5/RUN.

    A dash means that nothing was scored. Plots show scores and training loss by round, scores by dataset,
    and where the time went.
    """  # noqa: D301 (\b is click's mark for text that must not be rewrapped)
    from fedreid_mpi.report.plots import write_plots
    from fedreid_mpi.report.score_table import score_table
    from fedreid_mpi.results import read_run

    results = read_run(run_dir)
    if ledger:
        _print_ledger(results)
        return
    standalone = None if baseline is None else read_run(baseline)
    table = score_table(results, standalone, round_)
    _print_scores(results, table)
    _print_privacy(results)
    _print_costs(results)
    _print_events(results)
    files = write_plots(results, table, plots or beside(run_dir, "plots"), standalone, formats)
    click.echo(f"Results: {', '.join(map(str, results.files))}")
    if files:
        click.echo(f"Plots:   {files[0].parent}: {', '.join(path.name for path in files)}")


def _print_scores(results: RunResults, table: ScoreTable) -> None:
    """Print the table of scores, or one table per metric if the terminal is too narrow for one."""
    from rich.measure import Measurement

    from fedreid_mpi.report.score_table import METRICS

    metrics = list(range(len(METRICS)))
    if not table.scores:
        click.echo(f"{results.header.name}: nothing is scored in round {table.round}")
    rendered = _render(results, table, metrics)
    console = output_console()
    width = Measurement.get(console, console.options.update(max_width=1000), rendered).maximum
    if width <= console.width or not console.is_terminal:
        print_table(rendered)
        return
    for metric in metrics:
        print_table(_render(results, table, [metric]))


def _render(results: RunResults, table: ScoreTable, metrics: list[int]) -> Table:
    """Turn the table of scores into one that rich can draw: one column per model, metrics side by side."""
    import numpy as np
    from rich import box
    from rich.table import Table

    from fedreid_mpi.report.score_table import METRICS, Column, mean_over_datasets

    run = results.header
    mode = "standalone" if results.mode == "local" else results.mode
    alone = f" · {METRICS[metrics[0]]}" if len(metrics) == 1 else ""
    title = f"{run.name} · {mode} · seed {run.seed} · round {table.round}{alone} · in percent"
    if not results.settings.get("evaluation", {}).get("mirror", True):
        title += " · without mirror images"
    rendered = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    columns: list[tuple[NDArray[np.float64], Callable[[NDArray[np.float64]], str | Text]]] = []
    rendered.add_column("\ndataset", no_wrap=True)
    described = list(_described(table))
    for heading, _ in described:
        rendered.add_column(f"\n{heading}", justify="right", no_wrap=True)
    for column, scores in table.scores.items():
        heading = str(column)
        if column is Column.STANDALONE and table.baseline_round not in (None, table.round):
            heading += f", round {table.baseline_round}"
        rendered.add_column(_heading(heading, metrics), justify="right", no_wrap=True)
        columns.append((scores[:, metrics], _percent))
    shown = [metric for metric in metrics if METRICS[metric] != "rank-5" or len(metrics) == 1]
    for column, gains in table.gains.items():
        rendered.add_column(_heading(f"{column} gain", shown), justify="right", no_wrap=True)
        columns.append((gains[:, shown], _signed))
    for row, dataset in enumerate(table.datasets):
        words = (cells[row] for _, cells in described)
        rendered.add_row(dataset, *words, *(formatted(scores[row]) for scores, formatted in columns))
    rendered.add_section()
    means = (formatted(mean_over_datasets(scores, table.test_images)) for scores, formatted in columns)
    rendered.add_row("mean", *("" for _ in described), *means, style="bold")
    if table.unseen:
        rendered.add_section()
    nothing = np.full((len(METRICS),), np.nan)
    for unseen in table.unseen:
        facts = {"clients": "", "group": " ".join(map(str, unseen.groups))}
        cells = [_percent(unseen.scores.get(column, nothing)[metrics]) for column in table.scores]
        rendered.add_row(f"{unseen.dataset}, unseen", *(facts[heading] for heading, _ in described), *cells)
    return rendered


def _described(table: ScoreTable) -> Iterator[tuple[str, list[str]]]:
    """Return what to know of the datasets besides scores: heading, and one cell for each."""
    if max(table.clients, default=1) > 1:
        yield "clients", [str(count) for count in table.clients]
    if table.groups:
        yield "group", [" ".join(map(str, groups)) for groups in table.groups]


def _percent(scores: NDArray[np.float64]) -> str:
    """Format scores as percent with one decimal, a dash for NaN."""
    return " ".join(f"{'–' if isnan(score) else f'{100 * score:.1f}':>6}" for score in scores.tolist())


def _heading(name: str, metrics: list[int]) -> str:
    """Return two lines: a model above its metrics, or if the title has the only one, the model's words."""
    from fedreid_mpi.report.score_table import METRICS

    if len(metrics) == 1:
        first, _, last = name.rpartition(" ")
        return f"{first}\n{last}"
    names = " ".join(f"{METRICS[metric]:>6}" for metric in metrics)
    return f"{name:^{len(names)}}\n{names}"


def _signed(gains: NDArray[np.float64]) -> Text:
    """Format differences of scores with sign and colour."""
    from rich.text import Text

    cells = []
    for gain in gains.tolist():
        text = "–" if isnan(gain) else f"{100 * gain:+.1f}"
        changed = bool(text.strip("+-.0–"))
        cells.append(Text(f"{text:>6}", style=("green" if gain > 0 else "red") if changed else ""))
    return Text(" ").join(cells)


def _print_ledger(results: RunResults) -> None:
    """Print what the server saw of each client."""
    from rich import box
    from rich.table import Table

    from fedreid_mpi.report.ledger import in_lines, seen_by_the_server

    table = Table(title=f"{results.header.name}: what the server saw of the clients", box=box.SIMPLE_HEAD)
    for heading in ("clients", "rounds", "what", "values", "bits each", "how"):
        table.add_column(heading, justify="right" if heading in ("values", "bits each") else "left")
    for line in in_lines(results, seen_by_the_server(results)):
        entry = line.entry
        shape = " × ".join(f"{length:,}" for length in entry.shape)
        table.add_row(line.clients, line.rounds, entry.what, shape, str(entry.bits), entry.how)
    print_table(table)
    if len(results.header.ranks) == 1:
        click.echo("One process did everything: nothing travelled between ranks.")
    _print_privacy(results)


def _print_privacy(results: RunResults) -> None:
    """Print the ε that was spent."""
    if len(results.epsilon) and not isnan(spent := float(results.epsilon[-1])):
        privacy = results.settings["privacy"]
        click.echo(
            f"Privacy: ε = {spent:.2f} at δ = {privacy['delta']:g} after round {results.rounds[-1]} "
            f"(clip {privacy['clip']:g}, noise multiplier {privacy['noise_multiplier']:g})"
        )


def _print_costs(results: RunResults) -> None:
    """Print where time and bytes went, and what the paper counts."""
    import numpy as np

    from fedreid_mpi.report.score_table import shares

    seconds = dict(zip(results.phases, np.nansum(results.phase_seconds, axis=0).tolist(), strict=True))
    sent = dict(zip(results.traffic, results.bytes_sent.sum(axis=0).tolist(), strict=True))
    for heading, total, amounts in (
        ("Time:   ", _duration(sum(seconds.values())), seconds),
        ("Traffic:", _size(sum(sent.values())), sent),
    ):
        parts = ", ".join(f"{label} {share:.0%}" for label, share in shares(amounts))
        click.echo(f"{heading} {total}" + (f" ({parts})" if parts else ""))
    if results.mode == "federated":
        rounds, model = int((results.rounds > 0).sum()), 4 * results.header.parameters
        cost = f"{counted(rounds, 'round')} × 2 × {_size(model)} = {_size(2 * rounds * model)}"
        click.echo(f"         as the paper counts it, per client: {cost}")


def _print_events(results: RunResults) -> None:
    """List the latest events."""
    for event in results.events[-_EVENTS_SHOWN:]:
        click.echo(f"Event:   round {event.round}, {event.kind}: {event.text}")
    if len(results.events) > _EVENTS_SHOWN:
        click.echo(f"         ({len(results.events) - _EVENTS_SHOWN} earlier events are in the archive)")


def _duration(seconds: float) -> str:
    """Format seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _size(size: float) -> str:
    """Format a number of bytes for people."""
    units = ["kB", "MB", "GB", "TB"]
    size /= 1000
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.1f} {units[0]}"
