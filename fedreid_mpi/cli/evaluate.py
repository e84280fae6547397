"""``fedreid-mpi evaluate``: score trained models on any prepared datasets."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.cli.computing import DEVICE, MIRROR, THREADS, place_networks
from fedreid_mpi.cli.console import print_table, progress_bar
from fedreid_mpi.cli.log import logged, timed
from fedreid_mpi.cli.sharing import SHARED
from fedreid_mpi.cli.wide_tables import print_blocks
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.records import EvaluationProtocol, Scores
from fedreid_mpi.wording import counted

if TYPE_CHECKING:
    from fedreid_mpi import config
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.evaluation import Scoring
    from fedreid_mpi.evaluation.comparison import Candidate, Outcome, Trial
    from fedreid_mpi.evaluation.reranking import Reranking

_LOG = logging.getLogger(__name__)

PROTOCOLS = ("standard", "published", "single-gallery-shot")

COLUMNS = ("dataset", "rank-1", "rank-5", "rank-10", "mAP", "mINP", "queries", "unmatched", "splits")

COMPARED = ("rank-1", "mAP")
"""Scores that several models are compared by, a table each."""

MISSING = "–"

ARCHIVES = frozenset({".h5", ".hdf5"})
"""Endings, in lower case, of dataset archives; every other file is taken for a model."""


@click.command("evaluate")
@click.argument(
    "files", metavar="MODEL... DATA.h5...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
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
@MIRROR
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
    "-o", "--output", type=click.Path(path_type=Path), help="Write the scores to this file: .csv or .json."
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="Write features and each query's AP to this file; of one model.",
)
@DEVICE
@click.option(
    "--precision",
    type=click.Choice(("fp32", "tf32", "bf16")),
    default="fp32",
    show_default=True,
    help="Arithmetic of the features.",
)
@THREADS
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random draws."
)
@logged("the scores")
@SHARED
def command(
    files: tuple[Path, ...],
    protocol: EvaluationProtocol,
    split: int | None,
    multi_query: bool,
    mirror: bool,
    rerank: bool,
    k1: int | None,
    k2: int | None,
    weight: float | None,
    output: Path | None,
    save: Path | None,
    device: str,
    precision: str,
    threads: int,
    seed: int,
) -> None:
    """Score one or more models on the test splits of one or more dataset archives.

    MODEL is a .safetensors file from a run's folder models/, DATA.h5 an archive; public archives are skipped.
    Features are the embedding of an image plus that of its mirror image; galleries are ranked by cosine
    similarity. An archive with several splits is scored on all: mean ± sample deviation. (A run's own scores,
    taken while it trains, are of split 0.)

    Several models are compared in two tables, rank-1 and mAP: one row per dataset, one column per model.
    Each is scored on the archives of its own image size, so a dataset may be there once for each size.
    -o writes all scores, one row per model, dataset and split.

    \b
      fedreid-mpi evaluate runs/1/models/global.safetensors archives/*.h5
      fedreid-mpi evaluate runs/[12]/models/global.safetensors archives/*.h5 -o scores.csv
      fedreid-mpi evaluate MODEL archives/viper.h5 --split 0 --save features.h5
      fedreid-mpi evaluate MODEL archives/market1501.h5 --multi-query --rerank
    """  # noqa: D301 (click needs the backspace)
    from fedreid_mpi import config
    from fedreid_mpi.evaluation import Scoring
    from fedreid_mpi.evaluation.comparison import plan_trials
    from fedreid_mpi.evaluation.ranking import cosine_distances
    from fedreid_mpi.report.model_scores import outcome_rows, write_rows

    reranking = _reranking(rerank, protocol, {"k1": k1, "k2": k2, "weight": weight})
    compute = config.Compute.model_validate({"device": device, "precision": precision, "threads": threads})
    paths = [path for path in files if path.suffix.lower() not in ARCHIVES]
    archives = [path for path in files if path.suffix.lower() in ARCHIVES]
    _check_call(paths, archives, output, save)
    candidates = _load(paths)
    trials = plan_trials(candidates, _tested(archives), split, multi_query)
    made: dict[str, str | float] = {
        "protocol": protocol,
        "seed": seed,
        "multi_query": multi_query,
        "mirror": mirror,
        "reranked": rerank,
    }
    if reranking is not None:
        made |= {"k1": reranking.k1, "k2": reranking.k2, "lambda": reranking.weight}
    scoring = Scoring(protocol, seed, multi_query, reranking or cosine_distances)
    place_networks(compute, *(each.stored.network for each in candidates))
    outcomes = _run_trials(trials, scoring, compute, mirror, save, made)
    how = _how(scoring, mirror)
    if len(candidates) == 1:
        _print_scores(f"{paths[0]}, {how}", outcomes)
    else:
        _print_comparison(how, [each.name for each in candidates], outcomes)
    if output is not None:
        write_rows(output, outcome_rows(outcomes, made))
        _LOG.info("scores: %s", output)
    if save is not None:
        _LOG.info("features and per-query scores: %s", save)


def _check_call(
    models: Sequence[Path], archives: Sequence[Path], output: Path | None, save: Path | None
) -> None:
    """Refuse what cannot end well, before any work."""
    from fedreid_mpi.report.model_scores import require_table

    if not models:
        raise ConfigurationError(f"no model among {_listed(archives)}, expected MODEL... DATA.h5...")
    if not archives:
        raise ConfigurationError(f"no archive (.h5) among {_listed(models)}, expected MODEL... DATA.h5...")
    if save is not None and len(models) > 1:
        raise ConfigurationError(f"--save {save}: holds the features of one model, found {len(models)}")
    if output is not None:
        require_table(output)
    for option, path in (("--save", save), ("-o", output)):
        if path is not None and not path.resolve().parent.is_dir():
            raise ConfigurationError(f"{option} {path}: no such folder {path.resolve().parent}")


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _load(paths: Sequence[Path]) -> "list[Candidate]":
    """Read all models first, so that a damaged one is found before any is scored."""
    from fedreid_mpi.evaluation.comparison import Candidate, name_models
    from fedreid_mpi.model import load_model

    candidates = []
    for path, name in zip(paths, name_models(paths), strict=True):
        with timed(f"{path}: read"):
            candidates.append(Candidate(path, name, load_model(path)))
    return candidates


def _tested(paths: Sequence[Path]) -> "list[DatasetArchive]":
    """Open archives, and pass over public ones by saying so."""
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.evaluation.comparison import is_public

    archives = [DatasetArchive.open(path) for path in paths]
    public = [archive for archive in archives if is_public(archive)]
    if len(public) == len(archives):
        raise DataError(
            f"{_listed(paths)}: public, without test images; expected a dataset that is tested on"
        )
    for archive in public:
        _LOG.info("skipped: %s: public, without test images", archive.path)
    return [archive for archive in archives if not is_public(archive)]


def _run_trials(
    trials: "Sequence[Trial]",
    scoring: "Scoring",
    compute: "config.Compute",
    mirror: bool,
    save: Path | None,
    made: Mapping[str, str | float],
) -> "list[Outcome]":
    """Score each model on each of its archives; keep the features where they are wanted."""
    from fedreid_mpi.evaluation import extract_parts, score_split
    from fedreid_mpi.evaluation.comparison import Outcome
    from fedreid_mpi.evaluation.reranking import Reranking
    from fedreid_mpi.results.features import write_features

    rerank = isinstance(scoring.distances, Reranking)
    outcomes = []
    with ExitStack() as stack:
        steps = sum(trial.steps(rerank) for trial in trials)
        advance = stack.enter_context(progress_bar("images", steps))
        if isinstance(scoring.distances, Reranking):
            scoring = replace(scoring, distances=replace(scoring.distances, advance=advance))
        kept = None
        if save is not None:
            kept = stack.enter_context(write_features(save, trials[0].candidate.path, made))
        for trial in trials:
            network = trial.candidate.stored.network
            what = f"{trial.candidate.name} on {trial.archive.name}"
            with timed(f"{what}: features of {counted(sum(map(len, trial.parts)), 'image')}"):
                extracted = extract_parts(network, trial.archive, trial.parts, compute, mirror, advance)
            with timed(f"{what}: {counted(len(trial.splits), 'split')} ranked"):
                rankings = {n: score_split(extracted, n, scoring, advance) for n in trial.splits}
            if kept is not None:
                kept.add(extracted, rankings)
            del extracted  # not two datasets' features at a time
            outcomes.append(Outcome(trial, {number: found.scores() for number, found in rankings.items()}))
    return outcomes


def _how(scoring: "Scoring", mirror: bool) -> str:
    """Describe how scores were made."""
    from fedreid_mpi.evaluation.reranking import Reranking

    words = f"protocol {scoring.protocol}{', multi-query' if scoring.multi_query else ''}"
    words += "" if mirror else ", without mirror images"
    if isinstance(chosen := scoring.distances, Reranking):
        words += f", re-ranked (k1 {chosen.k1}, k2 {chosen.k2}, lambda {chosen.weight:g})"
    return words


def _print_scores(title: str, outcomes: "Sequence[Outcome]") -> None:
    """Print all scores of one model, a row per dataset."""
    from rich.table import Table

    table = Table(title=title)
    several = any(len(each.scores) > 1 for each in outcomes)
    for column in COLUMNS if several else COLUMNS[:-1]:
        table.add_column(column, justify="left" if column == "dataset" else "right")
    for each in outcomes:
        cells = _cells(list(each.scores.values()))
        table.add_row(each.trial.archive.name, *cells, *([str(len(each.scores))] if several else []))
    print_table(table)


def _print_comparison(how: str, models: Sequence[str], outcomes: "Sequence[Outcome]") -> None:
    """Print a table per score: a row per dataset and one of means, a column per model."""
    import numpy as np

    scores = {(each.trial.archive.name, each.trial.candidate.name): each.scores for each in outcomes}
    datasets = list(dict.fromkeys(dataset for dataset, _ in scores))
    for metric in COMPARED:
        columns = []
        for model in models:
            found = [list(scores.get((dataset, model), {}).values()) for dataset in datasets]
            cells = [_percent(_shares(each, metric)) for each in found]
            if len(datasets) > 1:
                means = [float(np.mean(_shares(each, metric))) if each else float("nan") for each in found]
                cells.append(_percent([float(np.mean(means))]))
            columns.append((model, cells))
        if any(cell != MISSING for _, cells in columns for cell in cells):
            rows = [*datasets, *(["mean"] if len(datasets) > 1 else [])]
            print_blocks(f"{metric} in percent, {how}", rows, columns)


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


def _shares(scores: Sequence[Scores], metric: str) -> list[float]:
    """Return one score of each split."""
    if metric.startswith("rank-"):
        return [float(each.cmc[int(metric.removeprefix("rank-")) - 1]) for each in scores]
    return [each.mean_ap if metric == "mAP" else each.mean_inp for each in scores]


def _percent(shares: Sequence[float]) -> str:
    """Format the mean of a score over splits, and its deviation where there are several."""
    from fedreid_mpi.evaluation import mean_and_deviation

    if not shares:
        return MISSING
    mean, deviation = (100 * value for value in mean_and_deviation(shares))
    if mean != mean:
        return MISSING
    return f"{mean:.1f} ± {deviation:.1f}" if len(shares) > 1 else f"{mean:.1f}"


def _cells(scores: Sequence[Scores]) -> list[str]:
    """Fill a row of the table of one model."""

    def count(numbers: Sequence[int]) -> str:
        low, high = min(numbers), max(numbers)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    return [
        *(_percent(_shares(scores, metric)) for metric in ("rank-1", "rank-5", "rank-10", "mAP", "mINP")),
        count([each.queries for each in scores]),
        count([each.unmatched for each in scores]),
    ]
