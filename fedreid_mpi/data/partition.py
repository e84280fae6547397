"""Who the clients are: datasets, their cameras or shares of their people; or everything in one pool."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.errors import ConfigurationError

POOL = "pool"
"""Name of the client that holds all images, in mode "centralised"."""


@dataclass(frozen=True, slots=True)
class Part:
    """The training images of one client.

    Attributes
    ----------
    name
        Of the client: that of its dataset, with the camera or the share of the people.
    sources
        Number of each archive it draws from, and the indices of its images there, int64, ascending.
    """

    name: str
    sources: tuple[tuple[int, NDArray[np.int64]], ...]

    @property
    def home(self) -> int | None:
        """Number of the archive whose test split is the client's; None for the pool."""
        return self.sources[0][0] if self.name != POOL else None

    @property
    def images(self) -> int:
        """Number of training images."""
        return sum(len(indices) for _, indices in self.sources)


def require_distinct(archives: Sequence[DatasetArchive]) -> None:
    """Refuse archives that cannot be used together.

    A dataset that is there twice, under one path or as a copy, would count its people double. By their names
    clients, rows of tables and model files are distinguished.

    Raises
    ------
    ConfigurationError
        Naming both files.
    """
    contents: dict[str, DatasetArchive] = {}
    names: dict[str, DatasetArchive] = {}
    for archive in archives:
        if (other := contents.setdefault(archive.content_digest, archive)) is not archive:
            raise ConfigurationError(
                f"{archive.path} is the same dataset as {other.path}, expected each once"
            )
        if (other := names.setdefault(archive.name, archive)) is not archive:
            raise ConfigurationError(
                f"{archive.path} and {other.path} are both named {archive.name!r}, expected a name each "
                "(prepare --dataset custom --name)"
            )
        if archive.name == POOL:
            raise ConfigurationError(
                f"{archive.path} is named {POOL!r}, which is what all clients' images are"
            )


def partition(archives: Sequence[DatasetArchive], experiment: Experiment) -> tuple[Part, ...]:
    """Divide the training images among clients, in the order of archives, cameras and shares.

    * ``"dataset"``: a client is a dataset, as gathered by an edge server from its cameras.
    * ``"camera"``: a client is a camera, with the people it has seen.
    * ``"identity"``: the people of a dataset are shuffled and dealt out to ``identity_clients`` clients, to
      compare with as many cameras; sizes differ by one at most.

    In mode ``"centralised"`` one more client, the pool, holds all images in one label space.

    Source: Zhuang et al., ACM MM 2020, section 4.
    """
    whole = [archive.split("train") for archive in archives]
    parts = [part for number, archive in enumerate(archives) for part in _divide(number, archive, experiment)]
    if experiment.federation.mode == "centralised":
        parts.append(Part(POOL, tuple(enumerate(whole))))
    return tuple(parts)


def _divide(number: int, archive: DatasetArchive, experiment: Experiment) -> Iterator[Part]:
    federation, train = experiment.federation, archive.split("train")
    if federation.clients == "dataset":
        yield Part(archive.name, ((number, train),))
    elif federation.clients == "camera":
        for camera in np.unique(archive.camids[train]).tolist():
            yield Part(f"{archive.name}-camera{camera}", ((number, train[archive.camids[train] == camera]),))
    else:
        people = np.unique(archive.pids[train])
        random = generator(experiment.run.seed, "partition", archive.name)
        shares = np.array_split(random.permutation(people), federation.identity_clients)
        for share, members in enumerate(shares, start=1):
            chosen = train[np.isin(archive.pids[train], members)]
            yield Part(f"{archive.name}-share{share}", ((number, chosen),))
