import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fedreid_mpi import config
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import ImageStore, augment, normalise
from fedreid_mpi.records.pixels import IMAGENET

HEIGHT, WIDTH = 32, 16


def pictures(count, height=HEIGHT, width=WIDTH, low=0, high=256):
    return torch.from_numpy(
        generator(1, "pictures").integers(low, high, (count, height, width, 3)).astype(np.uint8)
    )


def settings(**changes):
    return config.Augmentation.model_validate({"pad": 0, "flip": 0.0} | changes)


def pixels(batch):
    """Undo the normalisation: (B, H, W, 3) in [0, 1]."""
    return batch.permute(0, 2, 3, 1).double().numpy() * IMAGENET.deviation + IMAGENET.mean


class Fixed:
    """Stands in for a generator: every uniform draw lies at the same place of its range."""

    def __init__(self, at):
        self.at = at

    def random(self, size):
        return np.full(size, self.at)

    def uniform(self, low, high, size):
        return np.full(size, low + self.at * (high - low))

    def integers(self, low, high, size):
        return np.full(size, low + int(self.at * (high - 1 - low)))


def test_images_are_normalised_by_imagenets_mean_and_deviation():
    image = np.array([0, 128, 255], np.uint8) * np.ones((1, 2, 2, 1), np.uint8)
    normalised = normalise(torch.from_numpy(image), IMAGENET)
    assert normalised.shape == (1, 3, 2, 2)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(normalised[0, :, 1, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("pad", [0, 3, 10])
def test_pad_crop_and_flip_are_those_of_pillow(pad):
    images = pictures(20)
    augmented = pixels(augment(images, IMAGENET, settings(pad=pad, flip=0.5), generator(5, "augment")))
    random = generator(5, "augment")  # the same draws again
    top, left = random.integers(0, 2 * pad + 1, (2, 20))
    flipped = random.random(20) < 0.5
    assert 0 < flipped.sum() < 20
    for n, image in enumerate(images.numpy()):
        padded = ImageOps.expand(Image.fromarray(image), pad, fill=0)
        cropped = padded.crop((left[n], top[n], left[n] + WIDTH, top[n] + HEIGHT))
        expected = ImageOps.mirror(cropped) if flipped[n] else cropped
        np.testing.assert_allclose(augmented[n], np.asarray(expected) / 255, atol=1e-6)


def test_every_place_of_the_crop_is_drawn():
    images = torch.zeros(2000, 5, 5, 3, dtype=torch.uint8)
    images[:, 2, 2] = 255
    augmented = pixels(augment(images, IMAGENET, settings(pad=2), generator(0, "crop")))
    bright = {tuple(place) for place in np.argwhere(augmented[..., 0] > 0.5)[:, 1:]}
    assert bright == {(row, column) for row in range(5) for column in range(5)}


@pytest.mark.parametrize(("flip", "expected"), [(0.0, False), (1.0, True)])
def test_flip_is_a_probability(flip, expected):
    images = pictures(9)
    augmented = augment(images, IMAGENET, settings(flip=flip), generator(0, "flip"))
    assert torch.equal(augmented, normalise(images.flip(2) if expected else images, IMAGENET))


def test_erasing_sets_one_rectangle_of_2_to_40_percent_to_zero():
    height, width = 128, 64
    images = pictures(200, height, width, low=150)  # nothing normalises to zero
    plain = normalise(images, IMAGENET)
    erased = augment(images, IMAGENET, settings(erasing=1.0), generator(2, "erase"))
    gone = (erased == 0).all(1).numpy()
    for image, mask in enumerate(gone):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))
        assert mask[box].all(), "a rectangle"
        tall, wide = len(rows), len(columns)
        assert mask.sum() == tall * wide
        assert 0.018 < tall * wide / (height * width) < 0.41
        assert 0.27 < tall / wide < 3.7 or wide == width
        assert torch.equal(erased[image][:, ~mask], plain[image][:, ~mask])
    centres = np.array([np.argwhere(mask).mean(0) for mask in gone]) / (height, width)
    np.testing.assert_allclose(centres.mean(0), 0.5, atol=0.05)
    # All kinds come up: small and large, lying and standing, at every edge.
    shares = gone.mean((1, 2))
    assert shares.min() < 0.05
    assert shares.max() > 0.35
    ratios = gone.any(2).sum(1) / gone.any(1).sum(1)
    assert ratios.min() < 0.5
    assert ratios.max() > 2
    assert gone[:, 0].any()
    assert gone[:, -1].any()
    assert gone[:, :, 0].any()
    assert gone[:, :, -1].any()


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 60), (60, 4)])
def test_a_rectangle_has_a_pixel_at_least_and_ends_with_the_image(height, width):
    images = pictures(300, height, width, low=150)
    erased = augment(images, IMAGENET, settings(erasing=1.0), generator(6, "erase"))
    gone = (erased == 0).all(1)
    assert gone.flatten(1).any(1).all()
    assert gone[:, 0].any()
    assert gone[:, -1].any()
    assert gone[:, :, -1].any()
    tall, wide = gone.any(2).sum(1), gone.any(1).sum(1)
    assert tall.min() == wide.min() == 1
    assert torch.equal(gone.flatten(1).sum(1), tall * wide)


