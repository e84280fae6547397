"""What sets one dataset apart from another: how its people dress, and what its cameras make of them.

The spread of every trait is a constant of this module. Clothes, light, colours, views and backgrounds differ
by dataset and, more mildly, by camera, as they do between the real datasets: the clients' data are
heterogeneous by construction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.algorithms.seeds import generator

Floats = NDArray[np.float32]

PALETTE = np.array(
    [
        (0.06, 0.06, 0.07),
        (0.92, 0.92, 0.92),
        (0.50, 0.50, 0.52),
        (0.75, 0.12, 0.12),
        (0.12, 0.20, 0.60),
        (0.15, 0.45, 0.20),
        (0.85, 0.75, 0.20),
        (0.50, 0.30, 0.15),
        (0.80, 0.45, 0.15),
        (0.50, 0.20, 0.55),
        (0.85, 0.55, 0.65),
        (0.20, 0.60, 0.65),
        (0.10, 0.12, 0.28),
        (0.75, 0.68, 0.50),
    ]
)
"""Colours of clothes, shape (14, 3), RGB in [0, 1]."""

HAIR = np.array(
    [
        (0.05, 0.04, 0.04),
        (0.20, 0.12, 0.07),
        (0.45, 0.30, 0.12),
        (0.75, 0.60, 0.35),
        (0.55, 0.55, 0.55),
        (0.40, 0.12, 0.08),
    ]
)
"""Colours of hair, shape (6, 3)."""

VIEWS = 4

DOMAIN_GAIN, CAMERA_GAIN, IMAGE_GAIN = 0.15, 0.18, 0.10
CAST, GAMMA = 0.06, 0.12
BACKGROUND_RANGE, BACKGROUND_CONTRAST = 0.4, 0.25
CROP, SCALE_SPREAD, OCCLUSION = 0.05, 0.08, 0.15
NOISE, BLUR = 0.03, 1.0
PATTERN_SHARE, BAG_SHARE = 0.5, 0.6

REFERENCE_HEIGHT = 64
"""Image height for which lengths in pixels (blur, stripes) are given; they scale with the height."""

BACKDROP_HEIGHTS = 2.5
"""Side of a camera's backdrop in image heights."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Traits of one dataset. Shares are probabilities of a trait; see `draw_people` and `photograph`."""

    upper_palette: NDArray[np.float64]
    lower_palette: NDArray[np.float64]
    hair_palette: NDArray[np.float64]
    shorts_share: float
    sleeveless_share: float
    skirt_share: float
    bag_share: float
    pattern_share: float
    figure_scale: float
    crop: float
    occlusion: float
    gain: float
    cast: NDArray[np.float64]
    gamma: float
    contrast: float
    saturation: float
    background: NDArray[np.float64]
    blur: float
    noise: float


@dataclass(frozen=True, slots=True)
class Cameras:
    """Traits of a dataset's cameras; the first axis of every array is the camera.

    Attributes
    ----------
    backdrop
        Shape (cameras, 3, side, side), float32: the texture that images take their background from.
    gain
        Shape (cameras, 3): factor on each colour.
    ground, horizon
        Colour of the ground and its upper edge in image heights.
    views
        Shape (cameras, 4): cumulative shares of front, back, left and right.
    blur
        Standard deviation in pixels of an image of height `REFERENCE_HEIGHT`.
    """

    backdrop: Floats
    gain: Floats
    ground: Floats
    horizon: Floats
    views: Floats
    gamma: Floats
    contrast: Floats
    saturation: Floats
    blur: Floats
    noise: Floats
    light: Floats
    shear: Floats
    scale: Floats


