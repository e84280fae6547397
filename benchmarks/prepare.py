"""How fast do image files become an archive, against a plain loop with Pillow, and in how much memory?

    python -m benchmarks.prepare --images 2000 --repeats 5 --memory 20000

`decode_images` and the loop read the same files (in the page cache), make them RGB and resize them with the
same filter; the plain loop does nothing else, ours also takes the SHA-256 of each file, recognises formats
and keeps the order. They are timed in turn in one run, and compared by their medians. Then the anonymous
memory of this process is watched while one archive of many images is written.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.playing import Outcome, anonymous_memory, options_of, play
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


def watch_memory(folder: Path, names: list[str], total: int) -> list[float]:
    """Write an archive of ``total`` images; return the MB before, and after each tenth of them."""
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


def measure(options: argparse.Namespace) -> Outcome:
    """Time both, then watch the memory."""
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
        memory = watch_memory(folder, names, options.memory)
    rates = {threads: options.images / statistics.median(times) for threads, times in seconds.items()}
    ratios = {threads: rates[threads] / rates[0] for threads in rates}
    relative = ", ".join(f"{ratios[threads]:.2f} times with {threads}" for threads in THREADS[1:])
    return Outcome(
        f"{ratios[1]:.2f} times as fast with one thread, {relative}; {max(memory[1:]) - memory[1]:.0f} MB "
        f"more after {options.memory:,} images than after a tenth of them",
        max(ratios.values()),
        [
            {"way": f"{threads} threads" if threads else "plain loop", "images per second": rate}
            for threads, rate in rates.items()
        ],
    )


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--images", type=int, default=2000, help="decoded in each turn")
    options.add_argument("--source", default="128x64", help="height and width of the files")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--memory", type=int, default=20000, help="images in the archive, 10 or more")
    play(measure, options, {"images": 50, "repeats": 2, "memory": 100})


if __name__ == "__main__":
    main()
