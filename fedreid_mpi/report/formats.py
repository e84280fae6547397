"""The formats of figures as files of their own: PNG, PDF or SVG, by the ending of the name."""

from pathlib import Path

from fedreid_mpi.errors import ConfigurationError

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