def draw_domain(seed: int, dataset: str, shift: float = 1.0) -> Domain:
    """Draw the traits of a dataset from the stream of its name.

    Parameters
    ----------
    seed, dataset
        Of the benchmark; the dataset's name.
    shift
        Factor on the spread of gain, colour cast, gamma and background between datasets.
    """
    rng = generator(seed, dataset, "domain")

    def palette(colours: int, concentration: float, floor: float) -> NDArray[np.float64]:
        return floor / colours + (1 - floor) * rng.dirichlet(np.full(colours, concentration))

    return Domain(
        upper_palette=palette(len(PALETTE), 0.8, 0.15),
        lower_palette=palette(len(PALETTE), 0.8, 0.15),
        hair_palette=palette(len(HAIR), 1.0, 0.0),
        shorts_share=0.6 * rng.uniform(0.05, 0.7),
        sleeveless_share=rng.uniform(0.05, 0.8),
        skirt_share=rng.uniform(0, 0.3),
        bag_share=BAG_SHARE * rng.uniform(0.5, 1.4),
        pattern_share=PATTERN_SHARE * rng.uniform(0.5, 1.5),
        figure_scale=rng.uniform(0.80, 0.98),
        crop=CROP * rng.uniform(0.6, 1.5),
        occlusion=OCCLUSION * rng.uniform(0.2, 2.2),
        gain=float(np.exp(shift * DOMAIN_GAIN * rng.standard_normal())),
        cast=np.exp(shift * CAST * rng.standard_normal(3)),
        gamma=float(np.exp(shift * GAMMA * rng.standard_normal())),
        contrast=rng.uniform(0.7, 1.2),
        saturation=rng.uniform(0.6, 1.15),
        background=0.5 + shift * BACKGROUND_RANGE * rng.uniform(-0.25, 0.25, 3),
        blur=BLUR * rng.uniform(0, 1.2),
        noise=NOISE * rng.uniform(0.3, 2.0),
    )


def draw_cameras(seed: int, dataset: str, domain: Domain, cameras: int, height: int) -> Cameras:
    """Draw the cameras of a dataset, each from a stream of its own, for images ``height`` pixels high."""
    streams = (generator(seed, dataset, "camera", camera) for camera in range(cameras))
    drawn = [_draw_camera(rng, domain, height) for rng in streams]
    return Cameras(**{name: np.stack([camera[name] for camera in drawn]) for name in drawn[0]})


def _draw_camera(rng: np.random.Generator, domain: Domain, height: int) -> dict[str, Floats]:
    gain = np.clip(domain.gain * np.exp(CAMERA_GAIN * rng.standard_normal()), 0.35, 1.8)
    traits = {
        "gain": gain * domain.cast * np.exp(0.8 * CAST * rng.standard_normal(3)),
        "gamma": domain.gamma * np.exp(0.1 * rng.standard_normal()),
        "contrast": domain.contrast * rng.uniform(0.85, 1.15),
        "saturation": domain.saturation,
        "blur": max(0.0, domain.blur + 0.3 * rng.standard_normal()),
        "noise": domain.noise * rng.uniform(0.7, 1.3),
        "light": rng.uniform(-0.35, 0.35),
        "shear": rng.uniform(-0.08, 0.08),
        "scale": domain.figure_scale * rng.uniform(0.94, 1.06),
        "ground": np.clip(0.7 * domain.background + 0.12 * rng.standard_normal(3), 0.05, 0.9),
        "horizon": rng.uniform(0.45, 0.9),
        "views": np.cumsum(rng.dirichlet(np.full(VIEWS, 0.6))),
        "backdrop": _draw_backdrop(rng, domain, height),
    }
    return {name: np.asarray(value, np.float32) for name, value in traits.items()}


def _draw_backdrop(rng: np.random.Generator, domain: Domain, height: int) -> NDArray[np.float64]:
    """Draw blotches of three sizes over the background colour, in half of the cameras with stripes."""
    side = round(BACKDROP_HEIGHTS * height)
    colour = np.clip(domain.background + 0.15 * BACKGROUND_RANGE * rng.standard_normal(3), 0.1, 0.9)
    texture = sum(
        share * _value_noise(rng, side, cells) for cells, share in ((5.0, 0.5), (20.0, 0.4), (160 / 3, 0.25))
    )
    tint = BACKGROUND_CONTRAST * rng.uniform(0.5, 1.2, 3)
    backdrop: NDArray[np.float64] = colour[:, None, None] + tint[:, None, None] * texture
    if rng.random() < 0.5:
        period, angle = rng.uniform(5, 20) * height / REFERENCE_HEIGHT, rng.uniform(0, np.pi)
        down, across = np.mgrid[:side, :side]
        distance = down * np.cos(angle) + across * np.sin(angle)
        backdrop += 0.15 * np.sign(np.sin(2 * np.pi * distance / period))
    return backdrop


def _value_noise(rng: np.random.Generator, side: int, cells: float) -> NDArray[np.float64]:
    """Interpolate a square lattice of normal values, ``cells`` to a side, to (side, side) pixels."""
    lattice = rng.standard_normal((int(cells) + 2, int(cells) + 2))
    position = np.arange(side) * cells / side
    low = position.astype(int)
    part = position - low
    rows = lattice[low] * (1 - part)[:, None] + lattice[low + 1] * part[:, None]
    noise: NDArray[np.float64] = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return noise