@pytest.mark.parametrize(("height", "width"), [(4, 60), (60, 4)])
def test_a_rectangle_by_hand(height, width):
    """In the middle of all ranges: a square of 21 % of 240 pixels, so 7 by 7, of which 4 by 7 fit in."""
    erased = augment(pictures(1, height, width, low=150), IMAGENET, settings(erasing=1.0), Fixed(0.5))
    gone = (erased == 0).all(1)[0]
    expected = torch.zeros(4, 60, dtype=torch.bool)
    expected[:, 27:34] = True
    assert torch.equal(gone if height == 4 else gone.T, expected)


def test_erasing_is_a_probability():
    images = pictures(2000, 16, 8, low=150)
    erased = augment(images, IMAGENET, settings(erasing=0.3), generator(3, "erase"))
    share = (erased == 0).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.04)


def test_jitter_in_the_middle_of_its_range_changes_nothing():
    images = pictures(6)
    jittered = augment(images, IMAGENET, settings(jitter=(0.5, 0.5, 0.5, 0.5)), Fixed(0.5))
    np.testing.assert_allclose(jittered, normalise(images, IMAGENET), atol=2e-5)


@pytest.mark.parametrize("at", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_jitter_is_that_of_torchvision(kind, at):
    from torchvision.transforms.v2 import functional

    images = pictures(6)
    strength = [0.4 * (kind == other) for other in ("brightness", "contrast", "saturation", "hue")]
    jittered = pixels(augment(images, IMAGENET, settings(jitter=strength), Fixed(at)))
    adjust = getattr(functional, f"adjust_{kind}")
    expected = adjust(images.permute(0, 3, 1, 2) / 255, 1 + 0.4 * (2 * at - 1)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(jittered, expected, atol=1e-3)  # its weights of grey have four digits


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_one_jitter_after_another_keeps_to_what_a_pixel_can_hold(at):
    from torchvision.transforms.v2 import functional

    images = pictures(6)
    jittered = pixels(augment(images, IMAGENET, settings(jitter=(0.9, 0.9, 0.9, 0)), Fixed(at)))
    expected = images.permute(0, 3, 1, 2) / 255
    for kind in ("brightness", "contrast", "saturation"):
        expected = getattr(functional, f"adjust_{kind}")(expected, 1 + 0.9 * (2 * at - 1))
    np.testing.assert_allclose(jittered, expected.permute(0, 2, 3, 1), atol=2e-3)
    turned = pixels(augment(images, IMAGENET, settings(jitter=(0, 0, 0, 0.4)), Fixed(at)))
    assert turned.min() == pytest.approx(0, abs=1e-6)
    assert turned.max() == pytest.approx(1, abs=1e-6)


def test_a_hue_turned_by_half_a_circle_twice_is_the_old_one():
    images = pictures(6, low=100, high=156)  # pale enough not to be clipped
    half = settings(jitter=(0.0, 0.0, 0.0, 0.5))
    once = pixels(augment(images, IMAGENET, half, Fixed(1.0)))
    again = torch.from_numpy(np.rint(255 * once).astype(np.uint8))
    twice = pixels(augment(again, IMAGENET, half, Fixed(1.0)))
    np.testing.assert_allclose(twice, images / 255, atol=2 / 255)
    assert np.abs(once - images.numpy() / 255).max() > 0.05


def test_hue_jitter_keeps_greys_and_luma_and_turns_the_hue():
    grey = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 4, 4, 1).repeat(1, 1, 1, 3)
    turned = pixels(augment(grey, IMAGENET, settings(jitter=(0, 0, 0, 0.3)), Fixed(1.0)))
    np.testing.assert_allclose(turned, grey / 255, atol=1e-3)
    reddish = torch.tensor([150, 110, 110], dtype=torch.uint8).expand(1, 2, 2, 3).contiguous()
    turned = pixels(augment(reddish, IMAGENET, settings(jitter=(0, 0, 0, 0.5)), Fixed(1.0)))[0, 0, 0]
    luma = np.array([0.299, 0.587, 0.114])
    assert turned @ luma == pytest.approx(np.array([150, 110, 110]) / 255 @ luma, abs=1e-4)
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(0.5, abs=0.1)  # red has become cyan


def test_the_hue_turns_one_way():
    """In YIQ the chroma I + iQ is multiplied by exp(2πi · turn)."""
    images = pictures(6, low=100, high=156)
    turned = pixels(augment(images, IMAGENET, settings(jitter=(0, 0, 0, 0.2)), Fixed(1.0)))
    to_yiq = np.array([(0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    before, after = (values @ to_yiq.T for values in (images.numpy() / 255, turned))
    chroma = [values[..., 1] + 1j * values[..., 2] for values in (before, after)]
    np.testing.assert_allclose(chroma[1], chroma[0] * np.exp(2j * np.pi * 0.2), atol=1e-5)
    np.testing.assert_allclose(after[..., 0], before[..., 0], atol=1e-5)


def test_augmentation_depends_on_its_generator_alone():
    images, all_on = pictures(10), settings(pad=4, flip=0.5, erasing=0.5, jitter=(0.2, 0.2, 0.2, 0.1))
    first = augment(images, IMAGENET, all_on, generator(1, "a"))
    torch.manual_seed(1)
    assert torch.equal(augment(images, IMAGENET, all_on, generator(1, "a")), first)
    assert not torch.equal(augment(images, IMAGENET, all_on, generator(2, "a")), first)
    assert torch.equal(images, pictures(10))


def test_a_store_gives_the_archives_images(archives):
    archive = DatasetArchive.open(archives[0])
    chosen = archive.split("query")
    store = ImageStore([(archive.images, chosen)], torch.device("cpu"))
    assert len(store) == len(chosen)
    batch = store.batch(np.array([3, 0, 3]))
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch, archive.images[chosen[[3, 0, 3]]])


def test_a_store_of_several_archives_numbers_their_images_through():
    first, second, third = (pictures(count, 4, 3) + number for number, count in enumerate((5, 4, 6)))
    chosen = np.array([4, 1]), np.array([0, 2, 3]), np.array([5])
    sources = [(each.numpy(), rows) for each, rows in zip((first, second, third), chosen, strict=True)]
    store = ImageStore(sources, torch.device("cpu"))
    assert len(store) == 6
    expected = torch.stack([first[4], first[1], second[0], second[2], second[3], third[5]])
    assert torch.equal(store.batch(np.arange(6)), expected)
    assert torch.equal(store.batch(np.array([5, 1, 2, 2])), expected[[5, 1, 2, 2]])
    two = ImageStore(sources[:2], torch.device("cpu")).batch(np.arange(5))
    assert two.dtype == torch.uint8
    assert torch.equal(two, expected[:5])
