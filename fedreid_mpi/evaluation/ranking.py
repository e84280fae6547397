"""How well features rank a gallery: CMC, mean average precision and mean inverse negative penalty.

A query's score depends only on the ranks of its true matches, and a match's rank is its place among the
matches plus the number of negatives before it. So no gallery is ever sorted: each query's few matches are,
and the negatives that come before the last of them are counted in between. Distances are computed for a
block of queries at a time, which bounds the memory whatever the size of the gallery. They are exact (see
`fedreid_mpi.evaluation.distances`); what is equal ranks by gallery index.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fedreid_mpi.algorithms import seeds
from fedreid_mpi.evaluation.distances import Features, Rows, compare
from fedreid_mpi.records import CMC_RANKS, Advance, EvaluationProtocol, Scores

SHOTS = 10
"""Number of draws that `single-gallery-shot` averages over."""

BLOCK_ELEMENTS = 1 << 22
"""Most distances held at a time: 32 MiB."""

_INDICES = 1 << 32

_Labels = NDArray[np.integer[Any]] | torch.Tensor


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores of one ranked gallery, and what they are the means of.

    Attributes
    ----------
    cmc
        Shape (`CMC_RANKS`,), float64: share of queries with a true match at or before each rank.
    mean_ap, mean_inp
        Mean average precision and mean inverse negative penalty, in [0, 1]; NaN for `single-gallery-shot`.
        All three are NaN where no query has a match (`published`: 0).
    queries
        Number of queries with at least one match.
    unmatched
        Number of queries without.
    average_precision, inverse_negative_penalty
        Shape (all queries,), float64; NaN for unmatched queries and for `single-gallery-shot`.
    first_match
        Shape (all queries,), float64: rank of the first true match, from 1; 0 for unmatched queries. For
        `single-gallery-shot` its mean over the draws.
    """

    cmc: NDArray[np.float64]
    mean_ap: float
    mean_inp: float
    queries: int
    unmatched: int
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]
    first_match: NDArray[np.float64]

    def scores(self) -> Scores:
        """Return the part that is kept for every evaluation."""
        return Scores(self.cmc, self.mean_ap, self.mean_inp, self.queries, self.unmatched)


Distances = Callable[[Rows, Rows], Iterator[torch.Tensor]]
"""Compares queries with a gallery of G images: yields blocks of shape (some queries, G), in query order.

Distances are float64, whole numbers of steps from -`STEPS` to `STEPS`, and lower is nearer. A block is the
receiver's to write to, and its to use until it asks for the next: all may be one and the same memory.
"""


def cosine_distances(query: Rows, gallery: Rows) -> Iterator[torch.Tensor]:
    """Yield minus the cosine similarities, in steps; see `Distances`."""
    block = new_block(query, len(gallery))
    for start in range(0, len(query), len(block)):
        yield compare(query.unit(slice(start, start + len(block))), gallery, out=block)


