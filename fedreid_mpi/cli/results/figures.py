"""The formats in which commands write figures."""

from collections.abc import Callable
from typing import Any

import click

from fedreid_mpi.report.formats import UNDATED


def figure_formats(words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--figures``, a command's ``formats``; its help says what is written."""
    return click.option(
        "--figures",
        "formats",
        type=click.Choice([*UNDATED]),
        multiple=True,
        default=("png",),
        show_default=True,
        help=words,
    )
