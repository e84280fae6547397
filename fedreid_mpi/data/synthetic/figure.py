"""A pedestrian, drawn back to front: legs, far arm, torso, near arm, head, bag.

Lengths are in body heights. The view decides what is seen: the logo from the front, the backpack from the
back, a shoulder bag from its own side; so the same person differs between cameras as real ones do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedreid_mpi.data.synthetic.canvas import Canvas, Floats, Patch, Rows, box, capsule, column, disc
from fedreid_mpi.data.synthetic.people import Bag, Pattern, People

FRONT, BACK, LEFT, RIGHT = range(4)
SHOULDER = 0.175
TORSO_HALF_WIDTH = 0.125


@dataclass(frozen=True, slots=True)
class Pose:
    """How each of n figures stands: shapes (n,).

    Attributes
    ----------
    view
        `FRONT`, `BACK`, `LEFT` or `RIGHT`.
    stride, swing
        How far the feet are apart and the arms off the body, in body heights.
    light
        How much brighter the figure's right edge is than its axis.
    """

    view: NDArray[np.int64]
    stride: Floats
    swing: Floats
    light: Floats

    @property
    def sideways(self) -> NDArray[np.bool_]:
        """Whether the figure is seen from a side."""
        return self.view >= LEFT

    @property
    def facing(self) -> Floats:
        """1 where the figure faces right, -1 elsewhere."""
        return np.where(self.view == RIGHT, 1, -1).astype(np.float32)


def draw_pose(rng: np.random.Generator, views: Floats, light: Floats) -> Pose:
    """Draw poses; ``views`` holds cumulative shares of the views, shape (n, 4)."""
    n = len(views)
    view = np.minimum((rng.random((n, 1)) > views).sum(axis=1), RIGHT)
    sideways = view >= LEFT
    phases = np.sin(rng.uniform(0, 2 * np.pi, (2, n)))
    stride = np.where(sideways, 0.10, 0.03) * np.abs(phases[0]) + 0.005
    swing = np.where(sideways, 0.12, 0.03) * phases[1]
    return Pose(view, stride.astype(np.float32), swing.astype(np.float32), light)


def draw_figures(canvas: Canvas, people: People, pose: Pose) -> None:
    """Paint one figure into each image of ``canvas``; ``people`` holds one row per image."""
    half_width = TORSO_HALF_WIDTH * people.width * np.where(pose.sideways, 0.68, 1)
    for side in (-1, 1):
        _draw_leg(canvas, people, pose, half_width, side)
    _draw_skirt(canvas, people, half_width)
    _draw_backpack_from_side(canvas, people, pose, half_width)
    _draw_arm(canvas, people, pose, half_width, -1)
    _draw_torso(canvas, people, pose, half_width)
    _draw_arm(canvas, people, pose, half_width, 1)
    _draw_head(canvas, people, pose)
    _draw_backpack(canvas, people, pose, half_width)
    _draw_hanging_bag(canvas, people, pose, half_width)


def _rows(mask: NDArray[np.bool_]) -> Rows:
    return np.flatnonzero(mask)


def _blend(near: Floats, far: Floats, share: Floats) -> Floats:
    """Go from colours ``near`` to ``far``, both (k, 3), by ``share`` (k, h, w); returns (3, k, h, w)."""
    start, end = near.T[:, :, None, None], far.T[:, :, None, None]
    blended: Floats = start + share * (end - start)
    return blended


def _draw_leg(canvas: Canvas, people: People, pose: Pose, half_width: Floats, side: int) -> None:
    patch = canvas.patch(0.36, 1.0)
    foot = column(side * 0.3 * half_width + side * pose.stride)
    distance, along = capsule(
        patch.x,
        patch.y,
        (column(side * 0.5 * half_width), column(people.waist - 0.02)),
        (foot, 0.95),
        (column(0.055 * people.width), column(0.034 * people.width)),
    )
    # Trousers reach the shoes; from a hem at 45 % of the leg, shorts and skirts leave the skin bare.
    hem = column(np.where(people.shorts | people.skirt, 0.45, 2.0))
    shade = 0.88 if side > 0 else 1.0
    patch.paint(distance, shade * _blend(people.lower, people.skin, np.clip((along - hem) * 15, 0, 1)))
    shoe = canvas.patch(0.93, 1.0)
    toe = column(np.where(pose.sideways, 0.02 * pose.facing, 0))
    shoe.paint(disc((shoe.x - foot - toe) / 1.3, shoe.y - 0.965, 0.032), people.shoe.T)


def _draw_skirt(canvas: Canvas, people: People, half_width: Floats) -> None:
    rows = _rows(people.skirt)
    patch, waist = canvas.patch(0.43, 0.77, rows), column(people.waist[rows])
    flare = column(half_width[rows]) * (0.75 + 1.2 * (patch.y - waist))
    patch.paint(box(patch.x, patch.y - waist - 0.09, flare, 0.11), people.lower[rows].T)


def _draw_arm(canvas: Canvas, people: People, pose: Pose, half_width: Floats, side: int) -> None:
    patch = canvas.patch(0.16, 0.54)
    # From a side both arms hang from the figure's axis.
    shoulder = side * half_width * ~pose.sideways
    distance, along = capsule(
        patch.x,
        patch.y,
        (column(shoulder), 0.215),
        (column(1.15 * shoulder + side * pose.swing), 0.50),
        (column(0.04 * people.width), 0.028),
    )
    cuff = column(np.where(people.sleeveless, 0.4, 0.9))
    sleeve = 0.9 * people.upper
    patch.paint(distance, _blend(sleeve, people.skin, np.clip((along - cuff) * 15, 0, 1)))


def _draw_torso(canvas: Canvas, people: People, pose: Pose, half_width: Floats) -> None:
    patch = canvas.patch(SHOULDER - 0.01, 0.70)
    hem, width = column(people.waist + 0.13 * people.coat), column(half_width)
    taper = 1 - 0.25 * np.clip((patch.y - 0.2) / 0.3, 0, 1)
    middle, half_length = (hem + SHOULDER) / 2, (hem - SHOULDER) / 2
    distance = box(patch.x, patch.y - middle, width * taper, half_length) - 0.008
    light = 1 + column(pose.light) * patch.x / width
    patch.paint(distance, light * _blend(people.upper, people.second, _second_colour(people, patch)))
    rows = _rows(people.logo & (pose.view == FRONT))
    logo = canvas.patch(0.26, 0.34, rows)
    logo.paint(box(logo.x, logo.y - 0.30, 0.05, 0.04), people.logo_colour[rows].T)


def _second_colour(people: People, patch: Patch) -> Floats:
    """Where the pattern of the clothes shows its second colour: 0 or 1 for each pixel of the patch."""
    rate, phase = column(2 * np.pi * people.pattern_rate), column(people.pattern_phase)
    hoops = np.sin(rate * patch.y + phase)
    stripes = np.sin(1.3 * rate * patch.x + phase)
    shown = np.zeros(patch.x.shape, np.float32)
    for pattern, second in (
        (Pattern.HOOPS, hoops > 0),
        (Pattern.STRIPES, stripes > 0),
        (Pattern.CHECKS, stripes * hoops > 0),
        (Pattern.TWO_PART, patch.y > column(0.26 + 0.01 * people.pattern_rate)),
        (Pattern.DOTS, (hoops > 0.3) & (stripes > 0.3)),
    ):
        rows = _rows(people.pattern == pattern)
        shown[rows] = second[rows]
    return shown


def _draw_head(canvas: Canvas, people: People, pose: Pose) -> None:
    patch = canvas.patch(0.0, 0.17)
    x, y = patch.x, patch.y
    patch.paint(disc(x / 0.85, y - 0.085, 0.075), people.skin.T)
    # Seen from the back the hair covers the head, from a side its rear half, from the front a fringe.
    back, sideways = column(pose.view == BACK), column(pose.sideways)
    rear = (x * column(pose.facing) < -0.005) | (y < 0.05)
    covered = np.where(back > 0, y < 0.15, np.where(sideways > 0, rear, y < 0.045))
    patch.paint(disc(x / 0.88, y - 0.083, 0.08), people.hair.T, covered)
    _draw_long_hair(canvas, people, pose)
    rows = _rows(people.hat)
    hat = canvas.patch(0.0, 0.05, rows)
    hat.paint(box(hat.x, hat.y - 0.02, 0.085, 0.028), people.hat_colour[rows].T)


def _draw_long_hair(canvas: Canvas, people: People, pose: Pose) -> None:
    for from_front, offsets, half_width in ((False, (0.0,), 0.075), (True, (-0.07, 0.07), 0.018)):
        rows = _rows((people.hair_length > 0) & ((pose.view == FRONT) == from_front))
        patch, half_length = canvas.patch(0.07, 0.27, rows), column(people.hair_length[rows] / 2)
        rear = column(np.where(pose.sideways, -0.03 * pose.facing, 0)[rows])
        for offset in offsets:
            x, y = patch.x - rear - offset, patch.y - 0.09 - half_length
            patch.paint(box(x, y, half_width, half_length + 0.02), people.hair[rows].T)


def _draw_backpack_from_side(canvas: Canvas, people: People, pose: Pose, half_width: Floats) -> None:
    rows = _rows((people.bag == Bag.BACKPACK) & pose.sideways)
    patch = canvas.patch(0.22, 0.42, rows)
    behind = column((pose.facing * (half_width + 0.025))[rows])
    patch.paint(box(patch.x + behind, patch.y - 0.32, 0.05, 0.10), people.bag_colour[rows].T)


def _draw_backpack(canvas: Canvas, people: People, pose: Pose, half_width: Floats) -> None:
    """Paint the pack seen from the back, its two straps from the front."""
    rows = _rows((people.bag == Bag.BACKPACK) & (pose.view == BACK))
    pack = canvas.patch(0.20, 0.44, rows)
    distance = box(pack.x, pack.y - 0.32, column(0.75 * half_width[rows]), 0.11) - 0.005
    pack.paint(distance, people.bag_colour[rows].T)
    rows = _rows((people.bag == Bag.BACKPACK) & (pose.view == FRONT))
    strap = canvas.patch(0.18, 0.36, rows)
    for side in (-1, 1):
        x = strap.x - column(side * 0.6 * half_width[rows])
        strap.paint(box(x, strap.y - 0.27, 0.014, 0.09), people.bag_colour[rows].T)


def _draw_hanging_bag(canvas: Canvas, people: People, pose: Pose, half_width: Floats) -> None:
    """Paint shoulder bags, with a strap across the body, and hand bags, unless the body hides them."""
    side = people.bag_side * np.where(pose.view == BACK, -1, 1)
    seen = ~(pose.sideways & (side * pose.facing < 0))
    rows = _rows((people.bag == Bag.SHOULDER) & seen & ~pose.sideways)
    strap = canvas.patch(0.19, 0.49, rows)
    x = strap.x * column(side[rows]) - 0.75 * (strap.y - 0.35)
    strap.paint(box(x, strap.y - 0.34, 0.016, 0.15), people.bag_colour[rows].T)
    rows = _rows((people.bag == Bag.SHOULDER) & seen)
    pouch = canvas.patch(0.46, 0.58, rows)
    x = pouch.x - column(np.where(pose.sideways, 0, side * (half_width + 0.02))[rows])
    pouch.paint(box(x, pouch.y - 0.52, 0.05, 0.06), people.bag_colour[rows].T)
    rows = _rows((people.bag == Bag.HAND) & seen)
    bag = canvas.patch(0.51, 0.63, rows)
    x = bag.x - column(np.where(pose.sideways, pose.swing, 1.2 * side * half_width)[rows])
    bag.paint(box(x, bag.y - 0.57, 0.045, 0.055), people.bag_colour[rows].T)
