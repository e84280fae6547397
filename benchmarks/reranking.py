"""Seconds and anonymous memory of scoring a gallery, plain and re-ranked, on random clustered features.

Plain scoring and k-reciprocal re-ranking run one after the other on the same features, at the size of
MSMT17's test set unless told otherwise (11,659 queries, 82,161 gallery images, 512 dimensions). Printed are
the seconds and the highest RssAnon of the process, that is all its memory but mapped files: in all, and above
what features and libraries take. Beside it stands what one dense N x N matrix of float32 would take; programs
as commonly written hold several.

    python benchmarks/reranking.py
    python benchmarks/reranking.py --queries 3368 --gallery 15913      # Market-1501
    python benchmarks/reranking.py --plain --network                   # with a ResNet-50 beside it
"""

import argparse
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from fedreid_mpi import config
from fedreid_mpi.evaluation.ranking import Distances, cosine_distances, evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from fedreid_mpi.model import build_network

CAMERAS = 15
IMAGES_EACH = 27  # of a person, as in MSMT17
CHUNK = 4096


def anonymous_mib() -> float:
    """Return the process's anonymous memory in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024


@contextmanager
def highest() -> Iterator[list[float]]:
    """Watch the anonymous memory every 5 ms; the list's one entry is its highest value so far."""
    peak, done = [anonymous_mib()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_mib())

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


def main() -> None:
    """Score both ways and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=11_659)
    parser.add_argument("--gallery", type=int, default=82_161)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--spread", type=float, default=2.0, help="noise within a person (people: 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", action="store_true", help="leave re-ranking out")
    parser.add_argument("--network", action="store_true", help="hold a ResNet-50 as `evaluate` does")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = build_network(config.Model(), None, 0) if options.network else None
    images = options.queries + options.gallery
    features, pids = make_features(images, options.dimensions, options.spread)
    camids = np.random.default_rng(0).integers(CAMERAS, size=images)
    features = features.to(options.device)
    split = options.queries
    case = (features[:split], pids[:split], camids[:split], features[split:], pids[split:], camids[split:])

    print(f"{options.queries} x {options.gallery} x {options.dimensions}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads{', ResNet-50 in memory' if network is not None else ''}")
    before = anonymous_mib()
    print(f"at the start: {before:.0f} MiB; a dense matrix: {images**2 / 2**18:,.0f} MiB")
    ways: dict[str, Distances] = {"plain": cosine_distances, "re-ranked": Reranking()}
    for name, distances in list(ways.items())[: 1 if options.plain else 2]:
        with highest() as peak:
            start = time.perf_counter()
            ranking = evaluate_ranking(*case, distances=distances)
            seconds = time.perf_counter() - start
        print(f"{name:9}  {seconds:8.1f} s   peak {peak[0]:5.0f} MiB (+{peak[0] - before:.0f})   ", end="")
        print(f"rank-1 {ranking.cmc[0]:.4f}   mAP {ranking.mean_ap:.4f}", flush=True)


if __name__ == "__main__":
    main()
