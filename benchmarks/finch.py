"""What clustering costs: seconds and memory of FINCH for 100, 1,000 and 10,000 clients.

    python benchmarks/finch.py [--width 512]

Memory is what the process holds at its peak beyond what it held before, which must grow no faster than the
features themselves.
"""

import argparse
import resource
import time

import numpy as np

from fedreid_mpi.algorithms.clustering import finch


def main() -> None:
    """Print a line a number of clients."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--width", type=int, default=512)
    width = options.parse_args().width
    for clients in (100, 1_000, 10_000):
        features = np.random.default_rng(clients).standard_normal((clients, width))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        partitions = finch(features)
        seconds = time.perf_counter() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        sizes = " > ".join(str(int(labels.max()) + 1) for labels in partitions)
        print(f"{clients:>6} clients: {seconds:7.3f} s, {grown / 1024:6.0f} MiB more; clusters {sizes}")


if __name__ == "__main__":
    main()
