"""Features of test images on disk, with what became of each query: for error analysis and plots elsewhere.

For each dataset the file holds a group that is laid out like a dataset archive: each image once, as a row of
``features``, ``pid``, ``camid`` and ``path``; and for each split K a group ``splits/K`` with the rows of each
role and the scores of its queries, in their order. Every axis has a dimension scale, as netCDF wants it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.evaluation import ExtractedFeatures
from fedreid_mpi.evaluation.ranking import Ranking
from fedreid_mpi.storage.atomic import atomic_write
from fedreid_mpi.storage.hdf5.checksum import seal
from fedreid_mpi.storage.hdf5.digest import CONTENT_DIGEST, content_digest
from fedreid_mpi.storage.hdf5.disk import create_hdf5

KIND = "fedreid_mpi features"
FORMAT_VERSION = 2

ROLES = (SplitRole.QUERY, SplitRole.GALLERY, SplitRole.MULTI_QUERY)

_NONE = np.zeros(0, np.int64)


class FeaturesFile:
    """A features file that is being written; made by `write_features`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(self, extracted: ExtractedFeatures, rankings: Mapping[int, Ranking]) -> None:
        """Write one dataset.

        Parameters
        ----------
        extracted
            Features of all images that were needed.
        rankings
            Number of a split to its ranking.
        """
        archive, images = extracted.archive, extracted.images
        group = self._file.create_group(archive.name)
        group.attrs.update(archive=str(archive.path), source_digest=archive.digest)
        features = extracted.features.cpu().numpy()
        numbers, width = np.arange(len(features)), np.arange(features.shape[1], dtype=np.int32)
        image = _put_scale(group, "image", numbers, "Row of each image, from 0")
        feature = _put_scale(group, "feature", width, "Position of each value in a feature, from 0")
        _put(group, "features", features, "Features of each image, of length 1", image, feature)
        _put(group, "pid", archive.pids[images], "Person in each image; -1 is junk", image)
        _put(group, "camid", archive.camids[images], "Camera that took each image", image)
        paths = np.array([archive.paths[image] for image in images], h5py.string_dtype())
        _put(group, "path", paths, "Original file of each image, relative to the dataset's folder", image)
        for number, ranking in rankings.items():
            split = group.create_group(f"splits/{number}")
            for role in ROLES:
                rows = extracted.rows(archive.split(role, number)) if archive.has(role, number) else _NONE
                if (rows >= 0).any():  # multi-query images are there where they were asked for
                    text = f"Images of split {number} used as {role}: rows"
                    _put_scale(split, role, rows[rows >= 0], text)
            query = split[SplitRole.QUERY]
            _put(
                split,
                "average_precision",
                ranking.average_precision,
                "Average precision of each query, by the file's protocol; NaN: no match, or none is defined",
                query,
            )
            _put(
                split,
                "inverse_negative_penalty",
                ranking.inverse_negative_penalty,
                "Matches of each query over the rank of the last one; NaN: no match, or none is defined",
                query,
            )
            _put(
                split,
                "first_match",
                ranking.first_match,
                "Rank of each query's first true match, from 1, averaged over draws; 0: no match",
                query,
            )


@contextmanager
def write_features(
    path: Path, model: Path, made: Mapping[str, str | int | float | bool]
) -> Iterator[FeaturesFile]:
    """Write a features file; it appears when it is whole.

    Parameters
    ----------
    path
        HDF5 file.
    model
        The model that made the features.
    made
        How they became scores, e.g. ``protocol``: stored as root attributes.

    Yields
    ------
    FeaturesFile
        To which each dataset is added when it is done.

    Raises
    ------
    ConfigurationError
        When the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            with create_hdf5(temporary) as (file, _):
                file.attrs.update(kind=KIND, format_version=FORMAT_VERSION, model=str(model))
                for name, value in made.items():  # netCDF knows no truth values
                    file.attrs[name] = np.int8(value) if isinstance(value, bool) else value
                yield FeaturesFile(file)
                file.attrs[CONTENT_DIGEST] = content_digest(file)
            seal(temporary)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _put(group: h5py.Group, name: str, values: ArrayLike, text: str, *scales: h5py.Dataset) -> None:
    """Write a dataset with the scales of its axes."""
    dataset = group.create_dataset(name, data=values)
    dataset.attrs["description"] = text
    for dimension, scale in zip(dataset.dims, scales, strict=True):
        dimension.label = scale.name.rpartition("/")[2]
        dimension.attach_scale(scale)


def _put_scale(group: h5py.Group, name: str, values: ArrayLike, text: str) -> h5py.Dataset:
    """Write a dataset that is the scale of the axis of its name."""
    dataset = group.create_dataset(name, data=values)
    dataset.attrs["description"] = text
    dataset.make_scale(name)
    dataset.dims[0].label = name
    return dataset
