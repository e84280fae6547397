import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fedreid_mpi.data.decoding import MOST_PIXELS, BrokenImagesError, decode_images
from support import trees

HEIGHT, WIDTH = 48, 24  # of trees.picture: nothing is resized


def decode(folder, *names, notes=None, load=None, size=(HEIGHT, WIDTH), jobs=1):
    images = decode_images(folder, names, *size, jobs, lambda _: None, load, notes)
    return [pixels for pixels, _ in images]


def png(header, rows):
    """A PNG file by the specification: Pillow writes no 16-bit colour and no wrong headers."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


GREY, COLOUR = 0, 2


def test_sixteen_bits_keep_the_upper_eight_in_grey_as_in_colour(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (HEIGHT, WIDTH), dtype=np.uint16)
    values[0, :4] = 0, 255, 256, 65535
    (tmp_path / "grey.png").write_bytes(
        png((WIDTH, HEIGHT, 16, GREY), [row.astype(">u2").tobytes() for row in values])
    )
    colours = np.repeat(values[..., None], 3, axis=2)
    rows = [row.astype(">u2").tobytes() for row in colours]
    (tmp_path / "colour.png").write_bytes(png((WIDTH, HEIGHT, 16, COLOUR), rows))
    grey, colour = decode(tmp_path, "grey.png", "colour.png")
    np.testing.assert_array_equal(grey, (colours >> 8).astype(np.uint8))
    np.testing.assert_array_equal(grey, colour)


def test_transparency_is_ignored(tmp_path, recwarn):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], axis=2)).save(tmp_path / "rgba.png")
    palette = Image.fromarray(rng.integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255, 3]))
    Image.fromarray(colours).save(tmp_path / "key.png", transparency=tuple(map(int, colours[0, 0])))
    rgba, indexed, key = decode(tmp_path, "rgba.png", "palette.png", "key.png")
    np.testing.assert_array_equal(rgba, colours)
    np.testing.assert_array_equal(key, colours)
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)
    np.testing.assert_array_equal(indexed, table[np.asarray(palette)])
    assert not recwarn.list


def test_cmyk_is_converted_without_a_profile(tmp_path):
    # Uniform, so that JPEG changes next to nothing; ink values, as Pillow writes and reads them.
    Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 0)).save(tmp_path / "cyan.jpg", quality=100)
    (pixels,) = decode(tmp_path, "cyan.jpg")
    assert np.abs(pixels.astype(int) - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_turned_upright(tmp_path, orientation, suffix):
    upright = np.asarray(trees.picture("any"))
    # How the camera stored what is upright so: row 0 and column 0 of the file are these sides of the scene.
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright[:, ::-1].transpose(1, 0, 2),  # right, top
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: upright[::-1].transpose(1, 0, 2),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / f"a.{suffix}", exif=exif, quality=100, subsampling=0
    )
    notes = []
    (pixels,) = decode(tmp_path, f"a.{suffix}", notes=notes)
    assert np.abs(pixels.astype(int) - upright).max() <= (4 if suffix == "jpg" else 0)
    turned = f"1 image was turned upright, as their EXIF data ask: 'a.{suffix}'"
    assert notes == ([turned] if orientation > 1 else [])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40])
def test_damaged_exif_data_are_ignored(tmp_path, exif):
    content = io.BytesIO()
    trees.picture("any").save(content, "JPEG")
    plain = content.getvalue()
    (tmp_path / "plain.jpg").write_bytes(plain)
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "exif.jpg").write_bytes(plain[:2] + marker + plain[2:])
    np.testing.assert_array_equal(*decode(tmp_path, "plain.jpg", "exif.jpg"))


def test_content_counts_not_the_name_which_is_noted(tmp_path):
    expected = np.asarray(trees.picture("any"))
    for name, kind in (
        ("a.jpg", "PNG"),
        ("b.PNG", "PNG"),
        ("c.bmp", "PNG"),
        ("d.png", "BMP"),
        ("e.jpeg", "JPEG"),
    ):
        trees.picture("any").save(tmp_path / name, kind)
    notes = ["already there"]
    pixels = decode(tmp_path, "a.jpg", "b.PNG", "c.bmp", "d.png", "e.jpeg", notes=notes)
    for image in pixels[:4]:
        np.testing.assert_array_equal(image, expected)
    assert notes == [
        "already there",
        "1 image is BMP by content, not by name: 'd.png'",
        "2 images are PNG by content, not by name: 'a.jpg', 'c.bmp'",
    ]


def test_each_broken_image_is_named_with_its_cause(tmp_path):
    trees.write_image(tmp_path / "good.jpg", "good")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    Image.new("RGB", (4, 4)).save(tmp_path / "gif.png", "GIF")
    Image.new("RGB", (4, 4)).save(tmp_path / "tiff.jpg", "TIFF")
    # A header that promises a gigabyte, and one that promises terabytes, over next to no data.
    for name, side in (("large.png", 20_000), ("bomb.png", 1_000_000)):
        (tmp_path / name).write_bytes(png((side, side, 8, COLOUR), [b"\0" * 1000]))
    (tmp_path / "frame.png").write_bytes(png((5793, 5793, 8, GREY), [b"\0" * 5793] * 5793))
    assert 5792**2 <= MOST_PIXELS < 5793**2
    names = [
        "bomb.png",
        "empty.jpg",
        "frame.png",
        "gif.png",
        "good.jpg",
        "half.jpg",
        "large.png",
        "text.png",
        "tiff.jpg",
    ]
    with pytest.raises(BrokenImagesError) as caught:
        decode(tmp_path, *names, jobs=2)
    causes = {
        "bomb.png": "more than 33554432 pixels",
        "empty.jpg": "empty",
        "frame.png": "more than 33554432 pixels",
        "gif.png": "no JPEG, PNG or BMP image",
        "half.jpg": "damaged",
        "large.png": "more than 33554432 pixels",
        "text.png": "no JPEG, PNG or BMP image",
        "tiff.jpg": "no JPEG, PNG or BMP image",
    }
    assert caught.value.paths == tuple(causes)
    broken = ", ".join(f"{name} ({cause})" for name, cause in causes.items())
    assert str(caught.value) == (
        f"{tmp_path}: 8 of 9 images cannot be decoded: {broken} (--skip-broken leaves them out)"
    )


def test_pixels_may_come_from_elsewhere_than_files(tmp_path):
    stored = {
        "a.png": np.random.default_rng(0).integers(0, 256, (60, 30, 3), dtype=np.uint8),
        "b.png": np.random.default_rng(1).integers(0, 256, (7, 90, 3), dtype=np.uint8)[:, ::2],
    }
    images = list(decode_images(tmp_path, list(stored), 20, 10, 2, lambda _: None, stored.__getitem__))
    for (pixels, digest), source in zip(images, stored.values(), strict=True):
        expected = Image.fromarray(source).resize((10, 20), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pixels, np.asarray(expected))
        assert digest == hashlib.sha256(source.tobytes()).digest()


def test_the_digest_is_that_of_the_file(tmp_path):
    trees.write_image(tmp_path / "a.jpg", "a")
    ((_, digest),) = decode_images(tmp_path, ["a.jpg"], 8, 8, 1, lambda _: None)
    assert digest == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).digest()


def encode(kind, **options):
    content = io.BytesIO()
    trees.picture("any").save(content, kind, **options)
    return content.getvalue()


def broken(folder, name, content):
    """What is said of an image that was written so; None where nothing is."""
    (folder / name).write_bytes(content)
    try:
        decode(folder, name)
    except BrokenImagesError as error:
        return str(error).split(f"{name} (")[1].split(")")[0]
    return None


def test_each_changed_bit_of_a_png_is_noticed(tmp_path):
    content = encode("PNG", exif=b"Exif\0\0MM\0*\0\0\0\10\0\0\0\0\0\0")
    assert broken(tmp_path, "a.png", content) is None
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(content), 400, replace=False):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        assert broken(tmp_path, "a.png", bytes(changed)), f"bit {bit}"


@pytest.mark.parametrize("rows", [0, 1, HEIGHT // 2, HEIGHT - 1])
def test_a_png_whose_pixels_end_early_is_damaged(tmp_path, rows):
    whole = png((WIDTH, HEIGHT, 8, GREY), [b"\1" * WIDTH] * HEIGHT)
    assert broken(tmp_path, "a.png", whole) is None
    assert broken(tmp_path, "a.png", png((WIDTH, HEIGHT, 8, GREY), [b"\1" * WIDTH] * rows))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_whole_pngs_of_any_depth_are_read(tmp_path, depth):
    width = WIDTH + 1  # rows do not fill their last byte
    assert (
        broken(tmp_path, "a.png", png((width, 5, depth, GREY), [b"\1" * ((width * depth + 7) // 8)] * 5))
        is None
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (4, 5), (9, 8), (24, 48)])
def test_interlaced_pngs_are_measured(tmp_path, width, height):
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = [
        b"\0" + b"\7" * len(range(left, width, across))
        for left, top, across, down in passes
        if left < width
        for _ in range(top, height, down)
    ]
    content = png((width, height, 8, GREY), [])
    header = struct.pack(">IIBBBBB", width, height, 8, GREY, 0, 0, 1)

    def interlaced(rows):
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
        return content[:8] + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    assert broken(tmp_path, "a.png", interlaced(rows)) is None
    assert broken(tmp_path, "a.png", interlaced(rows[:-1]))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}]
)
@pytest.mark.parametrize("lost", [2, 16, 512])
def test_a_jpeg_that_ends_early_or_whose_last_blocks_are_lost_is_damaged(tmp_path, options, lost):
    content = encode("JPEG", **options)
    assert broken(tmp_path, "a.jpg", content) is None
    assert broken(tmp_path, "a.jpg", content[:-lost])
    for blank in (b"\0", b"\xff"):
        assert broken(tmp_path, "a.jpg", content[:-lost] + blank * lost)


@pytest.mark.parametrize("lost", [1, 100])
def test_a_bmp_that_ends_early_is_damaged(tmp_path, lost):
    assert broken(tmp_path, "a.bmp", encode("BMP")[:-lost])


def test_what_may_be_damage_is_told(tmp_path):
    bmp = encode("BMP")
    files = {
        "a.png": encode("PNG") + b"more",
        "b.jpg": encode("JPEG") + b"\0" * 100,
        "c.bmp": bmp + b"\0\0",
        "d.bmp": bmp[:-600] + b"\0" * 600,
        "e.bmp": bmp[:2] + bytes(4) + bmp[6:],
        "f.bmp": bmp,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    notes = []
    decode(tmp_path, *files, notes=notes)
    assert notes == [
        "1 image is not as long as they say: 'c.bmp'",
        "1 image ends in zeros, black pixels or lost blocks: 'd.bmp'",
        "2 images go on after the end of the image: 'a.png', 'b.jpg'",
    ]
