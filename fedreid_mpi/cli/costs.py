"""What a study costs, as a table: images by method, printed before the first run starts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import WIDTH_ELSEWHERE, plain_console

if TYPE_CHECKING:
    from fedreid_mpi.config import StudyRun
    from fedreid_mpi.errors import FedReIDError
    from fedreid_mpi.run.cost import Cost


def print_costs(runs: "Sequence[StudyRun]", costs: "Mapping[str, Cost | FedReIDError]") -> None:
    """Print how many images the runs train on and score, by method and in all, to the error stream.

    If an archive is missing or cannot be used, the method's row has the error.

    Parameters
    ----------
    runs
        All runs of the suite, finished ones included.
    costs
        Method to its cost, or the error that each of its runs would end with.
    """
    from rich import box
    from rich.table import Table

    from fedreid_mpi.run.cost import Cost

    counts = Counter(run.method for run in runs)
    known = {method: cost for method, cost in costs.items() if isinstance(cost, Cost)}
    if not known:
        click.echo(f"cost unknown: {next(iter(costs.values()))}", err=True)
        return
    labels = {run.method: run.experiment.run.label for run in runs}
    table = Table(title="Images through the network, all seeds together", box=box.SIMPLE)
    table.add_column("method", overflow="fold")
    for column in ("runs", "trained", "scored", "measured"):
        table.add_column(column, justify="right")
    for method, cost in costs.items():
        name = f"{method} ({labels[method]})" if labels[method] else method
        if isinstance(cost, Cost):
            _add_row(table.add_row, name, counts[method], cost)
        else:
            table.add_row(f"{name}: {cost}", str(counts[method]), "?", "?", "?")
    table.add_section()
    what, total = "all" if len(known) == len(costs) else "all others", sum(known.values(), Cost())
    _add_row(table.add_row, what, sum(counts[method] for method in known), total)
    console = plain_console(stderr=True)
    (console if console.is_terminal else plain_console(stderr=True, width=WIDTH_ELSEWHERE)).print(table)


def _add_row(add: Callable[..., None], name: str, runs: int, cost: "Cost") -> None:
    add(name, *(f"{count:,}" for count in (runs, cost.trained, cost.scored, cost.measured)))
