"""Decoding and resizing images: in parallel, in order, a bounded number in memory.

What becomes of a file depends on its content alone, never on its name:

* JPEG, PNG and BMP are read; anything else counts as broken.
* Grey, palette and CMYK images become RGB by Pillow's plain conversion, without colour profiles. Where a
  channel has 16 bits the upper eight are kept, in grey images as in coloured ones.
* Transparency is ignored: the colour that the file holds counts.
* Every check is made that the format offers; see `fedreid_mpi.data.soundness`.
* Images are turned upright where EXIF data ask for it, as every viewer shows them. The published datasets
  hold no such data, so this concerns people's own images alone.

Scaled decoding by libjpeg is left alone: it changes pixels, and takes effect only from twice the archive's
size on, which crops of people seldom reach.
"""

import hashlib
import io
import struct
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fedreid_mpi.data.readers.base import Load
from fedreid_mpi.data.readers.names import few
from fedreid_mpi.data.soundness import DamageError, check
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import Advance
from fedreid_mpi.storage.regular import read_bytes
from fedreid_mpi.wording import counted

CHUNK = 8
"""Images decoded in one task: 0.8 MB at 256x128."""

MOST_PIXELS = 1 << 25
"""Of a source image: a frame of 8K video, 100 MB as RGB. Larger ones are no photographs of a person."""

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}
"""Extension, in lower case, to the format that it promises."""

# All that Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)

_TOO_LARGE = f"more than {MOST_PIXELS} pixels"

_EXIF_ORIENTATION = 0x0112


class BrokenImagesError(DataError):
    """Some images cannot be decoded.

    Attributes
    ----------
    paths
        All of them, relative to the dataset's folder.
    """

    def __init__(self, root: Path, causes: dict[str, str], total: int) -> None:
        broken = ", ".join(f"{path} ({cause})" for path, cause in causes.items())
        super().__init__(
            f"{root}: {len(causes)} of {counted(total, 'image')} cannot be decoded: {broken} "
            "(--skip-broken leaves them out)"
        )
        self.paths = tuple(causes)


class _UndecodableError(Exception):
    """One image cannot be decoded; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one image: its pixels, or why there are none."""

    digest: bytes
    pixels: NDArray[np.uint8] | None = None
    cause: str = ""
    remarks: tuple[str, ...] = ()


def decode_images(
    root: Path,
    paths: Sequence[str],
    height: int,
    width: int,
    jobs: int,
    advance: Advance,
    load: Load | None = None,
    notes: list[str] | None = None,
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
        Called with the number of images just tried.
    load
        Gets an image by its path; by default it reads the file below ``root``.
    notes
        Gets a line, after the last image, for each thing that was noticed.

    Yields
    ------
    pixels : ndarray
        Shape (height, width, 3), uint8; in the order of ``paths``.
    digest : bytes
        SHA-256 of the image's file; where ``load`` gave pixels, of these.

    Raises
    ------
    BrokenImagesError
        When all images were tried, naming those that are broken. Nothing is yielded after the first of them.
    DataError
        When a file cannot be read at all.
    """
    load = load or _files_below(root)
    causes: dict[str, str] = {}
    noticed: defaultdict[str, list[str]] = defaultdict(list)
    pending: deque[tuple[Sequence[str], Future[list[_Result]]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            pending.append((chunk, pool.submit(_decode_chunk, load, chunk, height, width)))
            while pending and (len(pending) > 2 * jobs or start + CHUNK >= len(paths)):
                names, future = pending.popleft()
                for name, result in zip(names, future.result(), strict=True):
                    for remark in result.remarks:
                        noticed[remark].append(name)
                    if result.pixels is None:
                        causes[name] = result.cause
                    elif not causes:
                        yield result.pixels, result.digest
                advance(len(names))
    if causes:
        raise BrokenImagesError(root, causes, len(paths))
    if notes is not None:
        notes.extend(
            f"{counted(len(names), f'image {_of_one(remark)}', f'images {remark}')}: {few(names)}"
            for remark, names in sorted(noticed.items())
        )


def _of_one(remark: str) -> str:
    """Return a remark on several images as it is said of one."""
    verb, _, rest = remark.partition(" ")
    return f"{ {'are': 'is', 'were': 'was', 'go': 'goes', 'have': 'has'}.get(verb, verb + 's') } {rest}"


def _files_below(root: Path) -> Load:
    """Return a loader of the files in a folder."""

    def load(path: str) -> bytes:
        try:
            return read_bytes(root / path)
        except OSError as error:
            raise DataError(f"{root / path}: cannot be read: {error.strerror}") from error

    return load


def _decode_chunk(load: Load, paths: Sequence[str], height: int, width: int) -> list[_Result]:
    return [_decode(path, load(path), height, width) for path in paths]


def _decode(path: str, content: bytes | NDArray[np.uint8], height: int, width: int) -> _Result:
    """Make an image of the archive from a file's bytes or from pixels."""
    if isinstance(content, np.ndarray):
        return _Result(
            hashlib.sha256(content.tobytes()).digest(), _resize(Image.fromarray(content), height, width)
        )
    digest = hashlib.sha256(content).digest()
    try:
        with _open(content) as image:
            remarks = []
            found = "JPEG" if image.format == "MPO" else image.format  # several JPEGs, the first counts
            if found != FORMATS.get(PurePosixPath(path).suffix.lower()):
                remarks.append(f"are {found} by content, not by name")
            if (remark := check(content, str(found))) and image.format != "MPO":
                remarks.append(remark)
            upright = _turn_upright(image)
            if upright is not image:
                remarks.append("were turned upright, as their EXIF data ask")
            return _Result(digest, _resize(_to_rgb(upright), height, width), remarks=tuple(remarks))
    except (_UndecodableError, DamageError) as error:
        return _Result(digest, cause=str(error))
    except _DAMAGE:
        return _Result(digest, cause="damaged")


def _open(content: bytes) -> Image.Image:
    """Recognise an image and read its header.

    Raises
    ------
    _UndecodableError
        When it is none, or too large.
    """
    if not content:
        raise _UndecodableError("empty")
    try:
        image = Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values())))
    except UnidentifiedImageError as error:
        raise _UndecodableError("no JPEG, PNG or BMP image") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit is higher
        raise _UndecodableError(_TOO_LARGE) from error
    if image.width * image.height > MOST_PIXELS:
        raise _UndecodableError(_TOO_LARGE)
    return image


def _turn_upright(image: Image.Image) -> Image.Image:
    """Return the image itself where nothing asks for a turn, or what asks cannot be understood."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DAMAGE:
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # Pillow would warn
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
