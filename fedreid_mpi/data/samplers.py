"""Which images make up a training batch: an epoch as rows of a client's images, from labels and a stream.

To add a sampler is to write a function and to name it in `SAMPLERS`.
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
"""From the person in each image and the camera that took it, both of shape (images,), the experiment's
``[federation]`` section and a random stream to the batches of one epoch. All that is drawn for an epoch is
drawn before its first batch."""


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

    Each person's images are cut into groups of K. Neighbours are of different cameras, as far as there are
    such: first one image of each camera that saw the person, then a second one of each, and so on. The last
    group is filled up with images of the person from the beginning again; of somebody with fewer than K
    images, each comes several times.

    The groups are dealt to as many batches of P different people as can be filled. What is left over is not
    in this epoch: fewer than P groups, unless somebody has more groups than there are batches. It is drawn
    anew each time. Where there are fewer than P people, all of them are in each batch.

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
        Rows of each batch, shape (min(P, people) · K,), person by person. How many batches there are is no
        matter of chance.
    """
    found, sizes = np.unique(people, return_counts=True)
    by_person = np.split(np.argsort(people, kind="stable"), np.cumsum(sizes)[:-1])
    persons = min(persons, len(found))
    groups = [_in_groups(rows[_mixed(cameras[rows], random)], each) for rows in by_person]
    held = np.array([len(group) for group in groups])
    batches = int(held.sum()) // persons
    while (fit := int(np.minimum(held, batches).sum()) // persons) < batches:
        batches = fit  # nobody is twice in a batch
    dealt = [
        groups[person][random.permutation(held[person])[:batches]]
        for person in random.permutation(len(found))
    ]
    # To each batch in turn: nobody comes to one twice, having no more groups than there are batches.
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
    """Cut a person's images into groups, shape (groups, each); the last one goes on from the beginning."""
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
"""Name in the configuration to what makes the batches of an epoch; at least one, of at least two images. How
many there are, and how large they are, must not depend on the stream."""


def training_batches(
    people: NDArray[np.int64],
    cameras: NDArray[np.int64],
    settings: config.Federation,
    random: np.random.Generator,
) -> Iterator[Rows]:
    """Yield the batches of a client's training in one round.

    They are those of ``local_epochs`` epochs; or, where ``local_iterations`` says so, so many batches of one
    epoch after the other, the last of which may be cut off.
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
