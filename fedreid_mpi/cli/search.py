"""``fedreid-mpi search``: images without labels, and those of a gallery that a model finds most like them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.computing import DEVICE, JOBS, MIRROR, THREADS, place_networks
from fedreid_mpi.cli.console import progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.atomic import make_folder, write_errors
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.data.folders import ImageFolder
    from fedreid_mpi.evaluation.search import Found, SearchedFolder
    from fedreid_mpi.model import StoredModel

_LOG = logging.getLogger(__name__)

TABLE = ".csv"

MOST_QUERIES = 50
"""Rows of one picture: more would be too long to look at."""

PAGE = 20
"""Queries in each picture of a folder."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is written: a table, a picture, or both into a folder."""

    folder: Path | None = None
    table: Path | None = None
    picture: Path | None = None


@click.command("search")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("queries", type=click.Path(path_type=Path))
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="A new or empty folder for search.csv and pictures; or one file: .csv, .png, .pdf or .svg.",
)
@click.option("--top", type=click.IntRange(1, 50), default=10, show_default=True, help="Images per query.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@MIRROR
@DEVICE
@THREADS
@JOBS
@logged()
@SHARED
def command(
    model: Path,
    queries: Path,
    gallery: Path,
    output: Path,
    top: int,
    skip_broken: bool,
    mirror: bool,
    device: str,
    threads: int,
    jobs: int,
) -> None:
    """For each image in QUERIES, find the images in GALLERY that MODEL considers most similar.

    No labels are needed. QUERIES and GALLERY are folders of image files (JPEG, PNG, BMP), with all their
    subfolders; QUERIES may be a single image. Each is a crop of one person, as in the training data. Images
    are read, checked and resized as by `fedreid-mpi prepare`, and ranked by the same cosine similarity as in
    `fedreid-mpi evaluate`, equal ones by name. There is always a first rank; you must judge whether it shows
    the same person.

    The table has one row per query and rank: query, rank, image, similarity. The pictures have one row per
    query; a folder gets one picture for every 20.

    \b
      fedreid-mpi search runs/1/models/global.safetensors wanted/ cameras/ -o found
      fedreid-mpi search MODEL wanted/0001.jpg cameras/ --top 20 -o found.pdf
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi import config
    from fedreid_mpi.data.folders import list_image_folder
    from fedreid_mpi.evaluation.search import find_nearest, read_folder
    from fedreid_mpi.model import load_model

    target = _target(output)
    with timed(f"{model}: read"):
        stored = load_model(model)
    asked, searched = list_image_folder(queries), list_image_folder(gallery)
    if target.picture is not None and len(asked.paths) > MOST_QUERIES:
        raise ConfigurationError(
            f"-o {output}: {len(asked.paths)} queries in one picture, expected at most {MOST_QUERIES}; "
            "a folder gets several"
        )
    compute = config.Compute.model_validate({"device": device, "threads": threads})
    place_networks(compute, stored.network)
    images = len(asked.paths) + len(searched.paths)
    with timed(f"features of {counted(images, 'image')}"), progress_bar("images", images) as advance:
        sides = [
            read_folder(stored, folder, compute, mirror, jobs, skip_broken, advance)
            for folder in (asked, searched)
        ]
    with timed("ranked"):
        found = find_nearest(sides[0].features, sides[1].features, top)
    for side in sides:
        _tell(side)
    title = f"{model.name}: {gallery}{'' if mirror else ', without mirror images'}"
    _write(target, stored, sides, found, jobs, title)


def _target(output: Path) -> Target:
    """Return what is to be written, and refuse a place where it cannot be, before any work."""
    from fedreid_mpi.report.formats import ENDINGS

    suffix = output.suffix.lower()
    if output.is_dir() or not suffix:
        if output.is_dir() and any(output.iterdir()):
            raise ConfigurationError(f"-o {output}: this folder is not empty, expected a new or empty one")
        if output.exists() and not output.is_dir():
            raise ConfigurationError(f"-o {output}: a file, expected a folder or a name with an ending")
        return Target(folder=output)
    if suffix not in (TABLE, *ENDINGS):
        raise ConfigurationError(f"-o {output}: expected a folder, or {TABLE}, {', '.join(ENDINGS)}")
    if not output.resolve().parent.is_dir():
        raise ConfigurationError(f"-o {output}: no such folder {output.resolve().parent}")
    return Target(table=output) if suffix == TABLE else Target(picture=output)


def _tell(side: "SearchedFolder") -> None:
    """Log what of a folder was not searched, and what was noticed."""
    from fedreid_mpi.data.readers.names import few

    root = side.folder.root
    if others := side.folder.others:
        what = counted(len(others), "file is not an image", "files are not images")
        _LOG.warning("%s: %s: %s", root, what, few(others))
    if side.broken:
        _LOG.warning("%s: broken and left out: %s", root, ", ".join(side.broken))
    for note in side.notes:
        _LOG.warning("%s: note: %s", root, note)


def _write(
    target: Target,
    stored: "StoredModel",
    sides: "Sequence[SearchedFolder]",
    found: "Sequence[Found]",
    jobs: int,
    title: str,
) -> None:
    from fedreid_mpi.report.export import write_csv
    from fedreid_mpi.report.found_images import draw_found, found_rows
    from fedreid_mpi.report.pictures import save_picture

    asked, searched = (side.folder for side in sides)
    if target.folder is not None:
        with write_errors(target.folder):
            make_folder(target.folder)
    if (table := target.folder / "search.csv" if target.folder else target.table) is not None:
        write_csv(table, [list(found_rows(asked, searched, found))])
        _LOG.info("Table: %s", table)
    pages = _pages(target, asked)
    shown = [
        len({image for n in numbers for image in found[n].images.tolist()}) for numbers in pages.values()
    ]
    with progress_bar("pictures", sum(map(len, pages.values())) + sum(shown)) as advance:
        for path, numbers in pages.items():
            chosen = {number: found[number] for number in numbers}
            size = (stored.height, stored.width)
            save_picture(draw_found(asked, searched, chosen, size, jobs, title, advance), path)
    for path in pages:
        _LOG.info("Picture: %s", path)


def _pages(target: Target, asked: "ImageFolder") -> dict[Path, range]:
    """Return each picture with the queries in it."""
    count = len(asked.paths)
    if target.picture is not None:
        return {target.picture: range(count)}
    if target.folder is None:
        return {}
    starts = range(0, count, PAGE)
    digits = len(str(len(starts)))
    names = [
        f"search_{page:0{digits}}.png" if len(starts) > 1 else "search.png"
        for page in range(1, len(starts) + 1)
    ]
    return {
        target.folder / name: range(start, min(start + PAGE, count))
        for name, start in zip(names, starts, strict=True)
    }
