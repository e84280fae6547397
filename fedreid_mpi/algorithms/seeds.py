"""All randomness of a run comes from here: one seed, split by purpose.

A stream is named by what it is for (``"train"``, round, client), never by who computes it (rank, process,
device). That is why a run gives the same bits on any number of ranks.
"""

import hashlib

import numpy as np


def derive(seed: int, *path: str | int) -> int:
    """Derive the seed of the stream named by ``path``.

    Parameters
    ----------
    seed
        The run's seed.
    *path
        What the stream is for, e.g. ``("train", round, client)``.

    Returns
    -------
    int
        A seed in [0, 2**63), the same on every machine and in every release of Python and NumPy.
    """
    # Words are quoted and numbers are not, so the word "3" and the number 3 name different streams.
    name = "/".join(repr(part) if isinstance(part, str) else str(int(part)) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator of the stream named by ``path``; see `derive`."""
    return np.random.default_rng(derive(seed, *path))
