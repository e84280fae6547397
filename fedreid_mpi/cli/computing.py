"""The options of commands that put images through a stored model, and what they set."""

import os
import socket
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fedreid_mpi import config
    from fedreid_mpi.model import ReIDNetwork

MOST_JOBS = 8
"""More threads than this do not decode faster: a fifth of the work needs the interpreter's lock."""

DEVICE = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads."
)
MIRROR = click.option(
    "--mirror/--no-mirror",
    default=True,
    show_default=True,
    help="Whether the feature of an image's mirror image is added to its own.",
)
JOBS = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: min(MOST_JOBS, len(os.sched_getaffinity(0))),
    show_default=f"all cores, at most {MOST_JOBS}",
    help="Threads that decode; the bytes do not depend on it.",
)


def place_networks(compute: "config.Compute", *networks: "ReIDNetwork") -> None:
    """Choose the device of this process, set its arithmetic, and move networks there."""
    from fedreid_mpi.device import choose_device, memory_format, set_arithmetic

    where = choose_device(compute, 0, 1, socket.gethostname())
    set_arithmetic(compute, where)
    for network in networks:
        network.place(where, memory_format(compute, where))
