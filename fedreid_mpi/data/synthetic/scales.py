"""How many people and images each dataset has, at each scale of the benchmark.

``full`` has the published counts of the real datasets. The others keep their order of size and are small
enough for a laptop (``demo``) or for comparing methods (``bench``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FixedSplit:
    """Counts of a dataset whose original says which image is for training, query and gallery.

    Attributes
    ----------
    query_images
        One for each camera that sees a test identity.
    gallery_images
        All of them, distractors and junk included.
    distractor_identities, distractor_images
        People in the gallery that no query asks for. 0 identities: each image shows another stranger.
    junk_images
        Bad detections, which scoring leaves out.
    """

    cameras: int
    train_identities: int
    train_images: int
    query_identities: int
    query_images: int
    gallery_images: int
    distractor_identities: int = 0
    distractor_images: int = 0
    junk_images: int = 0

    @property
    def images(self) -> int:
        """Number of image files."""
        return self.train_images + self.query_images + self.gallery_images


@dataclass(frozen=True, slots=True)
class Pairs:
    """Counts of PRID2011: people seen by both of two cameras, or by one of them only.

    Attributes
    ----------
    frames
        Frames of a person in one camera in the multi-shot half.
    short_a, short_b, short_a_only
        How many people have two frames fewer: of the shared ones in either camera, of those in camera a only.
    """

    shared: int
    a_only: int
    b_only: int
    frames: int
    short_a: int = 0
    short_b: int = 0
    short_a_only: int = 0

    @property
    def images(self) -> int:
        """Number of image files: a single shot and the frames of every person in each camera."""
        short = self.short_a + self.short_b + self.short_a_only
        return (2 * self.shared + self.a_only + self.b_only) * (1 + self.frames) - 2 * short


@dataclass(frozen=True, slots=True)
class OpenSplit:
    """Counts of a dataset that comes without a split; the reader halves its identities.

    Attributes
    ----------
    cameras
        Cameras that took the images, whether or not the file names tell them.
    single_sequence
        How many people appear in one sequence only (3DPeS), so that they cannot be queried.
    """

    cameras: int
    identities: int
    images: int
    single_sequence: int = 0


@dataclass(frozen=True, slots=True)
class PairsAndOthers:
    """Counts of a dataset that serves testing alone: people seen by both of two cameras, and others.

    Attributes
    ----------
    pairs
        People seen by both.
    frames
        Images of a person in a camera.
    others
        Images of CAVIAR4REID's people whom one camera saw, or of GRID's strangers, each another one.
    cameras
        All that there are; each person is seen by two of them.
    """

    pairs: int
    frames: int
    others: int
    cameras: int = 2

    @property
    def images(self) -> int:
        """Number of image files."""
        return 2 * self.pairs * self.frames + self.others


Counts = FixedSplit | Pairs | OpenSplit | PairsAndOthers


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts and image sizes (height, width in pixels) of all datasets.

    Attributes
    ----------
    size
        Of datasets that have no entry in ``native_sizes``.
    """

    counts: Mapping[str, Counts]
    size: tuple[int, int]
    native_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def size_of(self, dataset: str) -> tuple[int, int]:
        """Return height and width of a dataset's images."""
        return self.native_sizes.get(dataset, self.size)


SCALES: Mapping[str, Scale] = {
    "demo": Scale(
        size=(64, 32),
        counts={
            "msmt17": FixedSplit(8, 60, 1400, 80, 320, 480),
            "dukemtmc-reid": FixedSplit(6, 40, 760, 80, 320, 540, 20, 60),
            "market1501": FixedSplit(6, 40, 600, 80, 320, 540, 0, 40, 20),
            "cuhk03-np": FixedSplit(2, 40, 360, 80, 160, 240),
            "prid2011": Pairs(shared=100, a_only=10, b_only=40, frames=2),
            "cuhk01": OpenSplit(2, 100, 400),
            "viper": OpenSplit(2, 100, 200),
            "3dpes": OpenSplit(2, 90, 360, single_sequence=4),
            "ilids": OpenSplit(4, 90, 306),
            "cuhk02": OpenSplit(10, 80, 320),
            "caviar4reid": PairsAndOthers(pairs=50, frames=4, others=22 * 4),
            "grid": PairsAndOthers(pairs=100, frames=1, others=200, cameras=8),
        },
    ),
    "bench": Scale(
        size=(128, 64),
        counts={
            "msmt17": FixedSplit(15, 104, 3200, 160, 640, 1120),
            "dukemtmc-reid": FixedSplit(8, 70, 1600, 160, 560, 1080, 40, 120),
            "market1501": FixedSplit(6, 75, 1280, 160, 640, 1200, 0, 140, 100),
            "cuhk03-np": FixedSplit(2, 76, 760, 160, 320, 640),
            "prid2011": Pairs(shared=200, a_only=28, b_only=120, frames=2),
            "cuhk01": OpenSplit(2, 200, 800),
            "viper": OpenSplit(2, 200, 400),
            "3dpes": OpenSplit(4, 150, 600, single_sequence=10),
            "ilids": OpenSplit(4, 150, 540),
            "cuhk02": OpenSplit(10, 160, 640),
            "caviar4reid": PairsAndOthers(pairs=50, frames=10, others=22 * 10),
            "grid": PairsAndOthers(pairs=250, frames=1, others=775, cameras=8),
        },
    ),
    "full": Scale(
        size=(128, 64),
        native_sizes={"cuhk03-np": (160, 60), "cuhk01": (160, 60), "viper": (128, 48), "cuhk02": (160, 60)},
        counts={
            "msmt17": FixedSplit(15, 1041, 32_621, 3060, 11_659, 82_161),
            "dukemtmc-reid": FixedSplit(8, 702, 16_522, 702, 2228, 17_661, 408, 2448),
            "market1501": FixedSplit(6, 751, 12_936, 750, 3368, 19_732, 0, 2798, 3819),
            "cuhk03-np": FixedSplit(2, 767, 7365, 700, 1400, 5332),
            # 100 of the shared people train: 980 + 996 frames on average; the others of camera a: 1,768.
            "prid2011": Pairs(200, 185, 549, frames=10, short_a=20, short_b=4, short_a_only=41),
            "cuhk01": OpenSplit(2, 971, 3884),
            "viper": OpenSplit(2, 632, 1264),
            "3dpes": OpenSplit(8, 193, 1012, single_sequence=29),
            "ilids": OpenSplit(4, 119, 476),
            "cuhk02": OpenSplit(10, 1816, 7264),
            "caviar4reid": PairsAndOthers(pairs=50, frames=10, others=22 * 10),
            "grid": PairsAndOthers(pairs=250, frames=1, others=775, cameras=8),
        },
    ),
}
