"""What a search found: pictures of queries with the most similar images, and a table."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedreid_mpi.data.decoding import decode_images
from fedreid_mpi.data.folders import ImageFolder
from fedreid_mpi.evaluation.search import Found
from fedreid_mpi.records import Advance
from fedreid_mpi.report.export import Row
from fedreid_mpi.report.tiles import Tile, draw_tiles

LINE, LINES = 18, 2
"""Characters that fit below an image, and lines of them that a file's name may take."""

_FRAME = "#9a9a9a"


def found_rows(queries: ImageFolder, gallery: ImageFolder, found: Sequence[Found]) -> Iterator[Row]:
    """List what was found: query, rank from 1, gallery image and cosine similarity.

    Images are named by their paths below the folders that were searched.
    """
    for path, each in zip(queries.paths, found, strict=True):
        for rank, (image, similarity) in enumerate(zip(each.images, each.similarities, strict=True), 1):
            yield {
                "query": path,
                "rank": rank,
                "image": gallery.paths[image],
                "similarity": f"{similarity:.9f}",  # in steps of 2^-30
            }


def draw_found(
    queries: ImageFolder,
    gallery: ImageFolder,
    found: Mapping[int, Found],
    size: tuple[int, int],
    jobs: int,
    title: str,
    advance: Advance,
) -> Figure:
    """Draw some queries, one row each, and what was found for them.

    Parameters
    ----------
    queries, gallery
        Where the images are; those that are shown are read again.
    found
        Number of a query to what was found for it; at least one.
    size
        Height and width of the images as the model saw them.
    jobs
        Threads that decode.
    title
        Above all.
    advance
        Called with the number of images just read.
    """
    images = sorted({int(image) for each in found.values() for image in each.images})
    asked = _read(queries, sorted(found), size, jobs, advance)
    shown = _read(gallery, images, size, jobs, advance)
    rows = [
        [
            Tile(asked[number], _label(queries.paths[number])),
            *(
                Tile(shown[image], f"{similarity:.3f}\n{_label(gallery.paths[image])}", _FRAME)
                for image, similarity in zip(each.images.tolist(), each.similarities, strict=True)
            ),
        ]
        for number, each in found.items()
    ]
    return draw_tiles(rows, max(len(each.images) for each in found.values()), title)


def _read(
    folder: ImageFolder, numbers: Sequence[int], size: tuple[int, int], jobs: int, advance: Advance
) -> dict[int, NDArray[np.uint8]]:
    decoded = decode_images(folder.root, [folder.paths[number] for number in numbers], *size, jobs, advance)
    return {number: pixels for number, (pixels, _) in zip(numbers, decoded, strict=True)}


def _label(path: str) -> str:
    """Break a path, or as much of its end as there is room for, into lines."""
    room = LINE * LINES
    shown = path if len(path) <= room else f"…{path[1 - room :]}"
    return "\n".join(shown[start : start + LINE] for start in range(0, len(shown), LINE))
