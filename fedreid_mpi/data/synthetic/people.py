"""Who walks through a dataset: clothes, bags, hair and build, the same in every image of a person."""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.synthetic.domains import HAIR, PALETTE, Domain

SKIN = np.array((0.85, 0.65, 0.52))
COLOUR_SPREAD = 0.07


class Pattern(IntEnum):
    """How the two colours of the upper clothes are laid out."""

    PLAIN = 0
    HOOPS = 1
    STRIPES = 2
    CHECKS = 3
    TWO_PART = 4
    DOTS = 5


class Bag(IntEnum):
    """What a person carries."""

    NONE = 0
    BACKPACK = 1
    SHOULDER = 2
    HAND = 3


@dataclass(frozen=True, slots=True)
class People:
    """Attributes of n people: colours (n, 3) and numbers (n,) as float32, traits as bool, kinds as int64.

    Attributes
    ----------
    second
        Second colour of the upper clothes' pattern.
    pattern_rate, pattern_phase
        Repetitions of the pattern in a body height, and where it starts.
    bag_side
        -1 or 1: the side the bag is worn on.
    hair_length
        In body heights; 0 is short.
    waist
        Lower edge of the upper clothes, in body heights from the top.
    """

    upper: NDArray[np.float32]
    second: NDArray[np.float32]
    lower: NDArray[np.float32]
    shoe: NDArray[np.float32]
    bag_colour: NDArray[np.float32]
    logo_colour: NDArray[np.float32]
    hat_colour: NDArray[np.float32]
    hair: NDArray[np.float32]
    skin: NDArray[np.float32]
    pattern: NDArray[np.int64]
    pattern_rate: NDArray[np.float32]
    pattern_phase: NDArray[np.float32]
    bag: NDArray[np.int64]
    bag_side: NDArray[np.float32]
    hair_length: NDArray[np.float32]
    width: NDArray[np.float32]
    height: NDArray[np.float32]
    waist: NDArray[np.float32]
    shorts: NDArray[np.bool_]
    skirt: NDArray[np.bool_]
    sleeveless: NDArray[np.bool_]
    coat: NDArray[np.bool_]
    logo: NDArray[np.bool_]
    hat: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64]) -> "People":
        """Return the people at ``index``, with repetitions."""
        return People(*(getattr(self, field.name)[index] for field in fields(self)))


def draw_people(rng: np.random.Generator, domain: Domain, count: int) -> People:
    """Draw ``count`` people who dress as is usual in ``domain``."""
    n = count

    def numbers(values: NDArray[np.float64]) -> NDArray[np.float32]:
        return values.astype(np.float32)

    def cloth(shares: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        colours = PALETTE[rng.choice(len(PALETTE), n, p=shares)]
        return numbers(np.clip(colours + COLOUR_SPREAD * rng.standard_normal((n, 3)), 0.02, 0.98))

    def trait(share: float) -> NDArray[np.bool_]:
        return rng.random(n) < share

    hair = HAIR[rng.choice(len(HAIR), n, p=domain.hair_palette)]
    skirt = trait(domain.skirt_share)
    return People(
        upper=cloth(domain.upper_palette),
        second=cloth(),
        lower=cloth(domain.lower_palette),
        shoe=cloth(domain.lower_palette),
        bag_colour=cloth(),
        logo_colour=cloth(),
        hat_colour=cloth(),
        hair=numbers(np.clip(hair + 0.02 * rng.standard_normal((n, 3)), 0, 1)),
        skin=numbers(SKIN * rng.uniform(0.45, 1.08, (n, 1))),
        pattern=np.where(trait(domain.pattern_share), rng.integers(1, len(Pattern), n), Pattern.PLAIN),
        pattern_rate=numbers(rng.uniform(6, 16, n)),
        pattern_phase=numbers(rng.uniform(0, 2 * np.pi, n)),
        bag=np.where(trait(domain.bag_share), rng.integers(1, len(Bag), n), Bag.NONE),
        bag_side=numbers(rng.choice([-1.0, 1.0], n)),
        hair_length=numbers(rng.uniform(0, 0.16, n) * trait(0.5)),
        width=numbers(rng.normal(1, 0.10, n).clip(0.75, 1.3)),
        height=numbers(rng.normal(1, 0.05, n).clip(0.85, 1.12)),
        waist=numbers(rng.uniform(0.46, 0.56, n)),
        shorts=trait(domain.shorts_share) & ~skirt,
        skirt=skirt,
        sleeveless=trait(domain.sleeveless_share),
        coat=trait(0.2),
        logo=trait(0.4),
        hat=trait(0.15),
    )
