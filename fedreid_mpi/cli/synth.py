"""``fedreid-mpi synth``: write the synthetic benchmark."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi.data.synthetic import Written

_LOG = logging.getLogger(__name__)


@click.command(name="synth")
@click.argument("root", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--scale",
    type=click.Choice(["demo", "bench", "full"]),
    default="demo",
    show_default=True,
    help="How many people and images.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all that is drawn."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all cores",
    help="Processes that draw; the bytes do not depend on it.",
)
@click.option(
    "--only", "names", metavar="NAME", multiple=True, help="Write this dataset only; may be repeated."
)
@click.option(
    "--variant",
    metavar="NAME",
    default="original",
    show_default=True,
    help="Layout in which the datasets are written.",
)
@click.option(
    "--shift",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="Factor on how far light, colours and backgrounds differ between datasets; 0: not at all.",
)
@logged()
@SHARED
def command(
    root: Path, scale: str, seed: int, jobs: int, names: tuple[str, ...], variant: str, shift: float
) -> None:
    """Write the synthetic benchmark as image files below DIR.

    Twelve folders appear, each in the layout of the dataset it stands for, ready for `prepare --all DIR`:
    nine clients that differ in people, clothes, light and cameras, a public dataset for distillation, and
    CAVIAR4REID and GRID, which nobody trains on. Each folder lists its own counts in counts.json.

    \b
      demo   9,264 images of 64x32 pixels; seconds
      bench  20,159 images of 128x64 pixels; about a minute
      full   241,724 images, 76,458 of them for training: the published
             counts of the real datasets; ten minutes on two cores

    Datasets circulate in other layouts than their original release; --variant writes the same pictures in
    one of them: clients and the public dataset as `processed` by the federated benchmark's scripts, the five
    small ones as `cameras`, others as the variants of one dataset, such as MSMT17's `market-style`, or
    CUHK03's MATLAB file as `mat-detected`. Datasets without such a layout are left out. Market-1501 as
    `multi-query` is the original with the boxes of gt_bbox.

    The same scale, seed and shift give the same bytes with the same versions of NumPy and Pillow and on the
    same kind of processor. Compare the printed digests to make sure.
    """  # noqa: D301 (click wants the character)
    from fedreid_mpi.data.synthetic import LAYOUTS, count_images, write_benchmark, written_as
    from fedreid_mpi.errors import ConfigurationError

    for name in names:
        if name not in LAYOUTS:
            raise ConfigurationError(f"--only {name}: no such dataset; there are {', '.join(LAYOUTS)}")
    datasets = [dataset for dataset in LAYOUTS if dataset in names] or written_as(variant) or list(LAYOUTS)
    images = count_images(scale, datasets, variant, seed)
    with timed(f"{counted(images, 'image')} drawn"), progress_bar("drawing", images) as advance:
        written = write_benchmark(root, scale, seed, datasets, jobs, advance, variant, shift)
    if _LOG.isEnabledFor(logging.INFO):
        _print_summary(written)


def _print_summary(written: list["Written"]) -> None:
    """Print one row per dataset and a digest of all."""
    from rich.table import Table

    from fedreid_mpi.data.synthetic import join_digests

    table = Table(title="Synthetic benchmark")
    for heading in ("dataset", "folder"):
        table.add_column(heading)
    for heading in ("images", "identities", "cameras"):
        table.add_column(heading, justify="right")
    table.add_column("digest")
    for each in written:
        numbers = (f"{number:,}" for number in (each.images, each.identities, each.cameras))
        table.add_row(each.dataset, str(each.folder), *numbers, each.digest[:16])
    print_table(table)
    click.echo(f"digest of all: {join_digests(written)}")
