"""``fedreid-mpi prepare``: dataset folders into HDF5 archives."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fedreid_mpi.cli.computing import JOBS
from fedreid_mpi.cli.console import progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.cli.sizes import size_option
from fedreid_mpi.cli.wide_tables import print_blocks
from fedreid_mpi.data.archive.format import is_plain
from fedreid_mpi.data.checks import Count
from fedreid_mpi.data.prepare import (
    Options,
    Survey,
    find_datasets,
    passed_over,
    prepare,
    require_whole,
    survey,
)
from fedreid_mpi.data.readers import READERS, Choices
from fedreid_mpi.data.readers.base import BENCHMARK
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.storage.access import audience
from fedreid_mpi.storage.atomic import make_folder
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from rich.text import Text

_LOG = logging.getLogger(__name__)

CUSTOM = "custom"
"""The dataset that a user's manifest describes."""


@click.command(name="prepare")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--dataset", type=click.Choice(list(READERS)), help="Prepare this dataset: SOURCE is its folder."
)
@click.option("--all", "everything", is_flag=True, help="Prepare every dataset found under SOURCE.")
@size_option("Height and width of the stored images.")
@click.option("--name", help="With --dataset custom: name of the dataset in its archive.")
@click.option("--variant", metavar="NAME", help="Read SOURCE as this variant, whatever it looks like.")
@click.option(
    "--training",
    "--split",
    "training",
    type=click.Choice(["trainval", "train"]),
    default="trainval",
    show_default=True,
    help="Train on validation images as well, or not.",
)
@click.option(
    "--splits", metavar="NAME", help="Splits to store: the benchmark's one, or others by name.  [benchmark]"
)
@click.option(
    "--split-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the splits from this file.",
)
@click.option("--split-seed", type=int, help="Seed of splits drawn at random.  [0]")
@click.option("--allow-subset", is_flag=True, help="Accept counts that differ and queries without a match.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@JOBS
@logged()
@SHARED
def command(
    source: Path,
    output: Path,
    dataset: str | None,
    everything: bool,
    size: tuple[int, int],
    name: str | None,
    variant: str | None,
    training: Literal["trainval", "train"],
    splits: str | None,
    split_file: Path | None,
    split_seed: int | None,
    allow_subset: bool,
    skip_broken: bool,
    jobs: int,
) -> None:
    """Turn dataset folders into HDF5 archives, with checks.

    \b
      fedreid-mpi prepare --dataset market1501 Market-1501-v15.09.15 market1501.h5
      fedreid-mpi prepare --all datasets archives
      fedreid-mpi prepare --dataset custom --name station manifest.csv station.h5

    Datasets come in several variants: as originally released, repackaged, or as the federated benchmark's
    scripts leave them. The variant is recognised, and printed with the reason; --variant overrules that.
    With --all, SOURCE holds some of the folders Market-1501-v15.09.15, DukeMTMC-reID, MSMT17_V1,
    cuhk03-np/detected, prid_2011, CUHK01/campus, VIPeR, 3DPeS/RGB, i-LIDS_Pedestrian/Persons and
    CUHK02/Dataset, or others under which they are known; OUTPUT is a folder that gets one archive each.
    Folders that are left out are listed; a dataset that is there twice is an error.

    Any other dataset comes with a manifest, a CSV or Parquet table with the columns path, pid, camid and
    split: see docs/datasets.md.

    What is found is compared with the published counts, or with those of a file counts.json in the dataset's
    folder. Images are stored as RGB, resized once. Where a dataset has no split of its own, one is drawn from
    --split-seed, which the archive records. The same files give the same archive, byte for byte.
    """  # noqa: D301 (click wants a real backspace)
    if (dataset is None) is not everything:
        raise click.UsageError("expected either --dataset NAME or --all")
    if dataset is None and (variant or splits or split_file or training != "trainval"):
        raise click.UsageError("--variant, --training, --splits and --split-file go with --dataset")
    if (dataset == CUSTOM) is not bool(name):
        raise click.UsageError(f"--dataset {CUSTOM} and --name go together")
    if name and not is_plain(name):
        raise click.UsageError(f"--name {name!r}: expected a name that can be part of a file's name")
    if dataset is not None:
        targets = {output: (dataset, source)}
    else:
        found = find_datasets(source)
        targets = {output / f"{name}.h5": (name, folder) for name, folder in found.items()}
        for folder, reason in passed_over(source, found).items():
            if folder.resolve() != output.resolve():
                _LOG.warning("not taken: %s: %s", folder, reason)
    options = Options(*size, allow_subset, skip_broken, jobs)
    choices = Choices(split_seed or 0, training, splits or BENCHMARK, split_file)
    surveys = {}
    for archive, (dataset_name, folder) in targets.items():
        with timed(f"{dataset_name}: {folder} listed"):
            surveys[archive] = survey(dataset_name, folder, choices, variant)
    if name:
        surveys = {archive: replace(listed, name=name) for archive, listed in surveys.items()}
    _print_variants(surveys.values())
    if split_seed is not None and not any(listed.listing.drawn for listed in surveys.values()):
        raise ConfigurationError(f"--split-seed {split_seed}: nothing is drawn here, the splits are given")
    _print_counts(surveys.values())
    for listed in surveys.values():
        require_whole(listed, options)
    if everything:
        _make_folder(output)
    for archive, listed in surveys.items():
        images = len(listed.images)
        with timed(f"{listed.name}: written"), progress_bar(f"{listed.name:<13}", images) as advance:
            written = prepare(listed, archive, options, advance)
        images -= len(written.skipped)
        _LOG.info("%s: %s; readable by %s", archive, counted(images, "image"), audience())
        if written.skipped:
            _LOG.warning("%s: broken and left out: %s", listed.name, ", ".join(written.skipped))
        for note in written.notes:
            _LOG.warning("%s: note: %s", listed.name, note)


def _make_folder(path: Path) -> None:
    try:
        make_folder(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be made: {error.strerror}") from error


def _print_variants(surveys: Iterable[Survey]) -> None:
    """Print which variant each folder was recognised as, and why."""
    for listed in surveys:
        found = listed.found
        _LOG.info("%s: %s is variant %s: %s", listed.name, found.folder, found.variant.name, found.reason)


def _print_counts(surveys: Iterable[Survey]) -> None:
    """Print the found counts, each with the expected one if they differ: one table per set of counts."""
    if not _LOG.isEnabledFor(logging.INFO):
        return
    tables: dict[tuple[str, ...], list[Survey]] = {}
    for listed in surveys:
        tables.setdefault(tuple(each.key for each in listed.counts), []).append(listed)
    for keys, alike in tables.items():
        cells = zip(*(map(_cell, listed.counts) for listed in alike), strict=True)
        columns = [(key.replace("_", " "), column) for key, column in zip(keys, cells, strict=True)]
        print_blocks("Counts found (expected, where they differ)", [each.name for each in alike], columns)


def _cell(each: Count) -> "str | Text":
    from rich.text import Text

    if each.expected in (None, each.found):
        return f"{each.found:,}"
    expected = f"{'about ' if each.reach else ''}{each.expected:,}"
    if not each.differs:
        return f"{each.found:,} ({expected})"
    return Text(f"{each.found:,} (expected {each.expected:,})", style="bold red")
