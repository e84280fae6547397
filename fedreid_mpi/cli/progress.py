"""What a user sees during a run: who is where, then a bar on a terminal or one line per round."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Console
from rich.table import Table

from fedreid_mpi.cli.console import make_progress
from fedreid_mpi.cli.log import log_table
from fedreid_mpi.records import ModelKind, RoundRecord, RunHeader
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.report.tensorboard import LiveEvents

_LOG = logging.getLogger(__name__)


class RunPrinter:
    """Prints a run's progress; used as a context, so that the bar is gone before an error is printed.

    Parameters
    ----------
    rounds
        Number of rounds that the run has.
    console
        On which the log appears (`fedreid_mpi.cli.log.run_log`).
    standalone
        Whether each client trains alone, so that its own model is no local model of a federation.
    events
        Receives everything as well, if there is one.
    """

    def __init__(
        self, rounds: int, console: Console, standalone: bool = False, events: "LiveEvents | None" = None
    ) -> None:
        self._rounds = rounds
        self._own = "standalone" if standalone else ModelKind.LOCAL
        self._console, self._events = console, events
        shown = console.is_terminal and _LOG.isEnabledFor(logging.INFO)
        self._progress = make_progress(self._console, shown)
        self._bar = self._progress.add_task("round", total=rounds)
        self._began = time.monotonic()
        self._played = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._events is not None:
            self._events.close()

    def started(self, header: RunHeader, notes: Sequence[str]) -> None:
        """Print who is where, and what is special about this start."""
        table = Table(
            title=f"{header.name}: {counted(len(header.clients), 'client')} on "
            f"{counted(len(header.ranks), 'rank')}"
        )
        for column in ("rank", "host", "role", "device", "cores", "clients (training images)"):
            table.add_column(column, justify="right" if column in ("rank", "cores") else "left")
        for rank in header.ranks:
            clients = [header.clients[id] for id in rank.clients]
            names = ", ".join(f"{client.name} ({client.images:,})" for client in clients)
            table.add_row(str(rank.rank), rank.host, rank.role, rank.device, str(len(rank.cores)), names)
        log_table(self._console, table)
        size = 4 * header.parameters / 1e6
        if header.unseen:
            _LOG.info("unseen: %s", ", ".join(dataset.name for dataset in header.unseen))
        _LOG.info("shared model: %s values, %.1f MB per message", f"{header.parameters:,}", size)
        for note in notes:
            _LOG.info("%s", note)
        if self._events is not None:
            self._events.started(header, notes)
        self._began = time.monotonic()
        self._progress.start()

    def finished(self, record: RoundRecord) -> None:
        """Print a round in one line."""
        round = record.plan.round
        words = [f"round {round:>{len(str(self._rounds))}}/{self._rounds}"]
        if reports := [report for report in record.reports if report.finite]:
            seen = [report.images for report in reports]
            loss = np.average([report.loss for report in reports], weights=seen)
            words.append(f"loss {loss:.3f}")
        for kind in ModelKind:
            scores = [evaluation.scores for evaluation in record.evaluations if evaluation.model is kind]
            if scores:
                rank_1 = mean_percent([float(score.cmc[0]) for score in scores])
                mean_ap = mean_percent([score.mean_ap for score in scores])
                model = self._own if kind is ModelKind.LOCAL else kind
                words.append(f"{model} rank-1 {rank_1} mAP {mean_ap}")
        if record.unseen:
            members = Counter(record.groups.values())
            weights = [members[each.group] for each in record.unseen]
            rank_1 = mean_percent([float(each.scores.cmc[0]) for each in record.unseen], weights)
            mean_ap = mean_percent([each.scores.mean_ap for each in record.unseen], weights)
            words.append(f"unseen rank-1 {rank_1} mAP {mean_ap}")
        if record.epsilon is not None:
            words.append(f"ε {record.epsilon:.2f}")
        words.append(f"{sum(record.phase_seconds.values()):.1f} s")
        self._played += round > 0
        if 0 < round < self._rounds:
            left = (time.monotonic() - self._began) / self._played * (self._rounds - round)
            words.append(f"{left / 60:.0f} min left" if left >= 120 else f"{left:.0f} s left")
        unusual = [f"{event.kind}: {event.text}" for event in record.events if event.kind != "resumed"]
        _LOG.log(logging.WARNING if unusual else logging.INFO, "%s", "  ".join((*words, *unusual)))
        phases = (f"{phase} {seconds:.2f} s" for phase, seconds in record.phase_seconds.items())
        _LOG.debug("round %d: %s", round, ", ".join(phases))
        if self._events is not None:
            self._events.finished(record)
        self._progress.update(self._bar, completed=round)


def mean_percent(scores: Sequence[float], weights: Sequence[float] | None = None) -> str:
    """Format a mean in percent; a dash where a score is missing, as means over different datasets mislead."""
    mean = float(np.average(scores, weights=weights))
    return "–" if np.isnan(mean) else f"{100 * mean:.1f}"
