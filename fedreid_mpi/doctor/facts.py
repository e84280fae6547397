"""The values that the doctor gathers; bytes are bytes, seconds are seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedreid_mpi.comm import Library


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What one rank finds around itself.

    Attributes
    ----------
    rank, node
        Its number and the name of its node.
    worker
        Whether it hosts clients: all but the server, or the only one.
    cores, node_cores
        Cores that it may use, and number of those that the node has.
    threads
        ``OMP_NUM_THREADS``, or 0 where it is not set.
    device
        Where it would calculate, e.g. ``cuda:1``, if GPUs may be shared.
    gpus, visible_gpus
        Names of the GPUs that torch sees, and ``CUDA_VISIBLE_DEVICES``.
    node_gpus
        Number of GPUs that the driver of the node knows.
    memory
        Of the node or of the control group that the rank is in, whichever is less.
    shared_memory
        Free in ``/dev/shm``.
    import_seconds, packages
        How long torch took to import, and the type of the file system that it is on.
    versions
        By library; without those that could not be imported.
    missing
        Library and reason, of those that could not be imported.
    gpu_id
        UUID of the GPU that it would calculate on; empty where there is none, or torch does not say.
    """

    rank: int
    node: str
    worker: bool
    cores: tuple[int, ...]
    node_cores: int
    threads: int
    device: str
    gpus: tuple[str, ...]
    visible_gpus: str
    node_gpus: int
    memory: int
    shared_memory: int
    import_seconds: float
    packages: str
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    gpu_id: str = ""


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """What the file system of the run directory can do.

    Attributes
    ----------
    path
        The run directory.
    kind
        Type of the file system, e.g. ``nfs4``.
    free, total
        Space.
    error
        Why nothing can be written there, or empty; the rest is then unknown.
    renames, locks, links, flushes
        Whether a file can replace another in one step, be locked with flock, have a second name; and whether
        a folder can be flushed to the disk.
    unseen_by
        Nodes that do not see what the server writes.
    """

    path: str
    kind: str
    free: int
    total: int
    error: str = ""
    renames: bool = False
    locks: bool = False
    links: bool = False
    flushes: bool = True
    unseen_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The SLURM job, if any: its number, its nodes, and when it ends as far as SLURM tells."""

    id: str
    nodes: int
    end: str


@dataclass(frozen=True, slots=True)
class Report:
    """All facts.

    Attributes
    ----------
    ranks
        In rank order.
    launcher
        Who started the ranks; empty where one process is alone.
    mpirun
        First line of ``mpirun --version``, looked up where no launcher started this; empty without one.
    root
        Whether this is root, and Open MPI's launcher was not told to allow it.
    mpi
        The library, or why none loads.
    problem
        Why the ranks cannot work together, or empty.
    job, storage
        Where they run and where they would write.
    hdf5_locking
        ``HDF5_USE_FILE_LOCKING``.
    """

    ranks: tuple[RankFacts, ...]
    launcher: str
    mpirun: str
    root: bool
    mpi: Library | str
    problem: str
    job: JobFacts | None
    storage: StorageFacts
    hdf5_locking: str
