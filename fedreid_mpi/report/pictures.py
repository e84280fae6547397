"""Figures as files of their own: PNG, PDF or SVG, by the ending of the name."""

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.atomic import atomic_write

UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Formats, and what leaves the date out of them: the same figure is the same bytes."""

ENDINGS = tuple(f".{name}" for name in UNDATED)


def picture_format(path: Path) -> str:
    """Return the format that a picture's name asks for.

    Raises
    ------
    ConfigurationError
        It is none of `ENDINGS`.
    """
    name = path.suffix.lower().removeprefix(".")
    if name not in UNDATED:
        raise ConfigurationError(f"{path}: expected a name that ends in {', '.join(ENDINGS)}")
    return name


def rendered(figure: Figure, name: str) -> bytes:
    """Return a figure in one of the formats; the same figure gives the same bytes."""
    memory = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fedreid_mpi"}):
        figure.savefig(memory, format=name, metadata=UNDATED[name])
    return memory.getvalue()


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's name; the file appears when it is whole.

    Raises
    ------
    ConfigurationError
        The format is not known, or the file cannot be written.
    """
    name = picture_format(path)
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(rendered(figure, name))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error
