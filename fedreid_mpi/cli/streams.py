"""The standard streams: what they cannot show, and what becomes of output that cannot be written."""

import errno
import io
import logging
import os
import select
import sys
import warnings
from typing import TYPE_CHECKING, TextIO

from fedreid_mpi.errors import FedReIDError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_REASONS = {errno.EBADF: "is closed", errno.EPIPE: "was closed by its reader"}


class OutputLostError(FedReIDError):
    """Standard output takes no more, and the command has nothing to give but its output."""


class _Sink(io.FileIO):
    """A standard stream's end: what it does not take is an error once, and from then on dropped.

    Parameters
    ----------
    handle
        File descriptor, which stays open.
    needed
        Whether the first loss is an error.
    """

    def __init__(self, handle: int, needed: bool) -> None:
        super().__init__(handle, "w", closefd=False)
        self.needed = needed

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write to the end, waiting where it was set not to block and is full for now.

        Raises
        ------
        OutputLostError
            It takes no more, and was needed.
        """
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            if self.needed:
                self.needed = False
                reason = _REASONS.get(error.errno or 0, f"cannot be written: {error.strerror}")
                raise OutputLostError(f"standard output {reason}") from error
            return memoryview(data).nbytes
        return written


class _Output(io.TextIOWrapper):
    """Text for a sink. What the encoding lacks is shown as a question mark."""

    buffer = None  # type: ignore[assignment]  # or click writes UTF-8 where it takes ASCII for a mistake

    def __init__(self, old: TextIO | None, sink: _Sink) -> None:
        super().__init__(
            io.BufferedWriter(sink),
            encoding=old.encoding if old else "utf-8",
            errors="replace",
            line_buffering=old is None or getattr(old, "line_buffering", True),
            write_through=getattr(old, "write_through", False),
        )
        self.sink = sink


def open_streams() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that fail as this module says.

    A closed descriptor is opened first, so that no file of the program's own takes its number and receives
    what a library prints; to write to it is still an error. Nobody would see errors, so standard
    error is never needed. What libraries warn of is written for developers, and shown where Python was asked
    for warnings (``PYTHONWARNINGS``, ``-W``).
    """
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # takes the lowest free number: this
    sys.stdout = _Output(sys.stdout, _Sink(1, needed=True))
    sys.stderr = _Output(sys.stderr, _Sink(2, needed=False))
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
        logging.getLogger().addHandler(logging.NullHandler())


def outlive_output() -> None:
    """Let this process continue when its output is lost, as its results are in files."""
    if isinstance(sys.stdout, _Output):
        sys.stdout.sink.needed = False


def write_at_once(text: str) -> None:
    """Write to standard error past all buffers, from a signal handler for instance, which may never fail."""
    try:
        os.write(2, text.encode(errors="replace"))
    except OSError:
        return
