"""Images a second from JPEG files to archive pixels: `decode_images` against a plain loop over Pillow.

Both read the same files (in the page cache), make them RGB and resize them with the same filter; the plain
loop does nothing else, ours also takes the SHA-256 of each file, recognises formats and keeps the order. They
are timed in turn in one run; printed are the medians and their ratio. Then the anonymous memory of this
process is watched while one archive of many images is written.

    python benchmarks/prepare.py --images 2000 --repeats 5 --memory 20000
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedreid_mpi.data.archive import ArchiveContents, write_archive
from fedreid_mpi.data.decoding import decode_images

HEIGHT, WIDTH = 256, 128
THREADS = (1, 2)
FILES = 500


def write_files(folder: Path, height: int, width: int) -> list[str]:
    """Write JPEG files with the detail of photographs; return their names."""
    rng = np.random.default_rng(0)
    names = [f"{number:04d}.jpg" for number in range(FILES)]
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.normal(0, 6, smooth.shape).astype(np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
    return names


def decode_plainly(folder: Path, names: list[str]) -> None:
    """Decode as most scripts do."""
    for name in names:
        with Image.open(folder / name) as image:
            np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def decode_ours(folder: Path, names: list[str], threads: int) -> None:
    """Decode as `prepare` does."""
    for _ in decode_images(folder, names, HEIGHT, WIDTH, threads, lambda _: None):
        pass


def anonymous_memory() -> int:
    """Return this process's anonymous resident memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


def watch_memory(folder: Path, names: list[str], total: int) -> list[int]:
    """Write an archive of ``total`` images; return the memory before, and after each tenth of them."""
    paths = [names[number % FILES] for number in range(total)]
    seen = [anonymous_memory()]
    contents = ArchiveContents(
        name="benchmark",
        layout="none",
        height=HEIGHT,
        width=WIDTH,
        paths=[f"{number}/{path}" for number, path in enumerate(paths)],
        pids=[0] * total,
        camids=[0] * total,
        splits=[{"public": range(total)}],
        attributes={},
    )

    def watched() -> Iterator[tuple[NDArray[np.uint8], bytes]]:
        decoded = decode_images(folder, paths, HEIGHT, WIDTH, max(THREADS), lambda _: None)
        for number, image in enumerate(decoded, start=1):
            yield image
            if number % (total // 10) == 0:
                seen.append(anonymous_memory())

    write_archive(folder / "x.h5", contents, watched())
    return seen


def main() -> None:
    """Time both, watch the memory, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="decoded in each turn")
    parser.add_argument("--source", default="128x64", help="height and width of the files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, default=20000, help="images in the archive; 0: none is written")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write_files(folder, *map(int, options.source.split("x")))
        batch = [names[number % FILES] for number in range(options.images)]
        seconds: dict[int, list[float]] = {threads: [] for threads in (0, *THREADS)}
        for _ in range(options.repeats):
            for threads, times in seconds.items():
                start = time.perf_counter()
                if threads:
                    decode_ours(folder, batch, threads)
                else:
                    decode_plainly(folder, batch)
                times.append(time.perf_counter() - start)
        cores = len(os.sched_getaffinity(0))
        print(f"{options.images} JPEG files of {options.source} to {HEIGHT}x{WIDTH}, {cores} cores")
        plain, *others = (options.images / statistics.median(times) for times in seconds.values())
        print(f"plain loop    {plain:7.0f} images/s")
        for threads, rate in zip(THREADS, others, strict=True):
            print(f"{threads} threads     {rate:7.0f} images/s   {rate / plain:.2f} of the plain loop")
        if options.memory:
            seen = watch_memory(folder, names, options.memory)
            print(f"anonymous memory while {options.memory} images are written, MiB: {seen}")


if __name__ == "__main__":
    main()
