"""What ``fedreid-mpi inspect`` says of a model of this program, and of a file of weights."""

from collections import Counter
from pathlib import Path

import click

from fedreid_mpi.cli.console import print_table
from fedreid_mpi.errors import DataError

ENDINGS = frozenset({".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt"})
"""Endings, in lower case, of files that hold tensors."""

SHOWN = 3
"""Names of a kind that are shown."""


def inspect_weights(path: Path, backbone: str | None, size: tuple[int, int]) -> None:
    """Print what a file of tensors is, and what would become of them as ``model.weights``.

    Raises
    ------
    DataError
        The file cannot be read, or does not fit.
    """
    from rich.table import Table

    from fedreid_mpi.model import read_weights, recognise, try_on

    weights = read_weights(path)
    found = (backbone, try_on(weights, backbone, size)) if backbone else recognise(weights, size)
    if found is None:
        raise DataError(f"{path}: no backbone that is tried has any of its tensors; name it with --backbone")
    name, account = found
    table = Table(
        title=f"{path}, as the weights of {name} for images of {size[0]}x{size[1]}", show_header=False
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if account.way:
        table.add_row("read from", " ".join(account.way))
    if account.layout:
        table.add_row("it is", account.layout)
    table.add_row("loaded", _shown(tuple(account.loaded.values())))
    for line in account.resized:
        table.add_row("interpolated", line)
    for why in Counter(account.left_out.values()):
        table.add_row(f"left out: {why}", _shown(tuple(n for n, w in account.left_out.items() if w == why)))
    if account.beside:
        table.add_row("ignored", _shown(account.beside))
    for words, names in (
        ("missing", account.missing),
        ("unexpected", account.unexpected),
        ("of another shape", account.misshapen),
    ):
        if names:
            table.add_row(words, _shown(names))
    print_table(table)
    if account.faults:
        raise DataError(f"{path}: does not fit {name}: {'; '.join(account.faults)}")
    click.echo(f'{path}: fits; model.backbone = "{name}"')


def inspect_model(path: Path) -> None:
    """Print what a model of this program is.

    Raises
    ------
    DataError
        It is damaged.
    """
    from rich.table import Table

    from fedreid_mpi.model import load_model

    stored = load_model(path)
    network, scale = stored.network, stored.network.pixel_scale
    table = Table(title=f"{path}: a model of this program", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in stored.settings.model_dump(exclude={"weights"}).items():
        table.add_row(key, str(value))
    table.add_row("round", f"{stored.round:,}")
    table.add_row("images", f"{stored.height}x{stored.width}")
    table.add_row("mean of pixels", " ".join(f"{value:g}" for value in scale.mean))
    table.add_row("deviation", " ".join(f"{value:g}" for value in scale.deviation))
    table.add_row("feature", str(network.width))
    table.add_row("parameters", f"{sum(each.numel() for each in network.parameters()):,}")
    table.add_row("SHA-256", f"{stored.digest}, as it was written")
    print_table(table)


def _shown(names: tuple[str, ...]) -> str:
    return f"{len(names):,}: {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)}"
