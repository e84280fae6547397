"""Ranked lists: pictures of queries beside the gallery images that a model finds most like them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.evaluation import ExtractedFeatures
from fedreid_mpi.evaluation.distances import STEPS, Rows, compare
from fedreid_mpi.evaluation.ranking import Ranking
from fedreid_mpi.storage.atomic import atomic_write

# Okabe and Ito's bluish green and vermillion, told apart by everyone; a mark and dashes say the same again.
_RIGHT, _WRONG = ("#009e73", "-", "✓"), ("#d55e00", (0, (3, 1.5)), "✗")

_STYLE: dict[Any, Any] = {"font.size": 7, "font.family": "DejaVu Sans", "savefig.dpi": 160}


@dataclass(frozen=True, slots=True)
class RankedList:
    """The start of one query's ranked gallery.

    Attributes
    ----------
    query
        Position among the split's queries.
    image
        Index of the query's image in the archive.
    gallery
        Indices of the most similar gallery images, the most similar first; junk is left out.
    similarities
        Their cosine similarities, shape (images,), float64.
    right
        Whether each shows the query's person, shape (images,), bool.
    matches
        Number of true matches in the whole gallery.
    average_precision
        As the evaluation has it; NaN for a query without a match.
    """

    query: int
    image: int
    gallery: NDArray[np.int64]
    similarities: NDArray[np.float64]
    right: NDArray[np.bool_]
    matches: int
    average_precision: float


def rank_lists(
    extracted: ExtractedFeatures, split: int, queries: Sequence[int], top: int, ranking: Ranking
) -> list[RankedList]:
    """Rank the gallery for some queries, as the evaluation does.

    The same distances, in whole steps; equal ones rank by gallery index; images of person -1 and those of the
    query's person by the query's camera are left out.

    Parameters
    ----------
    extracted
        Features of the split's test images.
    split
        Number of the split.
    queries
        Positions among the split's queries.
    top
        Length of a list; a smaller gallery gives a shorter one.
    ranking
        Scores of the split, for the average precision.
    """
    archive = extracted.archive
    query_images, gallery = archive.split("query", split), archive.split("gallery", split)
    chosen = query_images[np.asarray(queries, np.int64)]
    device = extracted.features.device
    rows = Rows.of("gallery", extracted.of(gallery), device)
    units = Rows.of("query", extracted.of(chosen), device).unit(slice(None))
    pids, camids = archive.pids[gallery], archive.camids[gallery]
    block = torch.empty(1, len(rows), dtype=torch.float64, device=device)
    lists = []
    for query, image, unit in zip(queries, chosen.tolist(), units, strict=True):
        distances = compare(unit[None], rows, out=block)[0].cpu().numpy()
        own = pids == archive.pids[image]
        junk = (pids == -1) | (own & (camids == archive.camids[image]))
        order = np.argsort(np.where(junk, np.inf, distances), kind="stable")[: min(top, (~junk).sum())]
        lists.append(
            RankedList(
                query=query,
                image=image,
                gallery=gallery[order],
                similarities=-distances[order] / STEPS,
                right=own[order],
                matches=int((own & ~junk).sum()),
                average_precision=float(ranking.average_precision[query]),
            )
        )
    return lists


def worst_queries(ranking: Ranking, count: int) -> list[int]:
    """Return the queries of the least average precision, the worst first; those without a match do not count.

    Equal ones rank by position.
    """
    precision = ranking.average_precision
    order = np.argsort(np.where(np.isnan(precision), np.inf, precision), kind="stable")
    matched = int(np.isfinite(precision).sum())
    return [int(query) for query in order[: min(count, matched)]]


def draw_ranked_lists(archive: DatasetArchive, lists: Sequence[RankedList], top: int, title: str) -> Figure:
    """Draw one row per query: its image, then its list, right images and wrong ones framed and marked.

    Parameters
    ----------
    archive
        Gives pictures, cameras and paths.
    lists
        At least one.
    top
        Columns beside the query's.
    title
        Above all.
    """
    aspect = archive.height / archive.width
    wide = 0.8  # inches of an image
    row = wide * aspect + 0.52  # an image and the two lines below it
    inches = max((top + 1.35) * (wide + 0.16), 3.6)  # room for the title above short lists
    figure = Figure(figsize=(inches, len(lists) * row + 0.75))
    height, width = figure.get_figheight(), figure.get_figwidth()
    step = (wide + 0.16) / width

    def place(line: int, column: float) -> Axes:
        left = 0.1 / width + column * step
        bottom = (height - 0.7 - line * row - wide * aspect) / height
        axes = figure.add_axes((left, bottom, wide / width, wide * aspect / height))
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=9, va="center", parse_math=False)
    for column in range(top + 1):
        text = "query" if column == 0 else f"{column}"
        left = (0.1 + wide / 2) / width + (column + 0.3 * (column > 0)) * step
        figure.text(left, 1 - 0.55 / height, text, ha="center", va="center", color="#555555")
    for line, each in enumerate(lists):
        axes = place(line, 0)
        _show(axes, archive, each.image, "black", "-", _describe(each, archive))
        for rank, image in enumerate(each.gallery):
            axes = place(line, rank + 1.3)
            colour, style, mark = _RIGHT if each.right[rank] else _WRONG
            words = f"{each.similarities[rank]:.3f}\ncamera {archive.camids[image]}"
            _show(axes, archive, int(image), colour, style, words)
            axes.text(
                0.06, 0.97, mark, transform=axes.transAxes, va="top", color="white", fontweight="bold",
                bbox={"boxstyle": "square,pad=0.2", "color": colour},
            )  # fmt: skip
    return figure


def _describe(each: RankedList, archive: DatasetArchive) -> str:
    """Say in two lines what a query is and what became of it."""
    if each.matches == 0:
        found = "no match"
    else:
        found = f"{each.matches} match{'es' * (each.matches > 1)}"
        if not math.isnan(each.average_precision):
            found = f"AP {100 * each.average_precision:.0f} %, {found}"
    return f"no. {each.query}, camera {archive.camids[each.image]}\n{found}"


def _show(axes: Axes, archive: DatasetArchive, image: int, colour: str, style: Any, words: str) -> None:  # noqa: ANN401 (matplotlib's line styles)
    axes.imshow(archive.images[image], aspect="auto", interpolation="nearest")
    axes.set_xlabel(words, fontsize=6, labelpad=3)
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=2.2, linestyle=style)


def write_ranked_lists(
    path: Path, archive: DatasetArchive, lists: Sequence[RankedList], top: int, title: str
) -> None:
    """Draw ranked lists into a PNG file, which appears when it is whole.

    Raises
    ------
    ConfigurationError
        When the file cannot be written.
    """
    with matplotlib.rc_context(_STYLE):
        figure = draw_ranked_lists(archive, lists, top, title)
        try:
            with atomic_write(path) as temporary:
                figure.savefig(temporary, format="png")
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror or error}") from error
