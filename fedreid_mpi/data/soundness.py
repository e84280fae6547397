"""Damage that a decoder passes over: what the image formats themselves offer to notice it.

* PNG has a checksum in every chunk and one over all pixels, and says how large these are. All are checked, so
  that any changed or missing byte is found.
* JPEG has no checksums. Its segments are followed to the mark at its end, which a file lacks that stops
  before or whose last blocks were overwritten. A changed bit within is found only where decoding fails.
* BMP has no checksums either. Decoding fails where pixels are missing. It says how long the file is, which
  not all programs write right, and zeros at the end may be black pixels: these are reported, not refused. A
  changed bit cannot be noticed.

What follows the end of an image is not damage, but is reported as well.
"""

import struct
import zlib

SURPLUS = "go on after the end of the image"
OTHER_LENGTH = "are not as long as they say"
BLANK_END = "end in zeros, black pixels or lost blocks"
BLOCK = 512
"""Bytes that a disk loses at least."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and their steps, of the seven images of an interlaced PNG."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type of PNG to the number of samples a pixel."""

END_OF_IMAGE, FILL = 0xD9, 0xFF
BARE_MARKERS = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
"""What follows a byte of 255 in a JPEG and starts no segment: an escape, a restart and the like."""


class DamageError(Exception):
    """An image is damaged; the message says how in a few words."""


def check(content: bytes, kind: str) -> str:
    """Make every check that an image's format offers.

    Parameters
    ----------
    content
        The file.
    kind
        ``"PNG"``, ``"JPEG"`` or ``"BMP"``.

    Returns
    -------
    str
        A remark, or nothing.

    Raises
    ------
    DamageError
        When one fails.
    """
    match kind:
        case "PNG":
            return SURPLUS if _check_png(content) < len(content) else ""
        case "JPEG":
            return SURPLUS if _end_of_jpeg(content) < len(content) else ""
        case _:
            return _remark_on_bmp(content)


def _remark_on_bmp(content: bytes) -> str:
    (declared,) = struct.unpack_from("<I", content, 2)
    if declared not in (0, len(content)):
        return OTHER_LENGTH
    return "" if content[-BLOCK:].strip(b"\0") else BLANK_END


def _check_png(content: bytes) -> int:
    """Compare all checksums and return where the image ends."""
    data: list[bytes] = []
    header = b""
    at = len(PNG_SIGNATURE)
    while True:
        if len(content) < at + 12:
            raise DamageError("ends early")
        length = int.from_bytes(content[at : at + 4])
        kind, body = content[at + 4 : at + 8], memoryview(content)[at + 8 : at + 8 + length]
        declared = content[at + 8 + length : at + 12 + length]
        if len(declared) < 4:
            raise DamageError("ends early")
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(declared):
            raise DamageError("a checksum is wrong")
        at += 12 + length
        if kind == b"IHDR":
            header = bytes(body)
        elif kind == b"IDAT":
            data.append(bytes(body))
        elif kind == b"IEND":
            _check_pixels(header, b"".join(data))
            return at


def _check_pixels(header: bytes, data: bytes) -> None:
    """Unpack the pixels, whose own checksum zlib compares at their end."""
    expected = _size_of_pixels(header)
    stream = zlib.decompressobj()
    try:
        found = len(stream.decompress(data, expected))
        surplus = stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise DamageError("damaged") from error
    if found < expected or not (stream.eof or surplus):
        raise DamageError("its pixels end early")


def _size_of_pixels(header: bytes) -> int:
    """Return the number of bytes of all rows, each with the byte that names its filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * CHANNELS[colour]
    return sum(
        rows * (1 + (columns * bits + 7) // 8)
        for left, top, across, down in (PASSES if interlaced else ((0, 0, 1, 1),))
        if (columns := -((left - width) // across)) > 0 and (rows := -((top - height) // down)) > 0
    )


def _end_of_jpeg(content: bytes) -> int:
    """Follow the markers of a JPEG and return where the image ends."""
    at = 2
    while (at := content.find(b"\xff", at)) != -1 and at + 1 < len(content):
        marker = content[at + 1]
        if marker == END_OF_IMAGE:
            return at + 2
        if marker == FILL:
            at += 1
        elif marker in BARE_MARKERS:
            at += 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4])
    raise DamageError("ends early")
