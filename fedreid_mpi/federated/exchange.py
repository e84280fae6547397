"""The model exchange: one model out to all, many models in, features to whoever scores them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.algorithms.averaging import weighted_average
from fedreid_mpi.comm.contract import Communicator

CHUNK = 256 * 1024
"""Elements of each model that travel at a time: 1 MiB stays in the cache while it is added."""


def distribute(comm: Communicator, model: Tensor) -> None:
    """Overwrite every rank's vector with the server's, in place.

    Parameters
    ----------
    comm
        Its rank 0 holds the model.
    model
        Shape (elements,), float32, on any device.
    """
    host = model.detach().cpu().numpy()
    comm.broadcast_rows(host, "models")
    if model.device.type != "cpu" and not comm.is_server:
        model.copy_(torch.from_numpy(host))


def aggregate(
    comm: Communicator,
    placement: Sequence[Sequence[int]],
    updates: Mapping[int, Tensor],
    weights: Mapping[int, float],
    length: int,
    kind: str = "models",
) -> NDArray[np.float32] | None:
    """Average the clients' vectors on the server, in client-id order whoever holds them.

    The average is `weighted_average` of each chunk. As that works element by element in a fixed order, the
    result has the same bits for any number of ranks, any placement and any chunk.

    Parameters
    ----------
    comm
        The ranks.
    placement
        Ids of the clients on each rank; known to all.
    updates
        This rank's clients: id to vector of shape (length,), float32, on any device.
    weights
        Id to weight of the clients that count; known to all. The others' vectors do not travel.
    length
        Elements in a vector.
    kind
        Under which the bytes are counted.

    Returns
    -------
    ndarray or None
        Shape (length,), float32, on the server; None elsewhere.
    """
    senders = [[client for client in clients if client in weights] for clients in placement]
    arriving = [client for clients in senders for client in clients]
    order = sorted(range(len(arriving)), key=arriving.__getitem__)
    ordered_weights = [weights[arriving[position]] for position in order]
    vectors = [updates[client].detach().cpu().numpy() for client in senders[comm.rank]]
    average = np.empty(length, np.float32) if comm.is_server else None
    counts = [len(clients) for clients in senders]
    for part, chunks in comm.stream_to_server(vectors, counts, length, CHUNK, kind):
        if average is not None:
            ordered = [chunks[position] for position in order]
            weighted_average(ordered, ordered_weights, out=average[part])
    return average


def collect_features(
    comm: Communicator,
    pieces: Mapping[int, Tensor],
    owners: Sequence[int],
    sizes: Sequence[int],
    width: int,
    root: int,
) -> NDArray[np.float32] | None:
    """Put together on one rank the features that several ranks extracted.

    Parameters
    ----------
    comm
        The ranks.
    pieces
        This rank's pieces: number of the piece to features of shape (images, width), float32.
    owners, sizes
        The rank that has each piece, and how many images are in it; known to all.
    width
        Length of a feature.
    root
        The rank that receives them.

    Returns
    -------
    ndarray or None
        Shape (all images, width) in the order of the pieces on ``root``; None elsewhere.
    """
    by_rank = sorted(
        range(len(owners)), key=owners.__getitem__
    )  # stable: in order of the pieces on each rank
    counts = [sum(sizes[n] for n in by_rank if owners[n] == rank) for rank in range(comm.size)]
    mine = [pieces[n].cpu().numpy() for n in by_rank if owners[n] == comm.rank]
    rows = np.concatenate([np.empty((0, width), np.float32), *mine])
    gathered = comm.gather_rows(rows, counts, root, "features")
    if gathered is None:
        return None
    blocks = np.split(gathered, np.cumsum([sizes[n] for n in by_rank])[:-1])
    in_order = dict(zip(by_rank, blocks, strict=True))
    return np.concatenate([in_order[n] for n in range(len(owners))])
