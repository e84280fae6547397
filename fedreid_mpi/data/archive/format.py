"""The dataset archive as a kind of file: its name and version, and what an image in it is for."""

from enum import StrEnum

KIND = "fedreid_mpi dataset"
"""Root attribute ``kind`` of a dataset archive."""

FORMAT_VERSION = 1
"""Root attribute ``format_version``; another one is refused."""


def is_plain(name: str) -> bool:
    """Return whether a dataset's name can be part of a file's name: clients' files and results bear it."""
    return name.isprintable() and not set(name) & set("/\\") and name.strip(". ") != "" and len(name) <= 100


class SplitRole(StrEnum):
    """What an image is for.

    `MULTI_QUERY` images stand in for a query of the same person and camera where scoring asks for several.
    The public dataset has one unlabelled split, `PUBLIC`.
    """

    TRAIN = "train"
    QUERY = "query"
    GALLERY = "gallery"
    MULTI_QUERY = "multi_query"
    PUBLIC = "public"
