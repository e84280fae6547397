"""Splitting a dataset of two cameras that has no official split: VIPeR and CUHK01."""

from collections.abc import Sequence
from pathlib import Path

from fedreid_mpi.data.readers.base import BENCHMARK, Choices, Listing
from fedreid_mpi.data.readers.split_files import (
    assign_identities,
    cite,
    read_identity_split,
    read_image_lists,
)
from fedreid_mpi.data.readers.views import View, halve, people_in
from fedreid_mpi.data.splits import draw_training, generator, sample_half


def split_two_cameras(
    root: Path, views: Sequence[View], choices: Choices, dataset: str, trained: int | None = None
) -> Listing:
    """Split people into those to train on and those to test: drawn, or from a user's file.

    The benchmark's one split comes from a ``split.json`` with its ``meta.json``, others from lists of images.

    Parameters
    ----------
    root
        The dataset's folder, for messages.
    views
        All its images, of cameras 0 and 1.
    choices
        What the user chose.
    dataset
        Whose splits are drawn.
    trained
        Number of people to train on; half of them if None.
    """
    if choices.split_file is not None:
        notes = (cite(choices.split_file),)
        if choices.splits == BENCHMARK:
            split = read_identity_split(choices.split_file)
            return Listing((assign_identities(split, root, views),), notes=notes)
        return Listing(read_image_lists(choices.split_file, root, views), notes=notes)
    people = people_in(views)
    if choices.splits == BENCHMARK:
        draws = [sample_half(people, generator(choices.seed, dataset, "identities"))]
    else:
        number = len(people) // 2 if trained is None else trained
        draws = draw_training(people, number, choices.seed, dataset, choices.splits)
    return Listing(tuple(halve(views, training) for training in draws), drawn=True)
