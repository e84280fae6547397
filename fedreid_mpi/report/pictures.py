"""Figures as files of their own."""

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.report.formats import UNDATED, picture_format
from fedreid_mpi.storage.atomic import atomic_write


def rendered(figure: Figure, name: str) -> bytes:
    """Return a figure in one of the formats; the same figure gives the same bytes."""
    memory = io.BytesIO()
    # Publishers refuse fonts of type 3, matplotlib's default in a PDF.
    with matplotlib.rc_context({"svg.hashsalt": "fedreid_mpi", "pdf.fonttype": 42}):
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
