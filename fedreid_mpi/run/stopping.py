"""Ending a run early and in order: signals, the STOP file, a time limit."""

import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fedreid_mpi.errors import Abandoned, ConfigurationError

STOP_FILE = "STOP"

GO_ON, AFTER_ROUND, AT_ONCE = range(3)
"""What a rank may ask for: to continue, to stop after the round, to abandon the round between two batches."""

MARGIN = 30.0
"""Seconds before a time limit, or a tenth of it if that is less, in which nothing is begun."""

SLACK = 1.25
"""A round may take this much longer than the longest of the last ones."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")
_UNITS = (86400, 3600, 60, 1)


@dataclass(frozen=True, slots=True)
class StopRequest:
    """What a rank asks for, and why."""

    level: int = GO_ON
    reason: str = ""


class StopController:
    """What asks this process to end its run early.

    Signals set a request on the rank that they reach; the server hears of it between two rounds, and all
    ranks stop together. The STOP file and the clock are looked at by the server alone.

    Parameters
    ----------
    seconds
        Time limit from now on; None: none. Only the server's counts.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._margin = 0.0 if seconds is None else min(MARGIN, seconds / 10)
        self._abandon_at: float | None = None
        self._signalled = StopRequest()
        self._interrupts = 0
        self._tell: Callable[[str], None] = lambda _: None

    @contextmanager
    def listening(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Heed signals while the block runs; only the main thread can.

        USR2 and a first INT stop after the round; TERM, HUP and a second INT abandon it; a third INT is an
        ordinary KeyboardInterrupt. A HUP that was ignored from the start, as `nohup` has it, stays so.

        Parameters
        ----------
        tell
            Called with what an INT, a user's Ctrl-C, will do; within a signal handler.
        """
        self._tell = tell
        heeded = [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            heeded.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._heed) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        level = AT_ONCE if number in (signal.SIGTERM, signal.SIGHUP) else AFTER_ROUND
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 2:
                raise KeyboardInterrupt
            level = self._interrupts
            what = ("finishing the round", "abandoning the round")[level - 1]
            self._tell(f"interrupt: {what}; once more to {('abandon it', 'end at once')[level - 1]}")
        if level > self._signalled.level:
            self._signalled = StopRequest(level, f"signal {signal.Signals(number).name}")

    @property
    def request(self) -> StopRequest:
        """What this rank asks for, and why."""
        if self._signalled.level < AT_ONCE and self._is_late():
            return StopRequest(AT_ONCE, "time limit: the round took too long")
        return self._signalled

    @property
    def abandon_requested(self) -> bool:
        """Whether this rank asks for the round to be abandoned."""
        return self.request.level == AT_ONCE

    def _is_late(self) -> bool:
        return self._abandon_at is not None and time.monotonic() > self._abandon_at

    def begin_round(self, seconds: float | None) -> None:
        """Note that the round has to be abandoned after some seconds; None: it has all the time there is."""
        self._abandon_at = None if seconds is None else time.monotonic() + seconds

    def seconds_left(self) -> float | None:
        """Return the seconds until a round has to be abandoned, by the time limit; None: there is none."""
        return None if self._end is None else self._end - self._margin - time.monotonic()

    def reason_to_stop(self, run_dir: Path, requests: Sequence[StopRequest], lengths: Sequence[float]) -> str:
        """Return why the next round is not to be begun; empty: it is.

        Parameters
        ----------
        run_dir
            Where the STOP file is looked for.
        requests
            Of all ranks, in rank order.
        lengths
            Seconds that each of the last rounds took.
        """
        if reason := strongest(requests):
            return reason
        if (run_dir / STOP_FILE).exists():
            return f"the file {STOP_FILE}"
        left, needed = self.seconds_left(), SLACK * max(lengths, default=0.0)
        if left is not None and left <= needed:
            return f"time limit: {max(left, 0):.0f} s left, a round may take {needed:.0f} s"
        return ""


def strongest(requests: Sequence[StopRequest]) -> str:
    """Return the reason for the strongest request, that of the lowest rank; empty if none asks to stop."""
    rank = max(range(len(requests)), key=lambda rank: requests[rank].level)
    request = requests[rank]
    if request.level == GO_ON:
        return ""
    return f"{request.reason} (rank {rank})" if len(requests) > 1 else request.reason


def heartbeat_or_abandon(heartbeat: Callable[[], bool], stop: StopController) -> None:
    """Give a sign of life between two batches.

    Parameters
    ----------
    heartbeat
        `Communicator.heartbeat`.
    stop
        What this rank's own process is asked for.

    Raises
    ------
    Abandoned
        Some rank asks for the round to be abandoned.
    """
    if heartbeat() or stop.abandon_requested:
        raise Abandoned


def parse_duration(text: str) -> float:
    """Return seconds: ``90``, ``2h30m``, ``HH:MM:SS`` or ``D-HH:MM:SS``, as SLURM writes its limits.

    Raises
    ------
    ConfigurationError
        It is none of these, or is zero.
    """
    text = text.strip()
    match = _CLOCK.fullmatch(text) or _DURATION.fullmatch(f"{text}s" if text.isdecimal() else text)
    parts = match.groups(default="0") if match else ()
    seconds = sum(int(part) * unit for part, unit in zip(parts, _UNITS, strict=False))
    if not seconds:
        raise ConfigurationError(
            f"--time-limit '{text}': expected seconds, or a time like 2h30m, 02:30:00 or 1-02:30:00, "
            "above zero; without the option there is no limit but SLURM's"
        )
    return float(seconds)


def seconds_left_of_job(environment: Mapping[str, str]) -> float | None:
    """Return the seconds that SLURM leaves this job; None where it sets no limit or there is no SLURM."""
    end = environment.get("SLURM_JOB_END_TIME", "")
    return max(float(end) - time.time(), 1.0) if end.isdecimal() else None
