"""How much memory does k-reciprocal re-ranking in blocks take, against a dense matrix?

    python -m benchmarks.reranking
    python -m benchmarks.reranking --queries 3368 --gallery 15913      # Market-1501
    python -m benchmarks.reranking --plain --network                   # with a ResNet-50 beside it

Plain scoring and re-ranking run one after the other on the same random, clustered features, at the size of
MSMT17's test set unless told otherwise (11,659 queries, 82,161 gallery images, 512 dimensions). Memory is the
highest RssAnon of the process, that is all its memory but mapped files: in all, and above what features and
libraries take. It is compared with one dense N x N matrix of float32; programs as commonly written hold
several.
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from benchmarks.playing import Outcome, anonymous_memory, options_of, play
from fedreid_mpi import config
from fedreid_mpi.evaluation.ranking import Distances, cosine_distances, evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from fedreid_mpi.model import build_network

CAMERAS = 15
IMAGES_EACH = 27  # of a person, as in MSMT17
CHUNK = 4096


@contextmanager
def highest() -> Iterator[list[float]]:
    """Watch the anonymous memory every 5 ms; the list's one entry is its highest value so far, in MB."""
    peak, done = [anonymous_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def make_features(images: int, dimensions: int, spread: float) -> tuple[torch.Tensor, np.ndarray]:
    """Draw people as centres of a Gaussian each; made in place, so that they leave no other memory behind."""
    generator = torch.Generator().manual_seed(0)
    people = max(2, images // IMAGES_EACH)
    centres = torch.randn(people, dimensions, generator=generator)
    pids = torch.randint(people, (images,), generator=generator)
    features = torch.empty(images, dimensions)
    for start in range(0, images, CHUNK):
        rows = slice(start, start + CHUNK)
        noise = torch.randn(len(pids[rows]), dimensions, generator=generator)
        features[rows] = torch.nn.functional.normalize(centres[pids[rows]] + spread * noise)
    return features, pids.numpy()


def measure(options: argparse.Namespace) -> Outcome:
    """Score both ways, and watch the memory."""
    torch.set_num_threads(options.threads)
    network = build_network(config.Model(), None, 0) if options.network else None
    images = options.queries + options.gallery
    features, pids = make_features(images, options.dimensions, options.spread)
    camids = np.random.default_rng(0).integers(CAMERAS, size=images)
    features = features.to(options.device)
    split = options.queries
    case = (features[:split], pids[:split], camids[:split], features[split:], pids[split:], camids[split:])
    before, dense = anonymous_memory(), 4 * images**2 / 1e6
    ways: dict[str, Distances] = {"plain": cosine_distances, "re-ranked": Reranking()}
    rows = []
    for name, distances in list(ways.items())[: 1 if options.plain else 2]:
        with highest() as peak:
            start = time.perf_counter()
            ranking = evaluate_ranking(*case, distances=distances)
            seconds = time.perf_counter() - start
        rows.append(
            {
                "way": name,
                "seconds": seconds,
                "MB at the highest": peak[0],
                "MB more than before": peak[0] - before,
                "rank-1": float(ranking.cmc[0]),
                "mAP": ranking.mean_ap,
            }
        )
    del network  # it was there throughout
    seconds, taken = rows[-1]["seconds"], rows[-1]["MB at the highest"]
    return Outcome(
        f"{options.queries:,} queries and {options.gallery:,} images {rows[-1]['way']} in {seconds:,.0f} s "
        f"and {taken:,.0f} MB, libraries included; a dense matrix would take {dense:,.0f} MB",
        taken / dense,
        rows,
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--queries", type=int, default=11_659)
    options.add_argument("--gallery", type=int, default=82_161)
    options.add_argument("--dimensions", type=int, default=512)
    options.add_argument("--spread", type=float, default=2.0, help="noise within a person (people: 1)")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--device", default="cpu")
    options.add_argument("--plain", action="store_true", help="leave re-ranking out")
    options.add_argument("--network", action="store_true", help="hold a ResNet-50 as `evaluate` does")
    play(measure, options, {"queries": 60, "gallery": 600, "dimensions": 16})


if __name__ == "__main__":
    main()
