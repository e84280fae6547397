"""``fedreid-mpi submit status``: the queue, the last round, the end that may be expected."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from fedreid_mpi.cli.console import print_table
from fedreid_mpi.cli.submit.options import SUBMITTED, ask
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.slurm import rows
from fedreid_mpi.storage.regular import read_bytes
from fedreid_mpi.storage.run_directory import STATUS_FILE, read_status

RECENT = 10
"""Rounds whose mean length tells how long the rest will take."""

QUEUE = ("squeue", "--noheader", "--me", "--format=%F|%i|%T|%M|%r")
ACCOUNTS = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,Elapsed,ExitCode")


@click.command("status")
@click.argument("folder", metavar="RUN_DIR", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Show the status of a submitted run: its jobs, last round, seconds per round, and when it may end.

    RUN_DIR may also be the folder of a study. The runs are not disturbed.
    """
    from rich.table import Table

    runs = [folder, *sorted(path for path in folder.glob("*/") if path.is_dir())]
    rows = [_standing(run) for run in runs if (run / STATUS_FILE).exists()]
    jobs = _submitted(folder)
    if not rows and not jobs:
        raise DataError(f"{folder}: neither a run nor a study, nor was one submitted with this folder")
    for line in _queue(jobs):
        click.echo(line)
    if not rows:
        click.echo("no run has begun yet")
        return
    table = Table("run", "state", "round", "s/round", "end", "reason")
    for row in rows:
        table.add_row(*row)
    print_table(table)


def _submitted(folder: Path) -> dict[str, str]:
    """Return the numbers of the jobs that were submitted, each with its step."""
    try:
        lines = read_bytes(folder / SUBMITTED).decode(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _queue(jobs: dict[str, str]) -> Iterator[str]:
    """Describe what SLURM knows of the jobs: in the queue, or how they ended where it keeps accounts."""
    try:
        queued = list(rows(ask(QUEUE), 5)) if jobs else []
    except ConfigurationError as error:
        yield f"submitted as {', '.join(jobs)}, but SLURM cannot be asked: {error}"
        return
    for number, step in jobs.items():
        mine = [words for words in queued if words[0] == number]
        for _, name, state, elapsed, reason in mine:
            why = f" ({reason})" if reason != "None" else ""
            yield f"{step}: job {name} {state.lower()}{why}, {elapsed} so far"
        if not mine:
            yield from _ended(number, step)


def _ended(number: str, step: str) -> Iterator[str]:
    try:
        found = list(rows(ask([*ACCOUNTS, f"--jobs={number}"]), 4))
    except ConfigurationError:
        found = []
    for name, state, elapsed, code in found:
        yield f"{step}: job {name} {state.lower()}, exit code {code.partition(':')[0]}, after {elapsed}"
    if not found:
        yield f"{step}: job {number} is no longer in the queue"


def _standing(run_dir: Path) -> Sequence[str]:
    """Fill a row of the table."""
    import numpy as np

    from fedreid_mpi.results import read_run

    status = read_status(run_dir)
    last, rate, end = status.round, "", ""
    if last > 0:
        results = read_run(run_dir)
        recent = results.phase_seconds[results.rounds > 0][-RECENT:]  # NaN: a round without such a phase
        seconds = float(np.nansum(recent, axis=1).mean())
        last, rate = int(results.rounds[-1]), f"{seconds:.1f}"
        if status.state == "running":
            left = seconds * (status.rounds - last)
            end = time.strftime("%a %d %b %H:%M", time.localtime(time.time() + left))
    return run_dir.name, status.state, f"{last} of {status.rounds}", rate, end, status.reason
