"""The size of images, as a command takes it."""

import re
from collections.abc import Callable
from typing import Any

import click


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Parse height and width, e.g. ``256x128``."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"'{value}' is not HEIGHTxWIDTH in pixels, e.g. 256x128", context, parameter)
    return int(match[1]), int(match[2])


def size_option(words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--size``, height and width in pixels; its help says of what."""
    return click.option(
        "--size", metavar="HxW", callback=parse_size, default="256x128", show_default=True, help=words
    )
