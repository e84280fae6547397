"""Secure aggregation: what a client rank does so that its sums leave it masked.

Keys are made anew for every attempt of a round, from the operating system's randomness and not from the
run's seed: masks cancel, so no result depends on them. A lost rank ends the attempt, and those that are left
do the round again with other keys.
"""

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fedreid_mpi.algorithms.masking import mask, mask_key, partners_of
from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.records import GridSum


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a client rank tells the others, for pairs to agree on masks: 64 hexadecimal digits (X25519)."""

    digits: str


@dataclass(frozen=True, slots=True)
class Masks:
    """A client rank's part in the masks of one attempt of a round.

    Attributes
    ----------
    private
        Its key, which never leaves it.
    place
        Its place among the client ranks.
    public
        The public keys of all client ranks, in their order.
    neighbours
        How many of them share masks with each; 0: all.
    """

    private: X25519PrivateKey
    place: int
    public: tuple[bytes, ...]
    neighbours: int
    _used: set[str] = field(default_factory=set)

    def hide(self, total: NDArray[np.int64], purpose: str) -> GridSum:
        """Mask a sum, in its memory.

        Parameters
        ----------
        total
            Shape (elements,), int64; lost.
        purpose
            Names the sum, the same on all ranks.

        Raises
        ------
        RuntimeError
            If a sum of that name was masked before: the difference of two would be seen unmasked.
        """
        if purpose in self._used:
            raise RuntimeError(f"{purpose} masked twice with one key")
        self._used.add(purpose)
        partners = partners_of(self.place, len(self.public), self.neighbours)
        keys = [(mask_key(self.private, self.public[each], purpose), self.place < each) for each in partners]
        hidden = total.view(np.uint64)
        mask(hidden, keys)
        return GridSum(hidden)


def agree_on_masks(comm: Communicator, neighbours: int) -> Masks | None:
    """Let the client ranks exchange public keys, through the server; called on every rank.

    Returns
    -------
    Masks or None
        None on the server, which adds nothing to any sum.
    """
    private = X25519PrivateKey.generate()
    own = None if comm.is_server else PublicKey(private.public_key().public_bytes_raw().hex())
    public = comm.broadcast(tuple(key for key in comm.gather(own) or () if key is not None))
    if comm.is_server:
        return None
    place = comm.client_ranks.index(comm.rank)
    return Masks(private, place, tuple(bytes.fromhex(key.digits) for key in public), neighbours)
