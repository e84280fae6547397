"""Federations in this process."""

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.records import no_heartbeat
from fedreid_mpi.run.setup import describe_clients, open_archives, require_open, set_up
from fedreid_mpi.run.state import ResumePoint


def begun(settings, folder):
    """A federation in this process, about to begin."""
    opened = require_open(open_archives(settings, is_server=True))
    specs = describe_clients(settings, opened)
    ids = tuple(range(len(specs)))
    return set_up(
        SingleCommunicator(), settings, opened, specs, folder, ResumePoint(1, -1, (ids,), ids), no_heartbeat
    )
