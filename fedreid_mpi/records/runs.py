"""What is known of a run before its first round: clients, the model's tensors, ranks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fedreid_mpi.records.scores import UnseenDataset
from fedreid_mpi.wording import counted


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """One client of the federation: a site with its own images.

    Attributes
    ----------
    id
        From 0, in the order of ``data.archives``. Models are added in this order; ties go to the lower id.
    name
        Name of the dataset, as stored in its archive; with the camera or the share of the people, if the
        client has only those.
    dataset
        Position in ``data.archives`` of the archive with the client's test split; -1 for the pool of all
        images, which has none.
    images
        Number of training images.
    identities
        Number of people among them: the size of the client's private classifier.
    test_images
        Number of query and gallery images; 0 if the client has no test split.
    steps
        Number of batches that it trains on in one round. Not stored.
    """

    id: int
    name: str
    dataset: int
    images: int
    identities: int
    test_images: int
    steps: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse a client that cannot be trained."""
        if self.images < 2 or self.identities < 1:
            raise ValueError(
                f"client {self.name}: {counted(self.images, 'image')} of "
                f"{counted(self.identities, 'identity', 'identities')}"
            )


class Role(StrEnum):
    """Where a tensor of the model belongs; the flat model is laid out in this order."""

    BACKBONE = "backbone"
    EMBEDDING = "embedding"
    STATISTICS = "statistics"
    CLASSIFIER = "classifier"


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """One floating-point tensor of the model and its place in the flat buffer.

    Attributes
    ----------
    name
        Dotted name in the module's ``state_dict``.
    shape, stride
        Of the tensor, in elements.
    offset
        First element in the flat buffer, a multiple of 16 (64 bytes).
    role
        Region of the buffer. All but ``CLASSIFIER`` are shared with the server.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    role: Role

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class RankInfo:
    """One MPI rank, where it runs and what it does; the rows of the table printed at the start."""

    rank: int
    host: str
    role: str
    device: str
    clients: tuple[int, ...]
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What is known of a run before its first round; stored as the archive's attributes.

    Attributes
    ----------
    name, seed
        From the configuration.
    configuration
        The resolved configuration as TOML.
    clients
        In id order.
    ranks
        In rank order (volatile).
    versions
        Library name to version (volatile).
    git_commit
        Commit of the package's source where it is a git checkout, else an empty string (volatile).
    parameters
        Number of floating-point values that a client shares with the server.
    attempt
        1 for the first start of a run (volatile).
    unseen
        Datasets that nobody trains on, in id order.
    git_dirty
        Whether files of the package were changed since that commit (volatile).
    source_digest
        Digest of the package's source; empty in archives from before there was one (volatile).
    """

    name: str
    seed: int
    configuration: str
    clients: tuple[ClientSpec, ...]
    ranks: tuple[RankInfo, ...]
    versions: Mapping[str, str]
    git_commit: str
    parameters: int
    attempt: int = 1
    unseen: tuple[UnseenDataset, ...] = ()
    git_dirty: bool = False
    source_digest: str = ""
