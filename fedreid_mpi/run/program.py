"""Which code a run uses: its commit if it is a checkout, and in any case a digest of its source."""

import hashlib
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
"""Folder of the package's source."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """What git says of the package's source.

    Attributes
    ----------
    commit
        Empty where the source is no checkout.
    dirty
        Whether files of the package were changed, added or removed since.
    """

    commit: str = ""
    dirty: bool = False


NO_CHECKOUT = Checkout()


def read_checkout(folder: Path = PACKAGE) -> Checkout:
    """Ask git about the package's source; to be called before MPI starts, as it forks.

    A folder within another project's checkout, an environment for instance, is not part of it.
    """
    try:
        if not _git(folder, "ls-files", "--", "."):
            return NO_CHECKOUT
        return Checkout(_git(folder, "rev-parse", "HEAD"), bool(_git(folder, "status", "--porcelain", ".")))
    except (OSError, subprocess.CalledProcessError):
        return NO_CHECKOUT


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=True
    ).stdout.strip()


@cache
def source_digest(folder: Path = PACKAGE) -> str:
    """Return the digest of all Python files below a folder, as the package was when it was first asked for.

    Returns
    -------
    str
        SHA-256, hexadecimal, of a line per file, sorted by path: the file's own SHA-256, two spaces, and its
        path below the folder with ``/``; what ``sha256sum`` prints.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    lines = [f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
