"""Features of test images on disk, with what became of each query: for error analysis and plots elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.algorithms.ranking import Ranking
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.files import replacing

KIND = "fedreid_mpi features"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Features of some images and what is known of each.

    Attributes
    ----------
    features
        Shape (n, width), float32, of length 1.
    pids, camids
        Shape (n,), int64.
    paths
        n original paths.
    """

    features: NDArray[np.float32]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class DatasetFeatures:
    """A model's features of one dataset's test split, and each query's scores.

    Attributes
    ----------
    query, gallery
        The images.
    average_precision, inverse_negative_penalty
        Shape (queries,), float64, NaN for a query without a match.
    first_match
        Shape (queries,), float64: rank of the first true match, from 1, the mean of the draws where the
        protocol draws; 0 for a query without one.
    """

    query: ImageFeatures
    gallery: ImageFeatures
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]
    first_match: NDArray[np.float64]

    @classmethod
    def of(cls, archive: DatasetArchive, features: NDArray[np.float32], ranking: Ranking) -> Self:
        """Put together the features (query + gallery, width) of an archive's first split and its ranking."""
        paths = archive.paths
        query, gallery = archive.split("query"), archive.split("gallery")

        def part(images: NDArray[np.int64], rows: NDArray[np.float32]) -> ImageFeatures:
            names = [paths[image] for image in images]
            return ImageFeatures(rows, archive.pids[images], archive.camids[images], names)

        return cls(
            part(query, features[: len(query)]),
            part(gallery, features[len(query) :]),
            ranking.average_precision,
            ranking.inverse_negative_penalty,
            ranking.first_match,
        )


def write_features(path: Path, model: Path, protocol: str, datasets: Mapping[str, DatasetFeatures]) -> None:
    """Write features and per-query scores, a group a dataset; the file appears when it is whole.

    Parameters
    ----------
    path
        HDF5 file.
    model
        The model that made the features.
    protocol
        Of the scores.
    datasets
        Dataset name to features.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(kind=KIND, format_version=FORMAT_VERSION, model=str(model), protocol=protocol)
        for name, dataset in datasets.items():
            for part, images in (("query", dataset.query), ("gallery", dataset.gallery)):
                group = file.create_group(f"{name}/{part}")
                _put(group, "features", images.features, "features, scaled to length 1")
                _put(group, "pid", images.pids, "person of each image; -1 is junk")
                _put(group, "camid", images.camids, "camera of each image")
                paths = np.array(images.paths, dtype=h5py.string_dtype())
                _put(group, "path", paths, "path of each image in its dataset's folder")
            query = file[f"{name}/query"]
            _put(query, "average_precision", dataset.average_precision, "NaN: a query without a match")
            _put(
                query,
                "inverse_negative_penalty",
                dataset.inverse_negative_penalty,
                "matches over the rank of the last one; NaN: a query without a match",
            )
            _put(query, "first_match", dataset.first_match, "rank of the first true match; 0: none")


def _put(group: h5py.Group, name: str, values: NDArray[np.generic], description: str) -> None:
    group.create_dataset(name, data=values).attrs["description"] = description
