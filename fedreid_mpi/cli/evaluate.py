"""``fedreid-mpi evaluate``: score a trained model on any prepared dataset."""

from pathlib import Path

import click

from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.errors import ConfigurationError, DataError

PROTOCOLS = ("standard", "published", "single-gallery-shot")


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("archives", metavar="DATA.h5...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="standard",
    show_default=True,
    help="standard: AP is the mean precision at the matches. published: trapezoid AP, a query without a "
    "match counts as zero. single-gallery-shot: one random gallery image a person, mean of 10 draws.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write features and each query's AP to this file."
)
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(("fp32", "tf32", "bf16")), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random draws.")
def command(
    model: Path,
    archives: tuple[Path, ...],
    protocol: str,
    save: Path | None,
    device: str,
    precision: str,
    threads: int,
    seed: int,
) -> None:
    """Score MODEL on the test splits of one or more dataset archives.

    MODEL is a .safetensors file from a run's folder models/. Features are the embedding of an image plus
    that of its mirror image; galleries are ranked by cosine similarity.

    \b
      fedreid-mpi evaluate runs/1/models/global.safetensors archives/*.h5
      fedreid-mpi evaluate MODEL archives/viper.h5 --save features.h5
    """  # noqa: D301 (click needs the backspace)
    import socket

    from rich.table import Table

    from fedreid_mpi import config
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.device import choose_device, set_arithmetic
    from fedreid_mpi.evaluation import extract_features, query_then_gallery, rank_gallery
    from fedreid_mpi.model import load_model
    from fedreid_mpi.results.features import DatasetFeatures, write_features

    if save is not None and not save.resolve().parent.is_dir():
        raise ConfigurationError(f"--save {save}: no such folder {save.resolve().parent}")
    compute = config.Compute.model_validate({"device": device, "precision": precision, "threads": threads})
    stored = load_model(model)
    where = choose_device(compute, 0, 1, socket.gethostname())
    set_arithmetic(compute, where)
    network = stored.network.to(where)
    datasets = [DatasetArchive.open(path) for path in archives]
    for archive in datasets:
        if (archive.height, archive.width) != (stored.height, stored.width):
            raise DataError(
                f"{archive.path}: images are {archive.height}x{archive.width}, "
                f"expected {stored.height}x{stored.width} as in {model}"
            )
    total = sum(len(query_then_gallery(archive)) for archive in datasets)
    table = Table(title=f"{model}, protocol {protocol}")
    for column in ("dataset", "rank-1", "rank-5", "rank-10", "mAP", "mINP", "queries", "unmatched"):
        table.add_column(column, justify="left" if column == "dataset" else "right")
    kept: dict[str, DatasetFeatures] = {}
    with progress_bar("features", total) as advance:
        for archive in datasets:
            indices = query_then_gallery(archive)
            features = extract_features(network, archive, indices, compute, advance)
            ranking = rank_gallery(features, archive, protocol, seed)  # type: ignore[arg-type]
            scores = ranking.scores()
            shares = [scores.cmc[0], scores.cmc[4], scores.cmc[9], scores.mean_ap, scores.mean_inp]
            percent = [f"{100 * share:.1f}" if share == share else "–" for share in shares]
            table.add_row(archive.name, *percent, f"{scores.queries:,}", f"{scores.unmatched:,}")
            if save is not None:
                kept[archive.name] = DatasetFeatures.of(archive, features.cpu().numpy(), ranking)
    print_table(table)
    if save is not None:
        write_features(save, model, protocol, kept)
        click.echo(f"features and per-query scores: {save}")
