"""Before a run: do all ranks run one program, on the same files, each on its own GPU? Nodes may differ."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fedreid_mpi import __version__
from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.config import Compute
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.device import choose_device, gpu_id
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.run.program import source_digest
from fedreid_mpi.wording import counted

LIBRARIES = ("torch", "numpy", "torchvision", "timm")
"""What must be of one version besides this package: another may build other networks, or compute other last
bits."""


@dataclass(frozen=True, slots=True)
class View:
    """What a rank found, one word a question, and on which host; it should find the same as the server."""

    host: str
    found: tuple[str, ...]


def version_of(library: str) -> str:
    """Return the version of a library, or that it is not installed, as may be with an extra."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "(not installed)"


def require_same_program(comm: Communicator) -> None:
    """Refuse ranks that run other code or versions; called on every rank, before anything else is sent.

    Raises
    ------
    PhaseError
        On every rank, naming the first that differs.
    """
    names = ("fedreid_mpi", "fedreid_mpi's source", *LIBRARIES)

    def differs(rank: str, which: int, found: str, expected: str) -> Exception:
        return ConfigurationError(
            f"{rank} runs {names[which]} {found}, expected {expected} as on the server: "
            "all nodes need one environment"
        )

    found = comm.phase("versions", lambda: (__version__, source_digest(), *map(version_of, LIBRARIES)))
    _require_agreement(comm, "versions", found, differs)


def require_same_files(
    comm: Communicator,
    run_dir: Path,
    paths: Sequence[Path],
    opened: Sequence[DatasetArchive | DataError],
) -> None:
    """Refuse ranks that see another run directory or other archives; called on every rank.

    Parameters
    ----------
    comm
        The ranks.
    run_dir
        Made by the server. It leaves a file there for a moment, which every rank must see.
    paths, opened
        All archives that are used, and each as this rank finds it.

    Raises
    ------
    PhaseError
        On every rank, naming the first that differs.
    """
    token = run_dir / comm.decide("run directory", lambda: f".shared-{secrets.token_hex(8)}.tmp")

    def differs(rank: str, which: int, found: str, expected: str) -> Exception:
        if which == 0:
            return ConfigurationError(
                f"--run-dir {run_dir}: for {rank} {found}, expected a folder that all nodes share"
            )
        path = paths[which - 1]
        return DataError(f"{path}: {rank} finds {found}, expected {expected} as the server")

    try:
        comm.phase("run directory", token.touch if comm.is_server else lambda: None)
        found = comm.phase("archives", lambda: (_look(token), *map(_digest, paths, opened)))
    finally:
        if comm.is_server:
            token.unlink(missing_ok=True)
    _require_agreement(comm, "archives", found, differs)


def bind_device(comm: Communicator, settings: Compute) -> torch.device:
    """Choose this rank's device; called on every rank.

    Raises
    ------
    PhaseError
        On every rank, if one finds no GPU where it needs one, or client ranks would share one and must not.
    """
    where = comm.location
    device = comm.phase("device", lambda: choose_device(settings, where.index, where.count, where.host))
    require_own_gpus(comm, device, settings.share_gpus)
    return device


def require_own_gpus(comm: Communicator, device: torch.device, share: bool) -> None:
    """Refuse client ranks that share a GPU, unless they may; called on every rank.

    Parameters
    ----------
    comm
        The ranks.
    device
        This rank's.
    share
        ``compute.share_gpus``.

    Raises
    ------
    PhaseError
        On every rank, naming those that do.
    """
    mine = View(comm.location.host, (comm.phase("device", lambda: gpu_id(device)),))
    views = comm.gather(mine) or []

    def compare() -> None:
        for node in dict.fromkeys(view.host for view in views):
            found = [(views[rank].found[0], rank) for rank in comm.client_ranks if views[rank].host == node]
            used = [gpu for gpu, _ in found if gpu]
            if len(set(used)) < len(used):
                most = max(used, key=used.count)
                ranks = " and ".join(str(rank) for gpu, rank in found if gpu == most)
                raise ConfigurationError(
                    f"{node} has {counted(len(set(used)), 'GPU')} for "
                    f"{counted(len(used), 'client rank')}; start fewer, or set "
                    f"compute.share_gpus = true (ranks {ranks} are on {most})"
                )

    comm.decide("device", (lambda: None) if share else compare)


def _look(token: Path) -> str:
    """Describe what a rank makes of the run directory."""
    try:
        token.stat()
    except FileNotFoundError:
        return "it is not the server's folder"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    writable = os.access(token.parent, os.W_OK, effective_ids=True)
    return "it can be written" if writable else "it cannot be written"


def _digest(path: Path, archive: DatasetArchive | DataError) -> str:
    """Return the content digest of an archive, or what is wrong with it."""
    if isinstance(archive, DataError):
        return str(archive).removeprefix(f"{path}: ")
    return f"content digest {archive.content_digest}"


def _require_agreement(
    comm: Communicator,
    name: str,
    found: Sequence[str],
    differs: Callable[[str, int, str, str], Exception],
) -> None:
    """Compare what each rank found with what the server did, on the server."""
    views = comm.gather(View(comm.location.host, tuple(found)))
    comm.decide(name, partial(_compare, views or (), differs))


def _compare(views: Sequence[View], differs: Callable[[str, int, str, str], Exception]) -> None:
    for rank, view in enumerate(views):
        for which, (one, other) in enumerate(zip(view.found, views[0].found, strict=True)):
            if one != other:
                raise differs(f"rank {rank} on {view.host}", which, one, other)
