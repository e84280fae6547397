"""How many ranks and nodes an experiment wants."""

from dataclasses import replace

from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import partition
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.slurm.job import Resources
from fedreid_mpi.wording import counted


def count_clients(experiment: Experiment) -> int:
    """Count the clients that train in an experiment.

    Raises
    ------
    DataError
        Clients are cameras, and the archives, which would have to be looked at, cannot be read.
    """
    if experiment.federation.mode == "centralised":
        return 1
    archives = experiment.data.archives
    match experiment.federation.clients:
        case "dataset":
            return len(archives)
        case "identity":
            return len(archives) * experiment.federation.identity_clients
        case "camera":
            return len(partition([DatasetArchive.open(path) for path in archives], experiment))


def fit(experiment: Experiment, resources: Resources) -> Resources:
    """Fill in the numbers of nodes and ranks that were left open: one rank per client, one GPU each.

    With fewer GPUs than clients, a rank hosts several clients.

    Raises
    ------
    ConfigurationError
        The experiment's device and the GPUs that are asked for do not go together, or clients cannot be
        counted.
    """
    gpus, device = resources.gpus_per_node or 0, experiment.compute.device
    if device == "cuda" and not gpus:
        raise ConfigurationError('compute.device is "cuda", expected --gpus-per-node as well')
    if device == "cpu" and gpus:
        offered = counted(gpus, "GPU")
        raise ConfigurationError(f'compute.device is "cpu", which leaves the {offered} per node unused')
    if resources.ranks is not None:
        return replace(resources, nodes=resources.nodes or 1)
    try:
        clients = count_clients(experiment)
    except DataError as error:
        raise ConfigurationError(f"--ranks is needed, as the clients cannot be counted: {error}") from error
    nodes = resources.nodes or (-(-clients // gpus) if gpus else 1)
    return replace(resources, nodes=nodes, ranks=1 + (min(clients, nodes * gpus) if gpus else clients))
