"""``fedreid-mpi results rank-list``: a picture of queries and what a model finds for them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.computing import DEVICE, MIRROR, THREADS, place_networks
from fedreid_mpi.cli.console import progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.report.ranked_lists import RankedList

_LOG = logging.getLogger(__name__)

MOST_QUERIES = 50
"""Rows of a picture: more would be too long to look at."""


@click.command("rank-list")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("archive", metavar="DATA.h5", type=click.Path(path_type=Path))
@click.option(
    "--query",
    "wanted",
    multiple=True,
    metavar="N|TEXT",
    help="A query by its number in the split, from 0, or all whose original path holds a text. Repeatable.",
)
@click.option(
    "--worst", type=click.IntRange(min=1), help="Number of queries with the lowest average precision."
)
@click.option("--random", "drawn", type=click.IntRange(min=1), help="Number of queries drawn at random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draw.")
@click.option("--top", type=click.IntRange(1, 50), default=10, show_default=True, help="Length of a list.")
@click.option("--split", type=click.IntRange(min=0), default=0, show_default=True, help="Split to show.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The picture: .png, .pdf or .svg."
)
@MIRROR
@DEVICE
@THREADS
@logged()
@SHARED
def command(
    model: Path,
    archive: Path,
    wanted: tuple[str, ...],
    worst: int | None,
    drawn: int | None,
    seed: int,
    top: int,
    split: int,
    output: Path,
    mirror: bool,
    device: str,
    threads: int,
) -> None:
    """Draw queries of DATA.h5 and the gallery images that MODEL ranks first.

    One row per query: its image with camera, average precision, number of true matches and the rank of the
    first of them in the whole gallery; then the most similar gallery images with similarity and camera,
    framed green with a tick if they show the same person, dashed orange with a cross if not. Features,
    ranking and junk are as in `fedreid-mpi evaluate`. --query, --worst and --random may be combined; without
    any of them, five queries are drawn at random.

    \b
      fedreid-mpi results rank-list MODEL archives/viper.h5 --worst 5 -o worst.pdf
      fedreid-mpi results rank-list MODEL archives/market1501.h5 --query 0042_c1 -o 0042.png
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi import config
    from fedreid_mpi.algorithms.seeds import generator
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.evaluation import Scoring, extract_parts, images_to_score, score_split
    from fedreid_mpi.model import load_model
    from fedreid_mpi.report.pictures import save_picture
    from fedreid_mpi.report.ranked_lists import draw_ranked_lists, rank_lists, worst_queries

    _require_picture(output)
    compute = config.Compute.model_validate({"device": device, "threads": threads})
    stored, dataset = load_model(model), DatasetArchive.open(archive)
    if (dataset.height, dataset.width) != (stored.height, stored.width):
        raise DataError(
            f"{archive}: images are {dataset.height}x{dataset.width}, "
            f"expected {stored.height}x{stored.width} as in {model}"
        )
    parts = images_to_score(dataset, [split])
    queries = len(dataset.split("query", split))
    chosen = _find(wanted, dataset, split)
    if drawn is None and not wanted and worst is None:
        drawn = 5
    random = generator(seed, "rank-list").permutation(queries)[: drawn or 0]
    asked = len(chosen) + (worst or 0) + (drawn or 0)
    if asked > MOST_QUERIES:
        raise ConfigurationError(f"{asked} queries are asked for, expected at most {MOST_QUERIES}")

    place_networks(compute, stored.network)
    images = sum(map(len, parts))
    with progress_bar("images", images + queries) as advance:
        with timed(f"features of {counted(images, 'image')}"):
            extracted = extract_parts(stored.network, dataset, parts, compute, mirror, advance)
        with timed(f"{counted(queries, 'query', 'queries')} ranked"):
            ranking = score_split(extracted, split, Scoring(), advance)
    chosen += worst_queries(ranking, worst or 0) + [int(query) for query in random]
    unique = list(dict.fromkeys(chosen))
    if not unique:
        raise DataError(f"{archive}: no query of split {split} has a match, so none is the worst")
    lists = rank_lists(extracted, split, unique, top, ranking)
    title = f"{model.name} on {dataset.name}{'' if mirror else ', without mirror images'}"
    save_picture(draw_ranked_lists(dataset, lists, top, title), output)
    for each in lists:
        _LOG.info("query %d: %s, %s", each.query, dataset.paths[each.image], _first(each))
    _LOG.info("Picture: %s", output)


def _require_picture(output: Path) -> None:
    """Refuse a place where no picture can be written, before any work."""
    from fedreid_mpi.report.formats import ENDINGS, picture_format

    if output.is_dir():
        raise ConfigurationError(f"-o {output}: a folder, expected a file's name, {', '.join(ENDINGS)}")
    picture_format(output)
    if not output.resolve().parent.is_dir():
        raise ConfigurationError(f"-o {output}: no such folder {output.resolve().parent}")


def _first(each: "RankedList") -> str:
    """Return the rank of the first match in the whole gallery, in words."""
    if each.matches == 0:
        return f"no match among {each.ranked:,} images"
    matches = counted(each.matches, "match", "matches")
    return f"{matches}, the first at rank {each.first:,} of {each.ranked:,}"


def _find(wanted: Sequence[str], dataset: "DatasetArchive", split: int) -> list[int]:
    """Turn what was typed after --query into positions among the split's queries."""
    images = dataset.split("query", split)
    found: list[int] = []
    for text in wanted:
        if text.isdecimal():
            if int(text) >= len(images):
                raise ConfigurationError(f"--query {text}: expected 0 to {len(images) - 1}")
            found.append(int(text))
            continue
        fitting = [number for number, image in enumerate(images) if text in dataset.paths[image]]
        if not fitting:
            raise ConfigurationError(
                f"--query {text}: no query of {dataset.path} has this in its path, "
                f"expected a part of e.g. {dataset.paths[images[0]]}"
            )
        found += fitting
    return list(dict.fromkeys(found))
