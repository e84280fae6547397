"""Decoding and resizing image files: in parallel, in order, a bounded number in memory."""

import hashlib
import io
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedreid_mpi.errors import DataError
from fedreid_mpi.types import Advance

CHUNK = 8
"""Images decoded in one task: 0.8 MB at 256x128."""

# All that Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class BrokenImagesError(DataError):
    """Some images cannot be decoded.

    Attributes
    ----------
    paths
        All of them, relative to the dataset's folder.
    """

    def __init__(self, root: Path, paths: Sequence[str], total: int) -> None:
        super().__init__(
            f"{root}: {len(paths)} of {total} images cannot be decoded: {', '.join(paths)} "
            "(--skip-broken leaves them out)"
        )
        self.paths = tuple(paths)


def decode_images(
    root: Path, paths: Sequence[str], height: int, width: int, jobs: int, advance: Advance
) -> Iterator[tuple[NDArray[np.uint8], bytes]]:
    """Decode images, make them RGB, and resize them with Pillow's bicubic filter.

    Threads are enough: most of Pillow's work is done without the interpreter's lock.

    Parameters
    ----------
    root
        The dataset's folder.
    paths
        Relative to it.
    height, width
        Of the results, in pixels.
    jobs
        Number of threads. The results do not depend on it.
    advance
        Called with the number of files just tried.

    Yields
    ------
    pixels : ndarray
        Shape (height, width, 3), uint8; in the order of ``paths``.
    digest : bytes
        SHA-256 of the file.

    Raises
    ------
    BrokenImagesError
        When all files were tried, naming those that are broken. Nothing is yielded after the first of them.
    DataError
        When a file cannot be read at all.
    """
    broken: list[str] = []
    pending: deque[tuple[Sequence[str], Future[list[tuple[NDArray[np.uint8] | None, bytes]]]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            pending.append((chunk, pool.submit(_decode_chunk, root, chunk, height, width)))
            while pending and (len(pending) > 2 * jobs or start + CHUNK >= len(paths)):
                names, future = pending.popleft()
                for name, (pixels, digest) in zip(names, future.result(), strict=True):
                    if pixels is None:
                        broken.append(name)
                    elif not broken:
                        yield pixels, digest
                advance(len(names))
    if broken:
        raise BrokenImagesError(root, broken, len(paths))


def _decode_chunk(
    root: Path, paths: Sequence[str], height: int, width: int
) -> list[tuple[NDArray[np.uint8] | None, bytes]]:
    return [_decode(root / path, height, width) for path in paths]


def _decode(path: Path, height: int, width: int) -> tuple[NDArray[np.uint8] | None, bytes]:
    """Decode one image; None where it is broken."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).digest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    except _DAMAGE:
        return None, digest
    return np.asarray(resized), digest
