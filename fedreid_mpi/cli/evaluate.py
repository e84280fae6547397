"""``fedreid-mpi evaluate``: score a trained model on any prepared dataset."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.records import EvaluationProtocol, Scores

if TYPE_CHECKING:
    from fedreid_mpi.evaluation.reranking import Reranking

PROTOCOLS = ("standard", "published", "single-gallery-shot")

COLUMNS = ("dataset", "rank-1", "rank-5", "rank-10", "mAP", "mINP", "queries", "unmatched", "splits")


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("archives", metavar="DATA.h5...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="standard",
    show_default=True,
    help="standard: AP is the mean precision at the matches. published: trapezoid AP, a query without a "
    "match counts as zero. single-gallery-shot: one random gallery image per person, mean of 10 draws.",
)
@click.option("--split", type=click.IntRange(min=0), help="Score this split alone, not all of an archive's.")
@click.option(
    "--multi-query",
    is_flag=True,
    help="Use the mean of a person's multi-query images in the query's camera (Market-1501: gt_bbox).",
)
@click.option(
    "--mirror/--no-mirror",
    default=True,
    show_default=True,
    help="Whether the feature of an image's mirror image is added to its own.",
)
@click.option("--rerank", is_flag=True, help="Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017).")
@click.option("--k1", type=click.IntRange(min=1), help="Neighbours that re-ranking looks at.  [default: 20]")
@click.option("--k2", type=click.IntRange(min=1), help="Neighbours that it averages over.  [default: 6]")
@click.option(
    "--lambda",
    "weight",
    type=click.FloatRange(0, 1),
    help="Share of the original distance after re-ranking.  [default: 0.3]",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write features and each query's AP to this file."
)
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
@click.option(
    "--precision",
    type=click.Choice(("fp32", "tf32", "bf16")),
    default="fp32",
    show_default=True,
    help="Arithmetic of the features.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random draws."
)
@SHARED
def command(
    model: Path,
    archives: tuple[Path, ...],
    protocol: EvaluationProtocol,
    split: int | None,
    multi_query: bool,
    mirror: bool,
    rerank: bool,
    k1: int | None,
    k2: int | None,
    weight: float | None,
    save: Path | None,
    device: str,
    precision: str,
    threads: int,
    seed: int,
) -> None:
    """Score MODEL on the test splits of one or more dataset archives.

    MODEL is a .safetensors file from a run's folder models/. Features are the embedding of an image plus
    that of its mirror image; galleries are ranked by cosine similarity. An archive with several splits is
    scored on all: mean ± sample deviation. (A run's own scores, taken while it trains, are of split 0.)

    \b
      fedreid-mpi evaluate runs/1/models/global.safetensors archives/*.h5
      fedreid-mpi evaluate MODEL archives/viper.h5 --split 0 --save features.h5
      fedreid-mpi evaluate MODEL archives/market1501.h5 --multi-query --rerank
    """  # noqa: D301 (click needs the backspace)
    import socket

    from rich.table import Table

    from fedreid_mpi import config
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.data.partition import require_distinct
    from fedreid_mpi.device import choose_device, memory_format, set_arithmetic
    from fedreid_mpi.evaluation import (
        Scoring,
        extract_parts,
        images_to_score,
        query_then_gallery,
        score_split,
    )
    from fedreid_mpi.evaluation.ranking import cosine_distances
    from fedreid_mpi.model import load_model
    from fedreid_mpi.results.features import write_features

    reranking = _reranking(rerank, protocol, {"k1": k1, "k2": k2, "weight": weight})
    compute = config.Compute.model_validate({"device": device, "precision": precision, "threads": threads})
    stored = load_model(model)
    where = choose_device(compute, 0, 1, socket.gethostname())
    set_arithmetic(compute, where)
    network = stored.network.place(where, memory_format(compute, where))
    datasets = [DatasetArchive.open(path) for path in archives]
    for archive in datasets:
        if (archive.height, archive.width) != (stored.height, stored.width):
            raise DataError(
                f"{archive.path}: images are {archive.height}x{archive.width}, "
                f"expected {stored.height}x{stored.width} as in {model}"
            )
    require_distinct(datasets)
    if save is not None and not save.resolve().parent.is_dir():
        raise ConfigurationError(f"--save {save}: no such folder {save.resolve().parent}")
    splits = [list(range(archive.splits)) if split is None else [split] for archive in datasets]
    parts = [images_to_score(*each, multi_query) for each in zip(datasets, splits, strict=True)]
    steps = sum(len(part) for images in parts for part in images)
    for archive, numbers in zip(datasets, splits, strict=True):
        for number in numbers:
            steps += len(archive.split("query", number))
            steps += rerank * len(query_then_gallery(archive, number))

    made: dict[str, str | float] = {
        "protocol": protocol,
        "seed": seed,
        "multi_query": multi_query,
        "mirror": mirror,
        "reranked": rerank,
    }
    title = f"{model}, protocol {protocol}{', multi-query' if multi_query else ''}"
    title += "" if mirror else ", without mirror images"
    if reranking is not None:
        made |= {"k1": reranking.k1, "k2": reranking.k2, "lambda": reranking.weight}
        title += f", re-ranked (k1 {reranking.k1}, k2 {reranking.k2}, lambda {reranking.weight:g})"
    table = Table(title=title)
    several = max(map(len, splits)) > 1
    for column in COLUMNS if several else COLUMNS[:-1]:
        table.add_column(column, justify="left" if column == "dataset" else "right")
    with ExitStack() as stack:
        advance = stack.enter_context(progress_bar("images", steps))
        kept = stack.enter_context(write_features(save, model, made)) if save is not None else None
        distances = replace(reranking, advance=advance) if reranking is not None else cosine_distances
        scoring = Scoring(protocol, seed, multi_query, distances)
        for archive, numbers, images in zip(datasets, splits, parts, strict=True):
            extracted = extract_parts(network, archive, images, compute, mirror, advance)
            rankings = {number: score_split(extracted, number, scoring, advance) for number in numbers}
            if kept is not None:
                kept.add(extracted, rankings)
            del extracted  # not two datasets' features at a time
            cells = _cells([ranking.scores() for ranking in rankings.values()])
            table.add_row(archive.name, *cells, *([str(len(numbers))] if several else []))
    print_table(table)
    if save is not None:
        click.echo(f"features and per-query scores: {save}")


def _reranking(
    wanted: bool, protocol: EvaluationProtocol, settings: Mapping[str, float | None]
) -> "Reranking | None":
    """Check the options of re-ranking."""
    given = {name: value for name, value in settings.items() if value is not None}
    if not wanted:
        if given:
            raise ConfigurationError("--k1, --k2 and --lambda belong to --rerank, which is not given")
        return None
    if protocol == "single-gallery-shot":
        raise ConfigurationError("--rerank uses the whole gallery, which single-gallery-shot does not show")
    from fedreid_mpi.evaluation.reranking import Reranking

    try:
        return Reranking(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigurationError(f"--rerank: {error}") from error


def _cells(scores: Sequence[Scores]) -> list[str]:
    """Fill a row of the table: means, and deviations where there are several splits."""
    from fedreid_mpi.evaluation import mean_and_deviation

    def percent(shares: Sequence[float]) -> str:
        mean, deviation = (100 * value for value in mean_and_deviation(shares))
        if mean != mean:
            return "–"
        return f"{mean:.1f} ± {deviation:.1f}" if len(shares) > 1 else f"{mean:.1f}"

    def count(numbers: Sequence[int]) -> str:
        low, high = min(numbers), max(numbers)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    return [
        *(percent([float(each.cmc[rank - 1]) for each in scores]) for rank in (1, 5, 10)),
        percent([each.mean_ap for each in scores]),
        percent([each.mean_inp for each in scores]),
        count([each.queries for each in scores]),
        count([each.unmatched for each in scores]),
    ]
