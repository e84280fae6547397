"""What long work calls as it goes on."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called by long work with the number of items just finished; the command line draws a bar from it."""

Heartbeat = Callable[[], None]
"""Called by long work between two batches; raises `Abandoned` if the round is to be abandoned."""


def no_heartbeat() -> None:
    """Do nothing: the heartbeat of work that no other rank waits for."""
