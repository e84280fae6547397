"""``fedreid-mpi inspect``: what is in any archive of this program."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.cli.inspect_weights import ENDINGS, inspect_model, inspect_weights
from fedreid_mpi.cli.sizes import size_option
from fedreid_mpi.data.archive import KIND, DatasetArchive, Node, read_tree, verify_dataset
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.hdf5.container import open_archive
from fedreid_mpi.storage.hdf5.tree import read_attributes
from fedreid_mpi.wording import counted

LONGEST = 72
"""Characters of an attribute's value that are shown; a configuration would fill the screen."""


@click.command(name="inspect")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Check the file against the specification, digests included.")
@click.option(
    "--backbone",
    metavar="NAME",
    help="For weights: the backbone that they are for (default: recognised from the file).",
)
@size_option("For weights: height and width of the images that they will be used on.")
def command(archive: Path, verify: bool, backbone: str | None, size: tuple[int, int]) -> None:
    """Show what is in ARCHIVE: a dataset, a run's results, a study file, saved features, a model, or weights.

    Of a dataset, tables of its splits and attributes are printed; of a study file, the index of its runs. Of
    other archives, all groups and datasets with their shapes, types, units and descriptions. Of a file of
    weights (.pth, .safetensors), what would become of each tensor as model.weights: loaded, left out on
    purpose, missing, unexpected, of another shape; the command ends with exit code 3 if it does not fit.

    With --verify the whole file is read and compared with docs/format.md and with its own digests. A single
    changed byte in an image is found, and the image is named; the command then ends with exit code 3.
    """
    from fedreid_mpi.results.file_kinds import STUDY

    if archive.suffix.lower() in ENDINGS:
        _inspect_tensors(archive, verify, backbone, size)
        return
    with open_archive(archive) as file:
        attributes = read_attributes(file)
    if verify:
        _verify(archive, str(attributes["kind"]))
        return
    if attributes["kind"] == KIND:
        _print_dataset(DatasetArchive.open(archive))
    elif attributes["kind"] == STUDY.kind:
        _print_index(archive)
    else:
        _print_tree(archive, read_tree(archive))
    _print_attributes(attributes)


def _inspect_tensors(path: Path, verify: bool, backbone: str | None, size: tuple[int, int]) -> None:
    from fedreid_mpi.model import is_own_model

    if is_own_model(path):
        inspect_model(path)  # which reads all of it, its digest included
    elif verify:
        raise ConfigurationError(f"--verify: {path} is a file of weights, which has no specification")
    else:
        inspect_weights(path, backbone, size)


def _verify(path: Path, kind: str) -> None:
    """Print what is wrong with an archive, and refuse it if anything is."""
    from fedreid_mpi.results.file_kinds import FEATURES, RESULTS, STUDY
    from fedreid_mpi.results.sources import members
    from fedreid_mpi.results.verify import verify_features, verify_results, verify_study

    if kind == KIND:
        with progress_bar("verify", len(DatasetArchive.open(path).pids)) as advance:
            faults = verify_dataset(path, advance)
    elif kind == RESULTS.kind:
        faults = verify_results(path)
    elif kind == STUDY.kind:
        with progress_bar("verify", len(members(path))) as advance:
            faults = verify_study(path, advance)
    elif kind == FEATURES.kind:
        faults = verify_features(path)
    else:
        raise DataError(f"{path}: an archive of kind '{kind}', which has no specification")
    for fault in faults:
        click.echo(f"{path}: {fault}")
    if faults:
        others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{path}: does not verify: {faults[0]}{others}")
    click.echo(f"{path}: verified, nothing wrong")


def _print_dataset(archive: DatasetArchive) -> None:
    from rich.table import Table

    size = f"{archive.height}x{archive.width}"
    table = Table(title=f"{archive.name}: {counted(len(archive.pids), 'image')} of {size} pixels")
    for heading in ("split", "role"):
        table.add_column(heading)
    for heading in ("images", "identities", "cameras"):
        table.add_column(heading, justify="right")
    for split in range(archive.splits):
        for role in archive.roles(split):
            chosen = archive.split(role, split)
            pids = archive.pids[chosen]
            counts = (len(chosen), len(np.unique(pids[pids >= 0])), len(np.unique(archive.camids[chosen])))
            table.add_row(str(split), role, *(f"{count:,}" for count in counts))
    print_table(table)


def _print_index(path: Path) -> None:
    from rich.table import Table

    from fedreid_mpi.results.sources import read_index

    rows = read_index(path)
    table = Table(title=f"{path}: {counted(len(rows), 'run')}")
    shown = ("label", "state", "round", "rounds", "source", "linked")
    for heading in shown:
        table.add_column(
            heading, justify="right" if heading in ("round", "rounds") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    print_table(table)


def _print_tree(path: Path, nodes: list[Node]) -> None:
    from rich.table import Table

    table = Table(title=str(path))
    for heading in ("name", "shape", "type", "units", "description"):
        table.add_column(heading)
    for node in nodes[1:]:
        shape = "" if node.shape is None else " × ".join(map(str, node.shape)) or "scalar"
        described = (str(node.attributes.get(key, "")) for key in ("units", "description"))
        table.add_row(node.name, shape, node.dtype or "group", *described)
    print_table(table)


def _print_attributes(attributes: Mapping[str, object]) -> None:
    from rich.table import Table

    table = Table(title="Attributes", show_header=False)
    for name, value in attributes.items():
        text = " ".join(str(value).split())
        table.add_row(name, text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
    print_table(table)
