"""``fedreid-mpi results watch``: a running job in the terminal, read from its archive."""

from __future__ import annotations

import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import plain_console
from fedreid_mpi.errors import DataError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedreid_mpi.results import RunResults

BARS = "▁▂▃▄▅▆▇█"
CURVE = 20
"""Most characters of a curve."""

PATIENCE = 3
"""Attempts at reading an archive of which a file was just replaced."""

ENDS = ("done", "failed", "interrupted")


@click.command("watch")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two updates.",
)
@click.option("--once", is_flag=True, help="Print the current status and end.")
def command(run_dir: Path, every: float, once: bool) -> None:
    """Follow the run in RUN_DIR, from a login node for instance, until its job ends.

    One row per dataset shows rank-1 and mAP of the global model (or of standalone ones) in percent,
    and how they developed over the evaluated rounds; below is the training loss. The folder is only read, and
    a file only when it has changed, so the job is neither disturbed nor delayed. Ctrl-C ends it.
    """
    from rich.live import Live

    if once:
        plain_console().print(_render(_read(run_dir), _state(run_dir)))
        return
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: no such run directory")
    seen: object = None
    view: RenderableType = f"{run_dir}: waiting for the first round"
    with Live(view, console=plain_console(), auto_refresh=False) as live:
        while True:
            state = _state(run_dir)
            now = (_fingerprint(run_dir), state)
            if now != seen:
                try:
                    results = _read(run_dir)
                    view, seen = _render(results, state), now
                except DataError as error:  # nothing yet, or just being replaced: keep what was shown
                    results = None
                    if seen is None:
                        view = f"{run_dir}: waiting for the first round ({error})"
                live.update(view, refresh=True)
                if state in ENDS:
                    return
                complete = results is not None and _is_complete(results)
                if complete and state is None and _state(run_dir) is None:
                    return  # no job reports its status, nor has one begun to while the results were read
            time.sleep(every)


def _read(run_dir: Path) -> RunResults:
    """Read a run; a file that vanishes or is replaced meanwhile is read anew."""
    from fedreid_mpi.results import read_run

    for attempt in range(PATIENCE):
        try:
            return read_run(run_dir)
        except DataError:
            if attempt + 1 == PATIENCE:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


def _state(run_dir: Path) -> str | None:
    from fedreid_mpi.results.summary import read_state

    return read_state(run_dir)


def _fingerprint(run_dir: Path) -> tuple[tuple[str, int, int], ...]:
    """Identify the archive's files by name, time and size; one that vanishes meanwhile has none."""
    from fedreid_mpi.results.segments import find_segments

    found = []
    try:
        for segment in find_segments(run_dir):
            status = segment.path.stat()
            found.append((segment.path.name, status.st_mtime_ns, status.st_size))
    except (OSError, DataError):
        return ()
    return tuple(found)


def _is_complete(results: RunResults) -> bool:
    """Return whether the last round is there: the end of a run whose status no job reports."""
    rounds = results.settings.get("run", {}).get("rounds")
    return bool(results.rounds.size) and results.rounds[-1] == rounds


def _render(results: RunResults, state: str | None) -> RenderableType:
    """Draw a run as a table with curves."""
    import numpy as np
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from fedreid_mpi.records import ModelKind
    from fedreid_mpi.report.score_table import METRICS, dataset_scores

    run = results.header
    rounds = results.settings.get("run", {}).get("rounds", "?")
    reached = results.rounds[-1] if results.rounds.size else "–"
    title = f"{run.name} · seed {run.seed} · {state or 'state unknown'} · round {reached}/{rounds}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("dataset", overflow="fold")
    for heading in ("rank-1", "mAP"):
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    model = ModelKind.LOCAL if results.mode == "local" else ModelKind.GLOBAL
    datasets = results.datasets
    curves = np.array([dataset_scores(results, round, model) for round in results.evaluations.tolist()])
    curves = curves.reshape(-1, len(datasets), len(METRICS))
    for row, dataset in enumerate(datasets):
        if dataset.test_images:
            cells = []
            for metric in (METRICS.index("rank-1"), METRICS.index("mAP")):
                curve = 100 * curves[:, row, metric]
                last = curve[-1] if curve.size else np.nan
                cells += [f"{last:.1f}" if isfinite(last) else "–", sparkline(curve.tolist(), 0)]
            table.add_row(dataset.name, *cells)
    parts: list[RenderableType] = [Text(title), table]
    losses = results.mean_loss
    if means := losses[np.isfinite(losses)].tolist():
        parts.append(Text(f"  training loss {means[-1]:.3f}  {sparkline(means)}"))
    seconds = np.nansum(results.phase_seconds, axis=1)[results.rounds > 0]
    if seconds.size:
        parts.append(Text(f"  {np.mean(seconds[-10:]):.1f} s per round"))
    parts += [Text(f"  round {event.round}, {event.kind}: {event.text}") for event in results.events[-3:]]
    return Group(*parts)


def sparkline(values: list[float], least: float | None = None) -> str:
    """Draw a curve in a line of text, NaN as a blank.

    Parameters
    ----------
    values
        One a character; of more than `CURVE` every n-th, the last among them.
    least
        What the lowest bar means; the smallest of the values if None.
    """
    step = -(-len(values) // CURVE)
    values = values[::-1][::step][::-1] if values else []
    known = [value for value in values if isfinite(value)]
    if not known:
        return ""
    low, high = min(known) if least is None else least, max(known)
    width = (high - low) or 1.0
    return "".join(
        BARS[min(int((value - low) / width * len(BARS)), len(BARS) - 1)] if isfinite(value) else " "
        for value in values
    )
