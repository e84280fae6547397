"""Signals that end a command: it ends as by a Ctrl-C, and takes its temporary files with it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let TERM, and HUP of a lost terminal, interrupt the block once; what follows may not disturb its end.

    A signal that was ignored from the start, as `nohup` has it, stays so. `train` and `study` heed signals in
    their own way while they run.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
