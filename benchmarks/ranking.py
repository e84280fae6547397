"""How fast is a ranked gallery scored, against sorting every row?

    python -m benchmarks.ranking --queries 2000 --gallery 20000 --dimensions 256

`evaluate_ranking` counts what stands before each match. The rival is the evaluation as it is commonly
written: one float32 matrix of all similarities, one argsort of all its rows, one loop over the queries. Both
are timed in turn in one run, on clustered features as a trained model gives them, and compared by their
medians.
"""

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.playing import Outcome, options_of, play
from fedreid_mpi.evaluation.ranking import evaluate_ranking

CAMERAS = 6

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def evaluate_by_sorting(
    qf: Floats, qp: Ints, qc: Ints, gf: Floats, gp: Ints, gc: Ints
) -> tuple[float, float]:
    """Return rank-1 and mAP by a full argsort."""
    qf = qf / np.linalg.norm(qf, axis=1, keepdims=True)
    gf = gf / np.linalg.norm(gf, axis=1, keepdims=True)
    order = np.argsort(-(qf @ gf.T), axis=1)
    first, precisions = [], []
    for query in range(len(qf)):
        pids, camids = gp[order[query]], gc[order[query]]
        hits = (pids == qp[query])[(pids != qp[query]) | (camids != qc[query])]
        if hits.any():
            ranks = np.flatnonzero(hits) + 1
            first.append(ranks[0] == 1)
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(first)), float(np.mean(precisions))


def make_case(
    queries: int, gallery: int, dimensions: int, people: int, spread: float
) -> tuple[Floats, Ints, Ints, Floats, Ints, Ints]:
    """Draw people as centres of a Gaussian each; about 20 gallery images per person."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((people, dimensions), np.float32)

    def side(count: int) -> tuple[Floats, Ints, Ints]:
        pids = generator.integers(people, size=count)
        noise = generator.standard_normal((count, dimensions), np.float32)
        return centres[pids] + spread * noise, pids, generator.integers(CAMERAS, size=count)

    return *side(queries), *side(gallery)


def measure(options: argparse.Namespace) -> Outcome:
    """Time both."""
    case = make_case(
        options.queries, options.gallery, options.dimensions, max(2, options.gallery // 20), options.spread
    )
    seconds: dict[str, list[float]] = {"sorting": [], "counting": []}
    for _ in range(options.repeats):
        start = time.perf_counter()
        rank1, mean_ap = evaluate_by_sorting(*case)
        middle = time.perf_counter()
        result = evaluate_ranking(*case)
        seconds["sorting"].append(middle - start)
        seconds["counting"].append(time.perf_counter() - middle)
    sorting, counting = (statistics.median(values) for values in seconds.values())
    ratio = sorting / counting
    return Outcome(
        f"{options.queries:,} queries against {options.gallery:,} images in {counting:.1f} s, {ratio:.2f} "
        "times as fast as by sorting",
        ratio,
        [
            {"way": "sorting", "seconds": sorting, "rank-1": rank1, "mAP": mean_ap},
            {"way": "counting", "seconds": counting, "rank-1": float(result.cmc[0]), "mAP": result.mean_ap},
        ],
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--queries", type=int, default=2000)
    options.add_argument("--gallery", type=int, default=20000)
    options.add_argument("--dimensions", type=int, default=256)
    options.add_argument("--spread", type=float, default=2.5, help="noise within a person (people: 1)")
    options.add_argument("--repeats", type=int, default=5)
    play(measure, options, {"queries": 50, "gallery": 400, "dimensions": 16, "repeats": 2})


if __name__ == "__main__":
    main()
