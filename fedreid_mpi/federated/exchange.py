"""The exchange: one model out to all, one sum per group in, features to the rank that scores them.

It is written against the contract of `comm`, in terms of tensors on any device. Sums go through
`Communicator.reduce_sum`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedreid_mpi.comm.contract import Communicator


def broadcast_model(comm: Communicator, model: Tensor, kind: str = "models") -> None:
    """Overwrite every rank's vector with the server's, in place.

    Parameters
    ----------
    comm
        Its rank 0 holds the model.
    model
        Shape (elements,), float32, on any device.
    kind
        What it is called in the ledger.
    """
    host = model.detach().cpu().numpy()
    comm.broadcast_rows(host, kind)
    if model.device.type != "cpu" and not comm.is_server:
        model.copy_(torch.from_numpy(host))


def send_to_server(comm: Communicator, vector: Tensor | None, host: int, length: int) -> Tensor | None:
    """Send one rank's vector to the server, as it is.

    Parameters
    ----------
    comm
        The ranks; all call this.
    vector
        On rank ``host``: shape (length,), float32, on the host's memory. Ignored elsewhere.
    host
        The rank that has it.
    length
        Elements of the vector.

    Returns
    -------
    Tensor or None
        Shape (length,), float32, on the server; None elsewhere.
    """
    rows = np.empty((0, length), np.float32)
    if comm.rank == host:
        assert vector is not None
        rows = vector.numpy().reshape(1, length)
    gathered = comm.gather_rows(rows, [int(rank == host) for rank in range(comm.size)], 0, "models")
    return None if gathered is None else torch.from_numpy(gathered[0])


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
