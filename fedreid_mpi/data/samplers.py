"""Which images make up a training batch.

A sampler gives the batches of an epoch as rows of a client's images, from their labels and a random stream.
To add one, write a function and list it in `SAMPLERS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi import config

Rows = NDArray[np.int64]
"""Rows of one batch, shape (B,), into a client's images."""

Sampler = Callable[
    [NDArray[np.int64], NDArray[np.int64], config.Federation, np.random.Generator], Iterable[Rows]
]
"""Makes the batches of one epoch.

Its arguments are the person in each image and the camera that took it, both of shape (images,), int64, the
experiment's ``[federation]`` section, and a random stream. Everything that an epoch needs is drawn before its
first batch."""


def epoch_batches(
    images: int, batch_size: int, drop_last: bool, random: np.random.Generator
) -> Iterator[Rows]:
    """Shuffle the images of one epoch and cut them into batches.

    The last, partial batch is used when it holds at least two images (BatchNorm needs two), unless
    ``drop_last``.
    """
    order = random.permutation(images)
    for start in range(0, images, batch_size):
        rows = order[start : start + batch_size]
        if len(rows) == batch_size or (len(rows) >= 2 and not drop_last):
            yield rows


def identity_batches(
    people: NDArray[np.int64],
    cameras: NDArray[np.int64],
    persons: int,
    each: int,
    random: np.random.Generator,
) -> list[Rows]:
    """Make batches of P people with K images each, P × K (Hermans, Beyer and Leibe, 2017, section 2).

    Each person's images are cut into groups of K, in an order that alternates between cameras: first one
    image of each camera that saw the person, then a second one of each, and so on. The last group is filled
    up with the person's first images again; those of somebody with fewer than K images are repeated.

    The groups are dealt to as many batches of P different people as can be filled. The rest, fewer than P
    groups unless somebody has more groups than there are batches, is left out of this epoch, and drawn anew
    for each. If there are fewer than P people, each batch has all of them.

    Parameters
    ----------
    people, cameras
        Of each image, shape (images,); at least one image.
    persons, each
        P and K, at least 1.
    random
        Source of all random choices.

    Returns
    -------
    list of ndarray
        Rows of each batch, shape (min(P, people) · K,), person by person. The number of batches does not
        depend on the stream.
    """
    found, sizes = np.unique(people, return_counts=True)
    by_person = np.split(np.argsort(people, kind="stable"), np.cumsum(sizes)[:-1])
    persons = min(persons, len(found))
    groups = [_in_groups(rows[_mixed(cameras[rows], random)], each) for rows in by_person]
    held = np.array([len(group) for group in groups])
    batches = int(held.sum()) // persons
    while (fit := int(np.minimum(held, batches).sum()) // persons) < batches:
        batches = fit  # no person is twice in a batch
    dealt = [
        groups[person][random.permutation(held[person])[:batches]]
        for person in random.permutation(len(found))
    ]
    # To each batch in turn: no person is in one twice, having no more groups than there are batches.
    slots = np.concatenate(dealt)[: batches * persons]
    return [slots[batch::batches].reshape(-1) for batch in random.permutation(batches)]


def _mixed(cameras: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle a person's images so that cameras take turns, in a random order."""
    order = random.permutation(len(cameras))
    names, camera = np.unique(cameras[order], return_inverse=True)
    turn = random.permutation(len(names))[camera]
    number = np.empty(len(cameras), np.int64)  # of the image among those of its camera
    for name in range(len(names)):
        number[camera == name] = np.arange(np.count_nonzero(camera == name))
    return order[np.lexsort((turn, number))]


def _in_groups(rows: NDArray[np.int64], each: int) -> NDArray[np.int64]:
    """Cut a person's images into groups, shape (groups, each); the last is filled up from the first ones."""
    groups = -(-len(rows) // each)
    return np.resize(rows, (groups, each))


def _shuffled(
    people: NDArray[np.int64],
    cameras: NDArray[np.int64],
    settings: config.Federation,
    random: np.random.Generator,
) -> Iterable[Rows]:
    return epoch_batches(len(people), settings.batch_size, settings.drop_last, random)


def _identities(
    people: NDArray[np.int64],
    cameras: NDArray[np.int64],
    settings: config.Federation,
    random: np.random.Generator,
) -> Iterable[Rows]:
    each = settings.images_per_identity
    return identity_batches(people, cameras, settings.batch_size // each, each, random)


SAMPLERS: Mapping[str, Sampler] = {"shuffled": _shuffled, "identities": _identities}
"""Name in the configuration to the sampler.

It makes at least one batch per epoch, of at least two images. The number of batches and their sizes must not
depend on the stream."""


def training_batches(
    people: NDArray[np.int64],
    cameras: NDArray[np.int64],
    settings: config.Federation,
    random: np.random.Generator,
) -> Iterator[Rows]:
    """Yield the batches of a client's training in one round.

    They are those of ``local_epochs`` epochs. If ``local_iterations`` is set, it is the number of batches
    instead: epoch follows epoch, and the last one may be cut short.
    """
    sampler = SAMPLERS[settings.sampler]
    epochs = (sampler(people, cameras, settings, random) for _ in count())
    if settings.local_iterations:
        return islice(chain.from_iterable(epochs), settings.local_iterations)
    return chain.from_iterable(islice(epochs, settings.local_epochs))


def count_batches(people: NDArray[np.int64], cameras: NDArray[np.int64], settings: config.Federation) -> int:
    """Return how many batches a client trains on in one round."""
    if settings.local_iterations:
        return settings.local_iterations
    random = np.random.default_rng(0)  # what lies in which batch does not matter
    return sum(1 for _ in training_batches(people, cameras, settings, random))
