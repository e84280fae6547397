"""How well features rank a gallery: CMC, mean average precision and mean inverse negative penalty.

A query's score depends only on the ranks of its true matches, and a match's rank is its place among the
matches plus the number of negatives before it. So no gallery is ever sorted: each query's few matches are,
and the negatives are counted between them. Queries go through in blocks, which bounds the memory whatever
the size of the gallery.

Every (query, gallery) pair gets one integer key: the cosine similarity rounded to a multiple of 2**-30,
best first, and the gallery index below it. Keys of a query are distinct, so there are no ties to break:
equal similarity ranks by lower gallery index. Products are summed in float64, whose error is about a
millionth of that step, so the order in which a BLAS library adds them does not show in the keys.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fedreid_mpi import seeds
from fedreid_mpi.types import CMC_RANKS, Advance, Scores

EvaluationProtocol = Literal["standard", "published", "single-gallery-shot"]
"""How a ranked gallery becomes scores; see `evaluate_ranking`."""

SHOTS = 10
"""Number of draws that `single-gallery-shot` averages over."""

BLOCK_ELEMENTS = 1 << 22
"""Most (query, gallery) pairs held at a time: about 150 MB."""

_SIMILARITY_STEPS = float(1 << 30)
_INDICES = 1 << 32
_LAST = torch.iinfo(torch.int64).max  # behind every key

_Features = NDArray[np.floating[Any]] | torch.Tensor
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


@dataclass(frozen=True, slots=True)
class _Images:
    """Unit features (N, D) float64, person and camera ids (N,) int64, all on one device."""

    features: torch.Tensor
    pids: torch.Tensor
    camids: torch.Tensor

    def __len__(self) -> int:
        return len(self.pids)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries against the whole gallery; all tensors are (queries, gallery).

    ``key`` orders the gallery of each query, int64, lowest first. ``match`` marks the same person under
    another camera; ``negative`` another person. What is neither is junk.
    """

    key: torch.Tensor
    match: torch.Tensor
    negative: torch.Tensor


def evaluate_ranking(
    query_features: _Features,
    query_pids: _Labels,
    query_camids: _Labels,
    gallery_features: _Features,
    gallery_pids: _Labels,
    gallery_camids: _Labels,
    protocol: EvaluationProtocol = "standard",
    seed: int = 0,
    advance: Advance | None = None,
) -> Ranking:
    """Rank the gallery for every query by cosine similarity and score the result.

    Junk is left out of a query's gallery: images of the same person under the same camera, and person -1.
    Person 0 (background) stays as a negative. Equal similarity ranks by lower gallery index.

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

    Returns
    -------
    Ranking
        The same whatever the block size; permuting the queries permutes its arrays and nothing else.

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
    if query.features.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"query features have {query.features.shape[1]} dimensions, gallery {gallery.features.shape[1]}"
        )
    blocks = _blocks(query, gallery, advance)
    if protocol == "single-gallery-shot":
        return _score_shots(_shot_ranks(blocks, gallery.pids, seed))
    counts, ranks = _match_ranks(blocks)
    return _score_matches(counts, ranks, published=protocol == "published")


def _images(name: str, features: _Features, pids: _Labels, camids: _Labels, device: torch.device) -> _Images:
    """Check one side of the comparison and bring it to the device, with rows of length 1."""
    if isinstance(features, torch.Tensor):
        rows = features.detach().to(device, torch.float64, copy=True).contiguous()
    else:
        rows = torch.from_numpy(np.array(features, dtype=np.float64, order="C")).to(device)
    if rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(f"{name} features have shape {tuple(rows.shape)}, expected (images, dimensions)")
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    broken = torch.nonzero(~torch.isfinite(lengths[:, 0]))
    if len(broken):
        raise ValueError(f"{name} features are not finite in {len(broken)} rows, first {int(broken[0])}")
    rows /= lengths.masked_fill_(lengths == 0, 1.0)

    def labels(kind: str, values: _Labels) -> torch.Tensor:
        tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values, np.int64))
        if tensor.shape != rows.shape[:1]:
            raise ValueError(f"{name} {kind} have shape {tuple(tensor.shape)}, expected ({len(rows)},)")
        return tensor.to(device, torch.int64)

    return _Images(rows, labels("pids", pids), labels("camids", camids))


def _blocks(query: _Images, gallery: _Images, advance: Advance | None) -> Iterator[_Block]:
    """Compare the queries with the gallery, as many at a time as `BLOCK_ELEMENTS` allows."""
    step = max(1, BLOCK_ELEMENTS // len(gallery))
    index = torch.arange(len(gallery), device=gallery.pids.device)
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        # Scaling by a power of two is exact; the sign puts the most similar first.
        steps = (query.features[rows] * -_SIMILARITY_STEPS) @ gallery.features.T
        key = steps.round_().to(torch.int64).mul_(_INDICES).add_(index)
        same = query.pids[rows, None] == gallery.pids
        known = gallery.pids != -1
        match = same & known & (query.camids[rows, None] != gallery.camids)
        yield _Block(key, match, negative=~same & known)
        if advance is not None:
            advance(len(key))


def _match_ranks(blocks: Iterator[_Block]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank every true match.

    Returns
    -------
    counts
        Shape (all queries,): number of matches of each.
    ranks
        Shape (sum of counts,): ranks from 1, query after query, ascending within each.
    """
    all_counts, all_ranks = [], []
    for block in blocks:
        counts = block.match.sum(1)
        place = torch.arange(int(counts.max()), device=counts.device)
        present = place < counts[:, None]  # (queries, most matches), as are the next three
        matches = torch.full_like(present, _LAST, dtype=torch.int64)
        matches[present] = block.key[block.match]
        matches = matches.sort(1).values

        # Negatives are counted by the match they come right before; a running sum gives all those before.
        negatives = block.key.masked_fill_(~block.negative, _LAST)
        gap = torch.searchsorted(matches, negatives)
        gaps = len(place) + 1
        gap += gaps * torch.arange(len(gap), device=gap.device)[:, None]
        histogram = torch.bincount(gap.flatten(), minlength=len(gap) * gaps).view(len(gap), gaps)
        ranks = histogram.cumsum(1)[:, :-1] + place + 1

        all_counts.append(counts.cpu().numpy())
        all_ranks.append(ranks[present].cpu().numpy())
    return np.concatenate(all_counts), np.concatenate(all_ranks)


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


def _shot_ranks(blocks: Iterator[_Block], gallery_pids: torch.Tensor, seed: int) -> NDArray[np.int64]:
    """Rank each query's one true match in every draw: shape (all queries, SHOTS), 0 where there is none."""
    size, device = len(gallery_pids), gallery_pids.device
    pids = gallery_pids.cpu().numpy()
    draws = []
    for draw in range(SHOTS):
        order = seeds.generator(seed, "single-gallery-shot", draw).permutation(size)
        turn = torch.from_numpy(np.argsort(order)).to(device)
        firsts = order[np.unique(pids[order], return_index=True)[1]]
        draws.append((turn, torch.from_numpy(firsts).to(device)))

    def ranks(block: _Block, turn: torch.Tensor, firsts: torch.Tensor) -> torch.Tensor:
        match = torch.where(block.match, turn, size).argmin(1, keepdim=True)
        before = (block.key[:, firsts] < block.key.gather(1, match)) & block.negative[:, firsts]
        return (before.sum(1) + 1) * block.match.any(1)

    return np.concatenate(
        [torch.stack([ranks(block, *draw) for draw in draws], 1).cpu().numpy() for block in blocks]
    )


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
