"""Images on the device: uint8 until the last moment, augmented a batch at a time, every choice seeded."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.records.pixels import PixelScale

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601), as torchvision has them."""


Source = tuple[NDArray[np.uint8], NDArray[np.int64]]


class ImageStore:
    """Some images of one or several archives: on the device if they fit, otherwise fetched per batch.

    Parameters
    ----------
    sources
        Images of each archive, shape (N, H, W, 3), uint8, usually memory-mapped, and the indices of those
        that are meant; rows number them in this order.
    device
        Where batches are wanted.
    """

    def __init__(self, sources: Sequence[Source], device: torch.device) -> None:
        # As plain arrays: indexing a memmap makes another one, which takes longer than copying a small batch.
        self._sources = tuple((np.asarray(images), indices) for images, indices in sources)
        self._device = device
        self._ends = np.cumsum([len(indices) for _, indices in sources])
        self._resident: Tensor | None = None
        if device.type == "cuda":
            needed = sum(len(indices) * int(np.prod(images.shape[1:])) for images, indices in sources)
            if needed < torch.cuda.mem_get_info(device)[0] // 2:
                self._resident = torch.from_numpy(self._fetch(np.arange(len(self)))).to(device)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the images of the given rows: shape (B, H, W, 3), uint8, on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._device)]
        return torch.from_numpy(self._fetch(rows)).to(self._device)

    def _fetch(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the images of the given rows from their files."""
        if len(self._sources) == 1:
            images, indices = self._sources[0]
            return images[indices[rows]]
        fetched = np.empty((len(rows), *self._sources[0][0].shape[1:]), np.uint8)
        origin = np.searchsorted(self._ends, rows, side="right")
        for number, (images, indices) in enumerate(self._sources):
            here = origin == number
            fetched[here] = images[indices[rows[here] - (self._ends[number] - len(indices))]]
        return fetched


def normalise(images: Tensor, scale: PixelScale) -> Tensor:
    """Turn uint8 images (B, H, W, 3) into normalised float32 images (B, 3, H, W)."""
    return _standardise(_to_unit(images), scale)


def augment(
    images: Tensor, scale: PixelScale, settings: config.Augmentation, random: np.random.Generator
) -> Tensor:
    """Augment and normalise a training batch.

    Random numbers are drawn on the CPU, so they are the same whatever the device. The order is pad, crop and
    flip, then brightness, contrast, saturation and hue, then erasing.

    Parameters
    ----------
    images
        Shape (B, H, W, 3), uint8, on any device.
    scale
        What the network expects of pixels.
    settings
        The experiment's ``[augmentation]`` section.
    random
        Source of all random choices.

    Returns
    -------
    Tensor
        Shape (B, 3, H, W), float32, on the images' device.
    """
    pixels = _to_unit(_crop_and_flip(images, settings, random))
    if any(settings.jitter):
        pixels = _jitter(pixels, settings.jitter, random)
    pixels = _standardise(pixels, scale)
    if settings.erasing:
        _erase(pixels, settings.erasing, random)
    return pixels


def _to_unit(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float().div_(255)


def _standardise(pixels: Tensor, scale: PixelScale) -> Tensor:
    # As rows of interleaved channels, which a CPU's vector instructions work through at full length.
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    rows = pixels.permute(0, 2, 3, 1).flatten(2)
    width = pixels.shape[3]
    rows.sub_(torch.tensor(scale.mean * width, device=pixels.device))
    rows.div_(torch.tensor(scale.deviation * width, device=pixels.device))
    return pixels


def _crop_and_flip(images: Tensor, settings: config.Augmentation, random: np.random.Generator) -> Tensor:
    """Pad with black, crop to the original size at a random place, mirror at random.

    All of it copies whole rows or images: those to be mirrored stand side by side until they are.
    """
    count, height, width, channels = images.shape
    pad = settings.pad
    top, left = random.integers(0, 2 * pad + 1, (2, count))
    mirrored = random.random(count) < settings.flip
    if not pad and not mirrored.any():
        return images
    order = np.argsort(mirrored, kind="stable")
    padded = F.pad(images, (0, 0, pad, pad, pad, pad)).flatten()
    # Every row of the original width that a crop can take, whatever pixel it begins at.
    places = padded.numel() // channels - width + 1
    rows = padded.as_strided((places, width * channels), (channels, 1))
    first = (order * (height + 2 * pad) + top[order])[:, None] + np.arange(height)
    begins = first * (width + 2 * pad) + left[order][:, None]
    cropped = rows.index_select(0, torch.from_numpy(begins.ravel()).to(images.device)).view(images.shape)
    last = cropped[count - int(mirrored.sum()) :].permute(0, 3, 1, 2)
    last.copy_(last.flip(3))
    return cropped.index_select(0, torch.from_numpy(np.argsort(order)).to(images.device))


def _jitter(pixels: Tensor, strength: tuple[float, ...], random: np.random.Generator) -> Tensor:
    """Scale brightness, contrast and saturation and turn the hue, each image by its own random factors.

    The hue is turned about the grey axis in YIQ space, which is linear, unlike torchvision's way through HSV.
    """
    limits = np.asarray(strength)[:, None]
    draws = random.uniform(-1, 1, (4, len(pixels))) * limits
    brightness, contrast, saturation = (
        torch.from_numpy(1 + draw).float().to(pixels.device).view(-1, 1, 1, 1) for draw in draws[:3]
    )
    grey = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    pixels = (pixels * brightness).clamp_(0, 1)
    mean = (pixels * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, contrast).clamp_(0, 1)
    luma = (pixels * grey).sum(1, keepdim=True)
    pixels = torch.lerp(luma, pixels, saturation).clamp_(0, 1)
    if strength[3]:
        rotation = torch.from_numpy(_hue_rotations(draws[3])).float().to(pixels.device)
        pixels = torch.einsum("bij,bjhw->bihw", rotation, pixels).clamp_(0, 1)
    return pixels


def _hue_rotations(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one RGB-to-RGB matrix an image, (B, 3, 3), that turns the hue by a share of the full circle."""
    to_yiq = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    cosine, sine = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    rotation = np.zeros((len(turns), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 1, 2], rotation[:, 2, 1] = -sine, sine
    turned: NDArray[np.float64] = np.linalg.inv(to_yiq) @ rotation @ to_yiq
    return turned


def _erase(pixels: Tensor, probability: float, random: np.random.Generator) -> None:
    """Set a random rectangle of 2 to 40 % of the area to zero, in place (Zhong et al., AAAI 2020)."""
    count, _, height, width = pixels.shape
    chosen = random.random(count) < probability
    area = random.uniform(0.02, 0.4, count) * height * width
    aspect = np.exp(random.uniform(np.log(0.3), np.log(1 / 0.3), count))
    tall = np.clip(np.rint(np.sqrt(area * aspect)), 1, height).astype(int)
    wide = np.clip(np.rint(np.sqrt(area / aspect)), 1, width).astype(int)
    top = (random.random(count) * (height - tall + 1)).astype(int)
    left = (random.random(count) * (width - wide + 1)).astype(int)
    for image in np.flatnonzero(chosen):
        rows = slice(top[image], top[image] + tall[image])
        pixels[image, :, rows, left[image] : left[image] + wide[image]] = 0
