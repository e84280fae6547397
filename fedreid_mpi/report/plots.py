"""Plots of a run, as files: scores, training loss and time."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.pictures import rendered
from fedreid_mpi.report.score_table import Column, ScoreTable, shares
from fedreid_mpi.report.style import STYLE, legend_below, small_multiples
from fedreid_mpi.results import RunResults
from fedreid_mpi.results.datasets import mean_over_clients
from fedreid_mpi.storage.atomic import atomic_write

# Okabe and Ito's colours, which colour-blind readers can tell apart; dashes and markers repeat them.
_COLOURS = {
    Column.UNTRAINED: "#b0b0b0",
    Column.GLOBAL: "#0072b2",
    Column.REESTIMATED: "#56b4e9",
    Column.LOCAL: "#e69f00",
    Column.STANDALONE: "#d55e00",
}
_LINES: dict[Column, dict[str, Any]] = {
    Column.GLOBAL: {"marker": "o", "zorder": 3},
    Column.LOCAL: {"marker": "s", "linestyle": ":"},
    Column.STANDALONE: {"linestyle": "--"},
}
_NAMES = {
    Column.UNTRAINED: "untrained",
    Column.GLOBAL: "global model",
    Column.REESTIMATED: "global model, BatchNorm re-estimated",
    Column.LOCAL: "local models",
    Column.STANDALONE: "standalone",
}


def write_plots(
    results: RunResults,
    table: ScoreTable,
    directory: Path,
    baseline: RunResults | None = None,
    formats: Sequence[str] = ("png",),
) -> tuple[Path, ...]:
    """Write all plots for which the run has figures.

    Parameters
    ----------
    results
        The run.
    table
        Its scores, for the bars.
    directory
        Folder for the files, made if need be; earlier plots in it are replaced.
    baseline
        The standalone run.
    formats
        Of `fedreid_mpi.report.formats.UNDATED`: a file each.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    ConfigurationError
        The folder cannot be written to.
    """
    written = []
    with matplotlib.rc_context(STYLE):
        figures: dict[str, Figure] = {}
        if np.isfinite(results.cmc).any():
            figures["rank1_by_round"] = plot_scores_by_round(results, "rank-1", baseline)
        if table.scores:
            figures["rank1_by_dataset"] = plot_scores_by_dataset(results.header.name, table)
        if np.isfinite(results.mean_ap).any():
            figures["map_by_round"] = plot_scores_by_round(results, "mAP", baseline)
        if np.isfinite(results.loss).any():
            figures["loss"] = plot_losses(results)
        if np.isfinite(results.seconds).any():
            figures["seconds"] = plot_seconds(results)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, figure in figures.items():
                for ending in formats:
                    path = directory / f"{name}.{ending}"
                    with atomic_write(path) as temporary:
                        temporary.write_bytes(rendered(figure, ending))
                    written.append(path)
        except OSError as error:
            raise ConfigurationError(f"{directory}: plots cannot be written: {error.strerror}") from error
    return tuple(written)


def plot_scores_by_round(results: RunResults, metric: str, baseline: RunResults | None = None) -> Figure:
    """Draw rank-1 or mAP by round, one panel per dataset: global, local, standalone."""
    scored = [
        dataset for dataset in results.datasets if (results.queries[:, list(dataset.clients)] >= 0).any()
    ]
    figure, panels = _panels([dataset.name for dataset in scored], f"{metric} (%)")
    curves = [(results, ModelKind.GLOBAL, Column.GLOBAL)]
    curves.append((results, ModelKind.LOCAL, Column.STANDALONE if results.mode == "local" else Column.LOCAL))
    if baseline is not None:
        curves.append((baseline, ModelKind.LOCAL, Column.STANDALONE))
    for run, model, column in curves:
        scores = run.cmc[..., 0] if metric == "rank-1" else run.mean_ap
        percent = 100 * mean_over_clients(scores[..., list(ModelKind).index(model)].T, scored)
        for axes, curve in zip(panels, percent, strict=True):
            known = np.isfinite(curve)
            if known.any():
                axes.plot(
                    run.evaluations[known],
                    curve[known],
                    color=_COLOURS[column],
                    label=_NAMES[column],
                    **_LINES[column],
                )
    panels[0].set_ylim(bottom=0)
    figure.suptitle(f"{results.header.name}: {metric} by round", fontsize="large")
    legend_below(figure, panels)
    return figure


def plot_scores_by_dataset(name: str, table: ScoreTable) -> Figure:
    """Draw bars of rank-1 by dataset: all models."""
    columns = list(table.scores)
    figure = Figure(figsize=(6.4, 1.2 + 0.15 * (len(columns) + 1) * len(table.datasets)))
    axes = figure.subplots()
    height = 0.8 / len(columns)
    for index, column in enumerate(columns):
        positions = np.arange(len(table.datasets)) + (index - (len(columns) - 1) / 2) * height
        percent = 100 * table.scores[column][:, 0]
        bars = axes.barh(
            positions, percent, height=0.92 * height, color=_COLOURS[column], label=_NAMES[column]
        )
        labels = ["" if np.isnan(value) else f"{value:.1f}" for value in percent]
        axes.bar_label(bars, labels=labels, padding=2, fontsize="x-small")
    axes.set_yticks(range(len(table.datasets)), table.datasets)
    axes.margins(x=0.08)
    _order_bars(axes, len(table.datasets))
    axes.set_xlabel("rank-1 (%)")
    figure.suptitle(f"{name}: rank-1 after round {table.round}", fontsize="large")
    legend_below(figure, [axes])
    return figure


def plot_losses(results: RunResults) -> Figure:
    """Draw training loss by round, one panel per client, the other clients in grey behind it."""
    figure, panels = _panels([client.name for client in results.header.clients], "mean training loss")
    losses = np.where(np.isfinite(results.loss), results.loss, np.nan)
    for client, axes in enumerate(panels):
        others = np.delete(losses, client, axis=1)
        axes.plot(results.rounds, others, color="#d9d9d9", linewidth=0.8)
        axes.plot(results.rounds, losses[:, client], color=_COLOURS[Column.GLOBAL], marker="o")
    panels[0].set_ylim(bottom=0)
    figure.suptitle(
        f"{results.header.name}: training loss by round (grey: the other clients)", fontsize="large"
    )
    return figure


def plot_seconds(results: RunResults) -> Figure:
    """Draw where the time went: training by client, and all of it by phase."""
    clients = results.header.clients
    figure = Figure(figsize=(8.4, 1.4 + 0.27 * max(len(clients), len(results.phases))))
    left, right = figure.subplots(1, 2)
    trained = [client for client in clients if np.isfinite(results.seconds[:, client.id]).any()]
    seconds = results.seconds[:, [client.id for client in trained]]
    mean = np.nanmean(seconds, axis=0)
    spread = np.stack([mean - np.nanmin(seconds, axis=0), np.nanmax(seconds, axis=0) - mean])
    left.barh(
        [client.name for client in trained],
        mean,
        xerr=spread,
        color=_COLOURS[Column.GLOBAL],
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    left.set_xlabel("seconds per round: mean, minimum and maximum")
    left.set_title("training, by client")
    totals = dict(zip(results.phases, np.nansum(results.phase_seconds, axis=0).tolist(), strict=True))
    parts = shares(totals)
    bars = right.barh(
        [phase for phase, _ in parts], [totals[phase] for phase, _ in parts], color=_COLOURS[Column.LOCAL]
    )
    right.bar_label(bars, labels=[f"{share:.0%}" for _, share in parts], padding=2)
    right.margins(x=0.12)
    right.set_xlabel("seconds in the whole run")
    right.set_title("all rounds, by phase on the server")
    for axes in (left, right):
        _order_bars(axes, max(len(trained), len(results.phases)))
    figure.suptitle(f"{results.header.name}: where the time went", fontsize="large")
    return figure


def _panels(titles: Sequence[str], y_label: str) -> tuple[Figure, list[Axes]]:
    """Make a panel each, by round, in about as many rows as columns."""
    return small_multiples(titles, "round", y_label, ceil(sqrt(len(titles))) + 1, (2.5, 1.65))


def _order_bars(axes: Axes, rows: int) -> None:
    """Draw horizontal bars from the top down, as thick as if there were ``rows`` of them."""
    axes.set_ylim(rows - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
