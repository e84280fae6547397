"""From people and cameras to pictures: backdrop, figure, occluder, then what the camera does to colours."""

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.synthetic.canvas import Canvas, Floats, column
from fedreid_mpi.data.synthetic.domains import (
    IMAGE_GAIN,
    REFERENCE_HEIGHT,
    SCALE_SPREAD,
    Cameras,
    Domain,
)
from fedreid_mpi.data.synthetic.figure import draw_figures, draw_pose
from fedreid_mpi.data.synthetic.people import People

SHARPEST_BLUR = 0.2
"""Least standard deviation of a blur, in pixels of a 64-pixel image; it leaves an image as it was."""


def draw_images(
    rng: np.random.Generator,
    domain: Domain,
    cameras: Cameras,
    people: People,
    camera: NDArray[np.int64],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """Take a picture of each person.

    Parameters
    ----------
    rng
        Decides all that differs between two pictures of a person by one camera.
    domain, cameras
        Of the dataset.
    people
        n people, repeated where they are seen more than once.
    camera
        Shape (n,): which of ``cameras`` takes the picture.
    size
        Height and width in pixels.

    Returns
    -------
    ndarray
        Shape (n, height, width, 3), uint8, RGB.
    """
    canvas = _place_figures(rng, domain, cameras, people, camera, size)
    _fill_background(rng, cameras, camera, canvas)
    draw_figures(canvas, people, draw_pose(rng, cameras.views[camera], cameras.light[camera]))
    _occlude(rng, domain.occlusion, canvas)
    pixels = _expose(rng, cameras, camera, canvas.pixels)
    pixels = _blur(cameras.blur[camera] * size[0] / REFERENCE_HEIGHT, pixels)
    pixels += cameras.noise[camera][:, None, None] * rng.standard_normal(pixels.shape, dtype=np.float32)
    images = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(images, 0, -1))


def _frame(height: int, width: int) -> tuple[Floats, Floats]:
    """Return image coordinates in image heights: across (width,) about 0, down (height,) from 0 to 1."""
    across = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * (width / height)
    return across, (np.arange(height, dtype=np.float32) + 0.5) / height


def _place_figures(
    rng: np.random.Generator,
    domain: Domain,
    cameras: Cameras,
    people: People,
    camera: NDArray[np.int64],
    size: tuple[int, int],
) -> Canvas:
    """Choose where and how large each figure stands, as loosely as the dataset's detector crops."""
    n, (height, width) = len(camera), size
    spread = np.clip(1 + SCALE_SPREAD * rng.standard_normal(n), 0.75, 1.25)
    scale = column(cameras.scale[camera] * spread * people.height)
    left = column(0.5 * domain.crop * rng.standard_normal(n))
    top = (1 - scale) / 2 + column(domain.crop * rng.standard_normal(n))
    lean = column(cameras.shear[camera] + 0.02 * rng.standard_normal(n))
    across, down = _frame(height, width)
    y = (down[None, :, None] - top) / scale
    x = (across - left) / scale + lean * (y - 0.5)
    return Canvas(np.empty((3, n, height, width), np.float32), x, y, 1 / (height * scale))


def _fill_background(
    rng: np.random.Generator, cameras: Cameras, camera: NDArray[np.int64], canvas: Canvas
) -> None:
    """Cut a random window out of each camera's backdrop and lay the ground over it from the horizon down."""
    _, n, height, width = canvas.pixels.shape
    side = cameras.backdrop.shape[-1]
    rows, columns = rng.integers(0, side - height, n), rng.integers(0, side - width, n)
    for image, (eye, row, left) in enumerate(zip(camera, rows, columns, strict=True)):
        canvas.pixels[:, image] = cameras.backdrop[eye, :, row : row + height, left : left + width]
    _, down = _frame(height, width)
    horizon = column(cameras.horizon[camera] + 0.04 * rng.standard_normal(n))
    ground = 0.75 * np.clip((down[None, :, None] - horizon) * 20, 0, 1)
    for plane, tone in zip(canvas.pixels, cameras.ground[camera].T, strict=True):
        texture = 0.5 * (plane - plane.mean(axis=(1, 2), keepdims=True))
        plane += ground * (column(tone) + texture - plane)


def _occlude(rng: np.random.Generator, share: float, canvas: Canvas) -> None:
    """Hide part of some figures behind a wall below, a wall at one side or a post."""
    _, n, height, width = canvas.pixels.shape
    kind = rng.integers(0, 3, (n,))
    colour = np.clip(0.4 + 0.25 * rng.standard_normal((3, n)), 0, 1).astype(np.float32)
    edge = rng.uniform(0.55, 0.85, (n,))
    offset = rng.uniform(0.02, 0.16, (n,)) * rng.choice([-1.0, 1.0], (n,))
    across, down = _frame(height, width)
    for image in np.flatnonzero(rng.random(n) < share):
        below = down[:, None] > edge[image]
        beside = across * np.sign(offset[image]) > np.abs(offset[image])
        post = np.abs(across - offset[image]) < 0.035
        hidden = np.broadcast_to((below, beside, post)[kind[image]], (height, width))
        canvas.pixels[:, image, hidden] = colour[:, image, None]


def _expose(rng: np.random.Generator, cameras: Cameras, camera: NDArray[np.int64], pixels: Floats) -> Floats:
    """Apply saturation, gain, colour cast, gamma and contrast of each image's camera."""
    grey = pixels.mean(axis=0)
    pixels = grey + (pixels - grey) * column(cameras.saturation[camera])
    exposure = cameras.gain[camera] * np.exp(IMAGE_GAIN * rng.standard_normal((len(camera), 1)))
    pixels = np.clip(pixels, 0, 1.5) * exposure.T.astype(np.float32)[:, :, None, None]
    # x ** gamma; NumPy's float32 exp and log are several times quicker than its power.
    pixels = np.exp(column(cameras.gamma[camera]) * np.log(np.clip(pixels, 1e-3, 1.6)))
    middle = 0.45
    exposed: Floats = (pixels - middle) * column(cameras.contrast[camera]) + middle
    return exposed


def _blur(sigma: Floats, pixels: Floats) -> Floats:
    """Blur each image with a Gaussian of its own standard deviation in pixels, cut off at two deviations."""
    height, width = pixels.shape[2:]
    reach = max(1, 2 * height // REFERENCE_HEIGHT)
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    floor = np.float32(SHARPEST_BLUR * height / REFERENCE_HEIGHT)
    kernel = np.exp(-(offsets**2) / (2 * np.maximum(sigma, floor)[:, None] ** 2))
    kernel /= kernel.sum(axis=1, keepdims=True)
    taps = kernel.T[:, :, None, None]
    padded = np.pad(pixels, ((0, 0), (0, 0), (reach, reach), (0, 0)), mode="edge")
    upright: Floats = sum(tap * padded[:, :, i : i + height] for i, tap in enumerate(taps))
    padded = np.pad(upright, ((0, 0), (0, 0), (0, 0), (reach, reach)), mode="edge")
    blurred: Floats = sum(tap * padded[:, :, :, i : i + width] for i, tap in enumerate(taps))
    return blurred
