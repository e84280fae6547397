"""Masks that hide each client rank's sum from the server, and cancel in the sum of all.

Two ranks that are partners share a key; it gives both the same stream of 64-bit integers, which the one adds
to its sum and the other subtracts, modulo 2^64. Who knows none of a rank's keys sees uniform random
integers; the sum over all ranks is that of the sums without masks, to the bit, as long as it fits 64 bits.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017,
section 4, without its secret sharing. Partners form a ring in which each is joined to its nearest k (Harary,
"The maximum connectivity of a graph", 1962): if fewer than k leave, the rest stays connected; with
the keys of fewer than k ranks nothing is learned of the others but their sum (Bell et al., CCS 2020, have the
argument for random graphs).

Key agreement (X25519), derivation (HKDF with SHA-256) and stream (ChaCha20) are those of the package
cryptography.
"""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

TILE = 1 << 15
"""Elements that are masked at a time: with the stream they stay in the second-level cache."""

KEY_BYTES = 32


def partners_of(place: int, count: int, neighbours: int) -> tuple[int, ...]:
    """Return the places that share masks with one.

    Parameters
    ----------
    place
        From 0.
    count
        How many there are in the ring.
    neighbours
        Partners of each, an even number; 0, or as many as there are others: all.

    Returns
    -------
    tuple of int
        Ascending. Who is a partner of whom is mutual.
    """
    if not 0 < neighbours < count - 1:
        return tuple(other for other in range(count) if other != place)
    reach = neighbours // 2
    return tuple(sorted((place + step) % count for step in range(-reach, reach + 1) if step))


def mask_key(own: X25519PrivateKey, other: bytes, purpose: str) -> bytes:
    """Derive the key of one vector's mask, the same for both partners.

    Parameters
    ----------
    own
        A rank's private key.
    other
        Its partner's public key, 32 bytes.
    purpose
        Names the vector; no two vectors that are masked with the same pair of keys may share it.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ValueError
        If the public key is none.
    """
    secret = own.exchange(X25519PublicKey.from_public_bytes(other))
    first, second = sorted((own.public_key().public_bytes_raw(), other))
    context = b"\0".join((b"fedreid_mpi mask", first + second, purpose.encode()))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=context).derive(secret)


def mask(total: NDArray[np.uint64], keys: Sequence[tuple[bytes, bool]]) -> None:
    """Mask a sum, in place.

    Parameters
    ----------
    total
        Shape (elements,), uint64, contiguous: a sum of integers modulo 2^64.
    keys
        Of each partner: the key of this vector, and whether its stream is added or subtracted. Each key
        must be used for one vector only.
    """
    # The nonce is fixed, as no key is used twice.
    streams = [(Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor(), added) for key, added in keys]
    nothing, stream = bytes(8 * TILE), np.empty(TILE, np.dtype("<u8"))
    for start in range(0, len(total), TILE):
        part = total[start : start + TILE]
        drawn = stream[: len(part)]
        for cipher, added in streams:
            cipher.update_into(nothing[: drawn.nbytes], drawn.view(np.uint8).data)
            (np.add if added else np.subtract)(part, drawn, out=part)