def new_block(rows: Rows, columns: int) -> torch.Tensor:
    """Make a block for the distances of as many rows as fit into `BLOCK_ELEMENTS`, at least one.

    It is made once and used again: small results between large blocks that come and go would scatter them.
    """
    size = min(max(1, BLOCK_ELEMENTS // columns), len(rows))
    return rows.lengths.new_empty(size, columns)


@dataclass(frozen=True, slots=True)
class _Images:
    """Features and camera ids (N,) int64 on the device; person ids (N,) int64 on the host."""

    features: Rows
    pids: NDArray[np.int64]
    camids: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One query against the gallery of G images.

    Attributes
    ----------
    matches
        Gallery indices of its n true matches, shape (n,) int64, ascending.
    match_distances
        Their distances in whole steps, shape (n,) float64.
    negative_distances
        Distances of all images, shape (G,) float64: inf for what is no negative.
    """

    matches: torch.Tensor
    match_distances: torch.Tensor
    negative_distances: torch.Tensor


def evaluate_ranking(
    query_features: Features,
    query_pids: _Labels,
    query_camids: _Labels,
    gallery_features: Features,
    gallery_pids: _Labels,
    gallery_camids: _Labels,
    protocol: EvaluationProtocol = "standard",
    seed: int = 0,
    advance: Advance | None = None,
    distances: Distances = cosine_distances,
) -> Ranking:
    """Rank the gallery for every query by cosine similarity and score the result.

    Junk is left out of a query's gallery: images of the same person under the same camera, and person -1.
    Person 0 (background) stays as a negative. Equal distance ranks by lower gallery index.

    With r_1 < ... < r_n the ranks of a query's true matches, counted from 1:

    * ``standard``: CMC@k is the share of queries with r_1 <= k, AP the mean of i / r_i, INP is n / r_n (Ye et
      al., "Deep Learning for Person Re-identification", TPAMI 2021, section 4.1). Queries without a match are
      left out of all means.
    * ``published``: as the Market-1501 evaluation and the public code of Zhuang et al. have it: AP by the
      trapezoid rule, the mean over i of the average of i / r_i and (i - 1) / (r_i - 1), the latter 1 where
      r_i = 1; queries without a match score 0 in the means.
    * ``single-gallery-shot``: the classic protocol of CUHK03. One gallery image per person, CMC only, the
      mean of `SHOTS` draws. Draw d puts the gallery in the random order of the stream
      ``(seed, "single-gallery-shot", d)``; a query meets the first image in that order of each person, junk
      passed over. Hence all queries of a draw meet the same image of any person but their own, and a
      query's score depends on no other query. Person 0 counts as one person. Queries without a match are
      left out.

    Parameters
    ----------
    query_features, gallery_features
        Shapes (Q, D) and (G, D), any floating-point type, arrays or tensors; need not be normalised. A zero
        vector has similarity 0 with all. The work is done on the device of the query features.
    query_pids, query_camids, gallery_pids, gallery_camids
        Person and camera ids, shapes (Q,) and (G,), integers.
    protocol
        See above.
    seed
        Of the draws; used by `single-gallery-shot` alone.
    advance
        Called with the number of queries just ranked.
    distances
        Ranks by these distances instead, e.g. by `fedreid_mpi.evaluation.reranking.Reranking`.

    Returns
    -------
    Ranking
        The same whatever the block size; permuting the queries only permutes its arrays.

    Raises
    ------
    ValueError
        If the protocol is unknown, shapes do not fit, there are no images or a feature is not finite.
    """
    if protocol not in get_args(EvaluationProtocol):
        raise ValueError(f"protocol {protocol!r}, expected one of {', '.join(get_args(EvaluationProtocol))}")
    device = query_features.device if isinstance(query_features, torch.Tensor) else torch.device("cpu")
    query = _images("query", query_features, query_pids, query_camids, device)
    gallery = _images("gallery", gallery_features, gallery_pids, gallery_camids, device)
    widths = [images.features.values.shape[1] for images in (query, gallery)]
    if widths[0] != widths[1]:
        raise ValueError(f"query features have {widths[0]} dimensions, gallery {widths[1]}")
    comparisons = _compare(distances(query.features, gallery.features), query, gallery, advance)
    if protocol == "single-gallery-shot":
        draws = _draw_shots(gallery.pids, seed, device)
        return _score_shots(torch.stack([_shot_ranks(each, *draws) for each in comparisons]).cpu().numpy())
    ranks = [_match_ranks(each) for each in comparisons]
    counts = np.array([len(each) for each in ranks])
    return _score_matches(counts, torch.cat(ranks).cpu().numpy(), published=protocol == "published")


def _images(name: str, features: Features, pids: _Labels, camids: _Labels, device: torch.device) -> _Images:
    """Check one side of the comparison and bring it to the device."""
    rows = Rows.of(name, features, device)

    def labels(kind: str, values: _Labels) -> NDArray[np.int64]:
        on_host = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
        array: NDArray[np.int64] = np.array(on_host, dtype=np.int64)
        if array.shape != (len(rows),):
            raise ValueError(f"{name} {kind} have shape {array.shape}, expected ({len(rows)},)")
        return array

    return _Images(rows, labels("pids", pids), torch.from_numpy(labels("camids", camids)).to(device))


def _compare(
    blocks: Iterator[torch.Tensor], query: _Images, gallery: _Images, advance: Advance | None
) -> Iterator[_Comparison]:
    """Separate matches from negatives, for the queries one by one."""
    device = gallery.camids.device
    by_person = np.argsort(gallery.pids, kind="stable")
    people = gallery.pids[by_person]
    starts = np.searchsorted(people, query.pids, "left")
    stops = np.where(query.pids == -1, starts, np.searchsorted(people, query.pids, "right"))
    images = torch.from_numpy(by_person).to(device)
    junk = torch.from_numpy(np.flatnonzero(gallery.pids == -1)).to(device)

    start = 0
    for block in blocks:
        block[:, junk] = torch.inf
        for i, distances in enumerate(block, start):
            own = images[starts[i] : stops[i]]
            matches = own[gallery.camids[own] != query.camids[i]]
            match_distances = distances[matches]
            distances[own] = torch.inf
            yield _Comparison(matches, match_distances, distances)
        start += len(block)
        if advance is not None:
            advance(len(block))


def _match_ranks(comparison: _Comparison) -> torch.Tensor:
    """Rank the true matches of a query: ranks from 1, shape (n,) int64, ascending."""
    if len(comparison.matches) == 0:
        return comparison.matches
    matches = _keys(comparison.match_distances, comparison.matches).sort().values
    rivals = torch.nonzero(comparison.negative_distances <= comparison.match_distances.max())[:, 0]
    # Each rival is counted at the first match behind it; a running sum then gives all those before a match.
    behind = torch.searchsorted(matches, _keys(comparison.negative_distances[rivals], rivals))
    before = torch.bincount(behind, minlength=len(matches) + 1)[:-1].cumsum(0)
    return before + torch.arange(1, len(matches) + 1, device=before.device)


def _keys(distances: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Join finite distances and gallery indices into integers that sort by distance, then by index."""
    return distances.to(torch.int64) * _INDICES + indices


def _score_matches(counts: NDArray[np.int64], ranks: NDArray[np.int64], published: bool) -> Ranking:
    """Score queries from the ranks of their matches; see `_match_ranks` for the arguments' form."""
    query = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    found = np.arange(1, len(ranks) + 1) - np.repeat(ends - counts, counts)
    precision = found / ranks
    if published:
        before = np.where(ranks == 1, 1.0, (found - 1) / np.maximum(ranks - 1, 1))
        precision = (precision + before) / 2

    matched = counts > 0
    first, last = np.zeros(len(counts)), np.zeros(len(counts))
    first[matched] = ranks[(ends - counts)[matched]]
    last[matched] = ranks[ends[matched] - 1]
    with np.errstate(invalid="ignore"):  # 0 / 0 for unmatched queries is the NaN they should have
        average_precision = np.bincount(query, weights=precision, minlength=len(counts)) / counts
        inverse_negative_penalty = counts / last
    scored = len(counts) if published else int(matched.sum())
    return Ranking(
        cmc=_cmc(first[matched], scored),
        mean_ap=_mean(average_precision[matched], scored),
        mean_inp=_mean(inverse_negative_penalty[matched], scored),
        queries=int(matched.sum()),
        unmatched=int((~matched).sum()),
        average_precision=average_precision,
        inverse_negative_penalty=inverse_negative_penalty,
        first_match=first,
    )


def _draw_shots(
    gallery_pids: NDArray[np.int64], seed: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the random orders of `single-gallery-shot`.

    Returns
    -------
    turns
        Shape (SHOTS, G): place of every image in the order of each draw.
    firsts
        Shape (SHOTS, people): index of every person's first image in it.
    """
    turns, firsts = [], []
    for draw in range(SHOTS):
        order = seeds.generator(seed, "single-gallery-shot", draw).permutation(len(gallery_pids))
        turns.append(np.argsort(order))
        firsts.append(order[np.unique(gallery_pids[order], return_index=True)[1]])
    return torch.from_numpy(np.stack(turns)).to(device), torch.from_numpy(np.stack(firsts)).to(device)


def _shot_ranks(comparison: _Comparison, turns: torch.Tensor, firsts: torch.Tensor) -> torch.Tensor:
    """Rank the one true match of a query in every draw: shape (SHOTS,) int64, 0 if it has none."""
    matches = comparison.matches
    if len(matches) == 0:
        return torch.zeros(SHOTS, dtype=torch.int64, device=matches.device)
    chosen = turns[:, matches].argmin(1, keepdim=True)
    match, distance = matches[chosen], comparison.match_distances[chosen]
    others = comparison.negative_distances[firsts]
    return ((others < distance) | ((others == distance) & (firsts < match))).sum(1) + 1


def _score_shots(ranks: NDArray[np.int64]) -> Ranking:
    """Score queries from the rank of their match in every draw, 0 for unmatched queries."""
    matched = ranks[:, 0] > 0
    nothing = np.full(len(ranks), np.nan)
    return Ranking(
        cmc=_cmc(ranks[matched], ranks[matched].size),
        mean_ap=math.nan,
        mean_inp=math.nan,
        queries=int(matched.sum()),
        unmatched=int((~matched).sum()),
        average_precision=nothing,
        inverse_negative_penalty=nothing.copy(),
        first_match=ranks.mean(1),
    )


def _cmc(first_ranks: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the share of ``count`` searches whose first match is at or before each rank."""
    if count == 0:
        return np.full(CMC_RANKS, np.nan)
    ranks = first_ranks[first_ranks <= CMC_RANKS].astype(np.int64)
    return np.bincount(ranks, minlength=CMC_RANKS + 1)[1:].cumsum() / count


def _mean(values: NDArray[np.float64], count: int) -> float:
    """Return the sum over ``count``; summed exactly, so that the order of the queries does not show."""
    return math.fsum(values) / count if count else math.nan
