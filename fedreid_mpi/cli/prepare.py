"""``fedreid-mpi prepare``: dataset folders into HDF5 archives."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import click

from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.data.checks import Count
from fedreid_mpi.data.prepare import Options, Survey, find_datasets, prepare, require_whole, survey
from fedreid_mpi.data.readers import READERS
from fedreid_mpi.errors import ConfigurationError

MOST_JOBS = 8
"""More threads than this do not decode faster: a fifth of the work needs the interpreter's lock."""


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Parse height and width, e.g. ``256x128``."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"'{value}' is not HEIGHTxWIDTH in pixels, e.g. 256x128", context, parameter)
    return int(match[1]), int(match[2])


@click.command(name="prepare")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--dataset", type=click.Choice(list(READERS)), help="Prepare this dataset: SOURCE is its folder."
)
@click.option("--all", "everything", is_flag=True, help="Prepare every dataset found under SOURCE.")
@click.option(
    "--size",
    metavar="HxW",
    callback=parse_size,
    default="256x128",
    show_default=True,
    help="Height and width of the stored images.",
)
@click.option("--split-seed", type=int, default=0, show_default=True, help="Seed of splits drawn at random.")
@click.option("--allow-subset", is_flag=True, help="Accept counts that differ and queries without a match.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: min(MOST_JOBS, len(os.sched_getaffinity(0))),
    show_default=f"all cores, at most {MOST_JOBS}",
    help="Threads that decode; the bytes do not depend on it.",
)
def command(
    source: Path,
    output: Path,
    dataset: str | None,
    everything: bool,
    size: tuple[int, int],
    split_seed: int,
    allow_subset: bool,
    skip_broken: bool,
    jobs: int,
) -> None:
    """Turn dataset folders into HDF5 archives, with checks.

    \b
      fedreid-mpi prepare --dataset market1501 Market-1501-v15.09.15 market1501.h5
      fedreid-mpi prepare --all datasets archives

    Folders are read in the layout in which the datasets are handed out. With --all, SOURCE holds some of
    Market-1501-v15.09.15, DukeMTMC-reID, MSMT17_V1, cuhk03-np/detected, prid_2011, CUHK01/campus, VIPeR,
    3DPeS/RGB, i-LIDS_Pedestrian/Persons and CUHK02/Dataset; OUTPUT is a folder that gets one archive each.

    What is found is compared with the published counts, or with those of a file counts.json in the dataset's
    folder. Images are stored as RGB, resized once. Where a dataset has no split of its own, one is drawn from
    --split-seed, which the archive records. The same files give the same archive, byte for byte.
    """  # noqa: D301 (click wants a real backspace)
    if (dataset is None) is not everything:
        raise click.UsageError("expected either --dataset NAME or --all")
    if dataset is not None:
        targets = {output: (dataset, source)}
    else:
        targets = {output / f"{name}.h5": (name, folder) for name, folder in find_datasets(source).items()}
        _make_folder(output)
    options = Options(*size, split_seed, allow_subset, skip_broken, jobs)
    surveys = {archive: survey(name, folder, split_seed) for archive, (name, folder) in targets.items()}
    _print_counts(surveys.values())
    for listed in surveys.values():
        require_whole(listed, options)
    for archive, listed in surveys.items():
        with progress_bar(f"{listed.reader.name:<13}", len(listed.records)) as advance:
            skipped = prepare(listed, archive, options, advance)
        left_out = f"; broken and left out: {', '.join(skipped)}" if skipped else ""
        click.echo(f"{archive}: {len(listed.records) - len(skipped):,} images{left_out}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be made: {error.strerror}") from error


def _print_counts(surveys: Iterable[Survey]) -> None:
    """Print the found counts, each with the expected one where they differ; a table a set of counts."""
    from rich.table import Table

    tables: dict[tuple[str, ...], Table] = {}
    for listed in surveys:
        keys = tuple(each.key for each in listed.counts)
        if keys not in tables:
            tables[keys] = Table(title="Counts found (expected, where they differ)")
            tables[keys].add_column("dataset")
            for key in keys:
                tables[keys].add_column(key.replace("_", " "), justify="right")
        tables[keys].add_row(listed.reader.name, *map(_cell, listed.counts))
    for table in tables.values():
        print_table(table)


def _cell(each: Count) -> str:
    if each.expected in (None, each.found):
        return f"{each.found:,}"
    if each.about:
        return f"{each.found:,} (about {each.expected:,})"
    return f"[bold red]{each.found:,} (expected {each.expected:,})[/]"
