"""``fedreid-mpi prepare``: dataset folders into HDF5 archives."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_table, progress_bar

if TYPE_CHECKING:
    from fedreid_mpi.data.checks import Count
    from fedreid_mpi.data.prepare import Survey

DATASETS = (
    "msmt17",
    "dukemtmc-reid",
    "market1501",
    "cuhk03-np",
    "prid2011",
    "cuhk01",
    "viper",
    "3dpes",
    "ilids",
    "cuhk02",
)
"""Names of the readers, here so that ``--help`` does not import them."""


class ImageSize(click.ParamType[tuple[int, int]]):
    """Height and width as ``256x128``."""

    name = "HxW"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the size; both sides must be positive."""
        match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", str(value), re.ASCII)
        if match is None:
            self.fail(f"'{value}' is not HEIGHTxWIDTH in pixels, e.g. 256x128", param, ctx)
        return int(match[1]), int(match[2])


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Choice(DATASETS), help="Prepare this dataset: SOURCE is its folder.")
@click.option("--all", "everything", is_flag=True, help="Prepare every dataset found under SOURCE.")
@click.option("--size", type=ImageSize(), default="256x128", show_default=True, help="Size of the stored images.")
@click.option("--split-seed", type=int, default=0, show_default=True, help="Seed of splits drawn at random.")
@click.option("--allow-subset", is_flag=True, help="Accept counts that differ and queries without a match.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option("--jobs", type=click.IntRange(1), help="Threads that decode.  [default: number of cores]")
def command(
    source: Path,
    output: Path,
    dataset: str | None,
    everything: bool,
    size: tuple[int, int],
    split_seed: int,
    allow_subset: bool,
    skip_broken: bool,
    jobs: int | None,
) -> None:
    """Turn dataset folders into HDF5 archives, with checks.

    \b
      fedreid-mpi prepare --dataset market1501 Market-1501-v15.09.15 market1501.h5
      fedreid-mpi prepare --all datasets archives

    Folders are read in the layout in which the datasets are handed out. With --all, SOURCE holds some of
    Market-1501-v15.09.15, DukeMTMC-reID, MSMT17_V1, cuhk03-np/detected, prid_2011, CUHK01/campus, VIPeR,
    3DPeS/RGB, i-LIDS_Pedestrian/Persons and CUHK02/Dataset, and OUTPUT is a folder that gets one archive each.

    What is found is compared with the published counts, or with those of a file counts.json in the dataset's
    folder. Images are stored as RGB, resized once. Where a dataset has no split of its own, one is drawn from
    --split-seed, which the archive records. The same files give the same archive, byte for byte.
    """
    from fedreid_mpi.data.prepare import Options, find_datasets, prepare, survey

    if (dataset is None) is not everything:
        raise click.UsageError("give either --dataset NAME or --all")
    if dataset is not None:
        targets = {output: (dataset, source)}
    else:
        targets = {output / f"{name}.h5": (name, folder) for name, folder in find_datasets(source).items()}
        _make_folder(output)
    options = Options(*size, split_seed, allow_subset, skip_broken, jobs or len(os.sched_getaffinity(0)))
    surveys = {archive: survey(name, folder, split_seed) for archive, (name, folder) in targets.items()}
    _print_counts(list(surveys.values()))
    for listed in surveys.values():
        listed.require_whole(options)
    for archive, listed in surveys.items():
        with progress_bar(f"{listed.reader.name:<13}", len(listed.records)) as advance:
            skipped = prepare(listed, archive, options, advance)
        left_out = f", {len(skipped)} broken left out: {', '.join(skipped)}" if skipped else ""
        click.echo(f"{archive}: {len(listed.records) - len(skipped):,} images{left_out}")
