"""``fedreid-mpi backbones``: the networks that can be trained, with their size and memory."""

from collections.abc import Sequence

import click

from fedreid_mpi.cli.console import print_table
from fedreid_mpi.cli.sizes import size_option
from fedreid_mpi.errors import ConfigurationError

MEGABYTE = 1e6


@click.command("backbones")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@size_option("Height and width of the images.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Images in a training batch.",
)
@click.option(
    "--embedding-dim",
    type=click.IntRange(min=0),
    default=512,
    show_default=True,
    help="Length of the embedding; 0: none.",
)
@click.option(
    "--last-stride",
    type=click.Choice(["1", "2"]),
    default="2",
    show_default=True,
    help="Stride of the last stage.",
)
def command(
    names: tuple[str, ...], size: tuple[int, int], batch_size: int, embedding_dim: int, last_stride: str
) -> None:
    """List the built-in backbones, or those called NAME, e.g. timm:vit_small_patch16_224.

    For each: parameters, width of the feature, the mean and deviation that pixels are normalised by,
    megabytes of the model in one message, and megabytes that one rank needs to train it in float32: its
    state, and what one step keeps of a batch for the backward pass. The libraries' workspaces come on top.

    In a round each client rank is sent one message, and sends a sum of twice its size.

    \b
      fedreid-mpi backbones --size 128x64
      fedreid-mpi backbones resnet50 timm:vit_small_patch16_224 --batch-size 64
    """  # noqa: D301 (click needs the backspace)
    from rich.table import Table

    from fedreid_mpi import config
    from fedreid_mpi.model import measure

    table = Table(title=f"Batches of {batch_size} images of {size[0]}x{size[1]}")
    table.add_column("backbone", no_wrap=True)
    for heading in ("parameters", "feature", "mean", "deviation", "MB per message", "MB per rank"):
        table.add_column(heading, justify="right")
    refused: list[str] = []
    for name in names or config.BACKBONES:
        settings = config.model_settings(
            backbone=name, embedding_dim=embedding_dim, last_stride=int(last_stride)
        )
        try:
            found = measure(settings, size, batch_size)
        except ConfigurationError as error:
            if names:
                raise
            refused.append(str(error))
            continue
        scale = found.pixel_scale
        table.add_row(
            name,
            f"{found.parameters:,}",
            str(found.dimension),
            _channels(scale.mean),
            _channels(scale.deviation),
            f"{found.message / MEGABYTE:,.1f}",
            f"{found.rank / MEGABYTE:,.0f}",
        )
    print_table(table)
    for line in refused:
        click.echo(line)
    if not names:
        click.echo("timm:NAME is any network of timm that gives a feature vector; name it to list it here.")


def _channels(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:.3f}" for value in values)
