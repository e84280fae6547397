"""Several stored models on several dataset archives: which fit each other, and what each pair scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.archive import DatasetArchive, SplitRole
from fedreid_mpi.data.partition import require_distinct
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.evaluation.features import query_then_gallery
from fedreid_mpi.evaluation.splits import images_to_score
from fedreid_mpi.model import StoredModel
from fedreid_mpi.records import Scores


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is scored.

    Attributes
    ----------
    path
        Its file.
    name
        What it is called among the others.
    stored
        The model.
    """

    path: Path
    name: str
    stored: StoredModel


@dataclass(frozen=True, slots=True)
class Trial:
    """One model on one archive.

    Attributes
    ----------
    candidate, archive
        Of one image size.
    splits
        Numbers of the splits that are scored.
    parts
        Images whose features are needed, as `images_to_score` gives them.
    """

    candidate: Candidate
    archive: DatasetArchive
    splits: tuple[int, ...]
    parts: tuple[NDArray[np.int64], ...]

    def steps(self, rerank: bool) -> int:
        """Count the steps of progress: images that are extracted, queries ranked, images re-ranked."""
        ranked = sum(len(self.archive.split("query", number)) for number in self.splits)
        tested = sum(len(query_then_gallery(self.archive, number)) for number in self.splits)
        return sum(map(len, self.parts)) + ranked + rerank * tested


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial: the scores of each split, by its number."""

    trial: Trial
    scores: Mapping[int, Scores]


def name_models(paths: Sequence[Path]) -> list[str]:
    """Name models after the ends of their paths, as much of them as tells all apart.

    Raises
    ------
    ConfigurationError
        One is given twice.
    """
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigurationError(f"{path} is given twice, expected each model once")
    parts = [path.with_suffix("").parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def is_public(archive: DatasetArchive) -> bool:
    """Return whether all that an archive holds is public: nothing to train on, and nothing to test on."""
    return all(archive.roles(number) == (SplitRole.PUBLIC,) for number in range(archive.splits))


def plan_trials(
    candidates: Sequence[Candidate],
    archives: Sequence[DatasetArchive],
    split: int | None = None,
    multi_query: bool = False,
) -> list[Trial]:
    """Put each model together with the archives of its image size, model by model.

    Parameters
    ----------
    candidates
        The models.
    archives
        With test images.
    split
        The split that is scored; all of them where there is none.
    multi_query
        Whether images of this role are needed.

    Raises
    ------
    ConfigurationError
        A model has two archives of one name.
    DataError
        An archive fits no model, a model no archive, or a split is missing.
    """
    sizes = {(each.stored.height, each.stored.width): each for each in reversed(candidates)}
    for archive in archives:
        if (archive.height, archive.width) not in sizes:
            expected = " or ".join(f"{h}x{w} as in {each.path}" for (h, w), each in reversed(sizes.items()))
            raise DataError(
                f"{archive.path}: images are {archive.height}x{archive.width}, expected {expected}"
            )
    return list(_pairs(candidates, archives, split, multi_query))


def _pairs(
    candidates: Sequence[Candidate],
    archives: Sequence[DatasetArchive],
    split: int | None,
    multi_query: bool,
) -> Iterator[Trial]:
    for each in candidates:
        size = (each.stored.height, each.stored.width)
        fitting = [archive for archive in archives if (archive.height, archive.width) == size]
        if not fitting:
            others = ", ".join(str(archive.path) for archive in archives)
            raise DataError(
                f"{each.path}: takes images of {size[0]}x{size[1]}, and none of {others} has them"
            )
        require_distinct(fitting)
        for archive in fitting:
            splits = tuple(range(archive.splits)) if split is None else (split,)
            parts = tuple(images_to_score(archive, splits, multi_query))
            yield Trial(each, archive, splits, parts)
