"""What does it cost to group clients with FINCH, in seconds and memory?

    python -m benchmarks.finch [--clients 100 1000 10000] [--width 512]

Memory is what the process holds at its peak beyond what it held before, which must grow no faster than the
features themselves.
"""

import argparse
import resource
import time

import numpy as np

from benchmarks.playing import Outcome, options_of, play
from fedreid_mpi.algorithms.clustering import finch


def measure(options: argparse.Namespace) -> Outcome:
    """Group more and more clients by features of noise."""
    rows, ratio = [], 0.0
    for clients in options.clients:
        features = np.random.default_rng(clients).standard_normal((clients, options.width))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        partitions = finch(features)
        seconds = time.perf_counter() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        ratio = grown / features.nbytes
        sizes = " > ".join(str(int(labels.max()) + 1) for labels in partitions)
        rows.append({"clients": clients, "seconds": seconds, "MB more": grown / 1e6, "clusters": sizes})
    took = " and ".join(
        f"{row['seconds']:.2g} s for {row['clients']:,} clients" for row in (rows[0], rows[-1])
    )
    return Outcome(f"{took}, in {ratio:.1f} times the memory of their features", ratio, rows)


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--clients", type=int, nargs="+", default=[100, 1_000, 10_000])
    options.add_argument("--width", type=int, default=512)
    play(measure, options, {"clients": [50, 200], "width": 32})


if __name__ == "__main__":
    main()
