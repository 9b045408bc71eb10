"""Describe the body of the phantom: place, shape and CT appearance of the 117 structures.

The structures are simple solids in a body of nominal size, mm in RAS. The origin is the center of the body at the
level of the thighs: x grows to the right, y to the front, z to the head (the crown is at 1000). The numbers are
rounded adult proportions, good for making test data and for nothing else. Paired structures are written for the
right side and mirrored.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.catalogue import contralateral_name, groups

Points = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

# Half-widths (x) and half-depths (y) of the body by height z.
OUTLINE = np.array(
    [(-100, 165, 105), (90, 172, 112), (170, 172, 115), (300, 148, 102), (430, 156, 108), (560, 162, 112),
     (640, 172, 108), (690, 185, 95), (715, 120, 75), (735, 62, 60), (790, 62, 66), (830, 76, 92), (900, 80, 98),
     (960, 68, 84), (1000, 20, 30)],
    dtype=np.float64,
)  # fmt: skip


@dataclass(frozen=True)
class Solid:
    """Define a tube along a line of points, or an ellipsoid (one point, three radii); `cut` keeps a half-space.

    Args:
        points: the line; a single point for an ellipsoid.
        radii: of the ellipsoid along x, y, z; of the tube all three the same.
        turn: degrees by which an ellipsoid is rotated about x, y and z through its center.
        cut: planes `(nx, ny, nz, d)`; points with `n . p >= d` stay.
        hollow: fraction of the radius that is empty inside.
    """

    points: tuple[Vector, ...]
    radii: Vector
    turn: Vector = (0.0, 0.0, 0.0)
    cut: tuple[tuple[float, float, float, float], ...] = ()
    hollow: float = 0.0

    def mirrored(self) -> Solid:
        """Return the same solid on the other side of the body."""
        points = tuple((-x, y, z) for x, y, z in self.points)
        cut = tuple((-nx, ny, nz, d) for nx, ny, nz, d in self.cut)
        return Solid(points, self.radii, (self.turn[0], -self.turn[1], -self.turn[2]), cut, self.hollow)

    def bounds(self, grow: float) -> tuple[Points, Points]:
        """Return the corners of a box that holds the solid when its radii grow by that factor."""
        points = np.array(self.points)
        reach = max(self.radii) * grow if any(self.turn) else np.array(self.radii) * grow
        return points.min(axis=0) - reach, points.max(axis=0) + reach

    def contains(self, points: Points, grow: float) -> npt.NDArray[np.bool_]:
        """Return which of the points `(N, 3)` lie inside, with radii grown by that factor."""
        if len(self.points) == 1:
            local = (points - self.points[0]) @ rotation(self.turn)
            distance = np.linalg.norm(local / np.array(self.radii), axis=1) / grow
        else:
            distance = np.full(len(points), np.inf)
            for start, end in zip(self.points, self.points[1:], strict=False):
                along = np.subtract(end, start)
                part = np.clip((points - start) @ along / (along @ along), 0.0, 1.0)
                gap = points - start - part[:, None] * along
                distance = np.minimum(distance, np.linalg.norm(gap, axis=1))
            distance /= self.radii[0] * grow
        inside = distance <= 1.0
        if self.hollow:
            inside &= distance > self.hollow
        for nx, ny, nz, d in self.cut:
            inside &= points @ np.array((nx, ny, nz)) >= d
        return np.asarray(inside)


def rotation(turn: Vector) -> Points:
    """Return the matrix that rotates about x, then y, then z, by degrees."""
    x, y, z = np.deg2rad(turn)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def ball(x: float, y: float, z: float, a: float, b: float, c: float, turn: Vector = (0.0, 0.0, 0.0)) -> Solid:
    """Make an ellipsoid."""
    return Solid(((x, y, z),), (a, b, c), turn)


def tube(radius: float, *points: Vector) -> Solid:
    """Make a tube."""
    return Solid(points, (radius, radius, radius))


# Heights of the vertebral bodies, from S1 up to C1.
SPINE = {
    "S1": 243, "L5": 268, "L4": 302, "L3": 336, "L2": 370, "L1": 403, "T12": 434, "T11": 462, "T10": 489, "T9": 515,
    "T8": 540, "T7": 564, "T6": 587, "T5": 609, "T4": 630, "T3": 650, "T2": 670, "T1": 690, "C7": 708, "C6": 725,
    "C5": 741, "C4": 757, "C3": 773, "C2": 791, "C1": 809,
}  # fmt: skip


def _vertebra(name: str) -> tuple[Solid, ...]:
    z = float(SPINE[name])
    size = {"S": 1.15, "L": 1.15, "T": 0.9, "C": 0.62}[name[0]]
    y = -47.0 if name[0] != "C" else -28.0
    body = ball(0, y, z, 21 * size, 16 * size, 13.5 if name[0] != "C" else 7.5)
    arch = ball(0, y - 40 * size, z - 4, 7 * size, 14 * size, 9 * size)
    line = [(-32 * size, y - 22 * size, z), (-14 * size, y - 30 * size, z)]
    wings = tube(5 * size, *line, *((-x, w, h) for x, w, h in reversed(line)))
    return body, arch, wings


def _rib(number: int) -> tuple[Solid, ...]:
    z = float(SPINE[f"T{number}"])
    half_width = np.interp(number, [1, 3, 7, 10, 12], [62, 102, 136, 134, 112])
    half_depth = np.interp(number, [1, 3, 7, 10, 12], [55, 76, 92, 92, 84])
    drop = np.interp(number, [1, 7, 12], [28, 62, 34])
    end = np.interp(number, [1, 7, 10, 11, 12], [62, 52, 25, -15, -42])
    angles = np.deg2rad(np.linspace(-78, end, 12))
    share = np.linspace(0.0, 1.0, 12) ** 1.3
    line = [
        (half_width * np.cos(a), half_depth * np.sin(a) - 4, z - drop * s) for a, s in zip(angles, share, strict=True)
    ]
    return (tube(5.2, *((float(x), float(y), float(w)) for x, y, w in line)),)


_LUNG: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    # The oblique fissure rises to the back, the horizontal one separates the middle lobe.
    "lung_upper_lobe_right": ((0.0, 0.55, 0.83, 480.0), (0.0, 0.0, 1.0, 582.0)),
    "lung_middle_lobe_right": ((0.0, 0.55, 0.83, 480.0), (0.0, 0.0, -1.0, -580.0)),
    "lung_lower_lobe_right": ((0.0, -0.55, -0.83, -478.0),),
    "lung_upper_lobe_left": ((0.0, 0.55, 0.83, 478.0),),
    "lung_lower_lobe_left": ((0.0, -0.55, -0.83, -476.0),),
}


def _lobe(name: str) -> tuple[Solid, ...]:
    side = 1.0 if name.endswith("right") else -1.0
    return (Solid(((side * 70.0, -8.0, 575.0),), (53.0, 78.0, 118.0), cut=_LUNG[name]),)


_RIGHT: dict[str, tuple[Solid, ...]] = {
    "kidney_right": (ball(62, -48, 382, 27, 25, 54, (0, -12, 0)),),
    "kidney_cyst_right": (ball(78, -42, 362, 13, 13, 13),),
    "adrenal_gland_right": (ball(38, -34, 446, 6, 14, 11, (0, 0, 20)), ball(44, -44, 440, 5, 10, 9)),
    "subclavian_artery_right": (tube(5.5, (24, 6, 684), (60, 0, 700), (105, -6, 690)),),
    "common_carotid_artery_right": (tube(4.5, (22, 8, 686), (26, 6, 730), (29, 8, 790)),),
    "iliac_artery_right": (tube(6.0, (3, -26, 300), (34, -22, 246), (48, 0, 190), (62, 34, 118)),),
    "iliac_vena_right": (tube(7.5, (14, -34, 292), (36, -34, 240), (44, -10, 186), (52, 30, 112)),),
    "humerus_right": (tube(14, (165, -8, 668), (182, -6, 560)), ball(158, -8, 676, 21, 21, 20)),
    "scapula_right": (ball(100, -74, 618, 46, 7, 62, (8, 0, -32)), tube(7, (78, -86, 650), (150, -38, 690))),
    "clavicula_right": (tube(7.5, (16, 46, 690), (70, 40, 704), (142, 2, 708)),),
    "femur_right": (ball(92, -4, 134, 24, 24, 24), tube(16, (92, -4, 134), (130, -8, 104), (120, 0, -120))),
    "hip_right": (
        ball(84, -18, 216, 12, 52, 52, (0, 22, 34)), ball(86, -8, 142, 22, 26, 26),
        tube(10, (80, 10, 130), (14, 40, 108)),
        tube(11, (72, -34, 130), (52, -40, 78), (18, 34, 92)),
    ),
    "gluteus_maximus_right": (ball(82, -76, 150, 52, 26, 68, (0, 18, -22)),),
    "gluteus_medius_right": (ball(118, -24, 208, 20, 44, 48, (0, 18, 20)),),
    "gluteus_minimus_right": (ball(112, 2, 176, 11, 27, 30, (0, 22, 15)),),
    "autochthon_right": (tube(21, (30, -90, 170), (34, -92, 320), (30, -90, 480), (24, -84, 640), (20, -62, 740)),),
    "iliopsoas_right": (tube(18, (42, -42, 400), (52, -30, 300), (66, 0, 210), (88, 26, 120)),),
    "brachiocephalic_vein_right": (tube(8.0, (29, 20, 660), (36, 24, 692)),),
}  # fmt: skip

_MIDLINE: dict[str, tuple[Solid, ...]] = {
    "spleen": (ball(-106, -40, 452, 26, 46, 50, (0, 18, 25)),),
    "gallbladder": (ball(72, 56, 402, 19, 25, 32, (25, 0, 0)),),
    "liver": (ball(74, 10, 452, 66, 76, 66, (0, 10, 0)), ball(2, 46, 464, 62, 40, 34)),
    "stomach": (ball(-66, 20, 470, 38, 42, 42), tube(30, (-66, 24, 470), (-62, 48, 418), (-18, 58, 394))),
    "pancreas": (tube(16, (38, 22, 390), (14, 24, 404), (-24, 10, 414), (-78, -22, 438)),),
    "esophagus": (tube(11, (0, -12, 745), (-4, -18, 640), (-6, -22, 560), (-22, -8, 494)),),
    "trachea": (
        tube(10.5, (0, 8, 770), (0, 2, 630)), tube(8, (0, 0, 632), (17, -4, 616)), tube(8, (0, 0, 632), (-18, -4, 615)),
    ),
    "thyroid_gland": (
        ball(19, 14, 726, 10, 13, 24), ball(-19, 14, 726, 10, 13, 24), tube(5, (-16, 22, 718), (16, 22, 718)),
    ),
    "small_bowel": (
        tube(15, (-70, 30, 340), (-20, 48, 356), (40, 50, 340), (60, 30, 318), (10, 22, 318), (-60, 22, 308),
             (-72, 48, 284), (-20, 60, 290), (45, 56, 286), (62, 26, 262), (10, 34, 258), (-50, 30, 252),
             (-52, 52, 226), (0, 58, 224), (50, 48, 218), (70, 30, 222)),
    ),
    "duodenum": (tube(15, (30, 44, 404), (52, 24, 398), (56, 4, 372), (44, -6, 346), (4, -2, 344), (-26, 6, 356)),),
    "colon": (
        tube(22, (98, 22, 214), (114, 8, 280), (112, 12, 350), (92, 42, 384), (30, 72, 366), (-40, 70, 374),
             (-98, 40, 408), (-120, 0, 384), (-122, -6, 300), (-104, 8, 222), (-62, 20, 192),
             (-24, -16, 190), (4, -42, 168), (0, -46, 118)),
    ),
    "urinary_bladder": (ball(0, 40, 138, 42, 34, 34),),
    "prostate": (ball(0, 12, 94, 23, 18, 17),),
    "sacrum": (ball(0, -58, 205, 44, 20, 40, (-14, 0, 0)), ball(0, -72, 150, 18, 10, 30, (20, 0, 0))),
    "heart": (ball(-22, 30, 548, 50, 42, 50, (0, 20, -25)),),
    "aorta": (tube(13, (-4, 22, 580), (8, 20, 622), (-2, 6, 644), (-20, -18, 640), (-26, -34, 610), (-22, -38, 500),
                   (-8, -26, 380), (0, -24, 304)),),
    "pulmonary_vein": (
        tube(8, (-46, -6, 580), (-10, -6, 572), (42, -4, 576)), tube(7, (-44, -14, 560), (40, -12, 558)),
    ),
    "brachiocephalic_trunk": (tube(6.5, (4, 14, 650), (22, 8, 684)),),
    "brachiocephalic_vein_left": (tube(7.5, (27, 24, 660), (-8, 32, 676), (-38, 26, 694)),),
    "atrial_appendage_left": (ball(-52, 34, 592, 13, 15, 9),),
    "superior_vena_cava": (tube(10, (27, 18, 592), (28, 18, 660)),),
    "inferior_vena_cava": (tube(11.5, (18, -28, 292), (20, -24, 400), (26, -8, 470), (24, 8, 516)),),
    "portal_vein_and_splenic_vein": (tube(7, (62, 10, 444), (26, 6, 420), (-20, -6, 424), (-84, -30, 448)),),
    "spinal_cord": (tube(7, (0, -76, 395), (0, -74, 560), (0, -64, 700), (0, -48, 780), (0, -36, 830)),),
    "brain": (ball(0, 2, 902, 62, 80, 60),),
    "skull": (
        Solid(((0.0, 2.0, 900.0),), (70.0, 88.0, 70.0), hollow=0.9),
        tube(11, (-38, 30, 806), (0, 74, 796), (38, 30, 806)),
    ),
    "sternum": (tube(12, (0, 88, 530), (0, 86, 600), (0, 66, 684)),),
    "costal_cartilages": tuple(
        tube(5.5, (side * x, y, z), (side * 14, 88, top))
        for side in (-1, 1)
        for x, y, z, top in (
            (88, 66, 500, 534), (84, 68, 530, 556), (76, 70, 566, 588), (66, 66, 600, 620), (48, 56, 640, 654),
        )
    ),
}  # fmt: skip


@functools.cache
def solids() -> dict[str, tuple[Solid, ...]]:
    """Return the solids of each of the 117 structures, in the order of the catalogue."""
    solids_of: dict[str, tuple[Solid, ...]] = {}
    for name in groups()["all"]:
        contralateral = contralateral_name(name)
        if name.startswith("vertebrae_"):
            solids_of[name] = _vertebra(name.removeprefix("vertebrae_"))
        elif name.startswith("lung_"):
            solids_of[name] = _lobe(name)
        elif name.startswith("rib_"):
            rib = _rib(int(name.rsplit("_", 1)[1]))
            solids_of[name] = rib if "right" in name else tuple(solid.mirrored() for solid in rib)
        elif name in _MIDLINE:
            solids_of[name] = _MIDLINE[name]
        elif name in _RIGHT:
            solids_of[name] = _RIGHT[name]
        elif contralateral in _RIGHT:
            solids_of[name] = tuple(solid.mirrored() for solid in _RIGHT[contralateral])
    return solids_of


@dataclass(frozen=True)
class Tissue:
    """Describe the appearance of a structure in CT.

    Args:
        low: lowest mean HU that a case may draw.
        high: highest mean HU that a case may draw.
        texture: depth of the texture, HU.
        grain: 0 for a texture of large patches, 1 for a fine one.
        wall: HU of the outermost voxels of a hollow organ; None if there is no wall.
        gas: fraction of the inside that is gas.
    """

    low: float
    high: float
    texture: float = 10.0
    grain: float = 0.5
    wall: float | None = None
    gas: float = 0.0


_TISSUES = {
    "lung": Tissue(-860, -790, 40, 1.0),
    "trachea": Tissue(-1000, -970, 8),
    "liver": Tissue(85, 120, 8, 0.0),
    "spleen": Tissue(105, 140, 10, 1.0),
    "kidney": Tissue(130, 190, 30, 0.6),
    "kidney_cyst": Tissue(-5, 15, 4),
    "gallbladder": Tissue(-15, 15, 4, wall=85),
    "stomach": Tissue(15, 55, 22, 0.0, wall=95, gas=0.2),
    "pancreas": Tissue(75, 110, 28, 1.0),
    "small_bowel": Tissue(35, 80, 18, 0.4, wall=120, gas=0.04),
    "duodenum": Tissue(30, 75, 45, 1.0, wall=115, gas=0.04),
    "colon": Tissue(-160, -60, 130, 1.0, wall=60, gas=0.2),
    "urinary_bladder": Tissue(-5, 15, 3, wall=45),
    "prostate": Tissue(35, 70, 12),
    "thyroid_gland": Tissue(110, 170, 12),
    "esophagus": Tissue(20, 50, 30, 1.0, wall=120, gas=0.1),
    "adrenal_gland": Tissue(55, 90),
    "heart": Tissue(120, 190, 8, 0.0),
    "brain": Tissue(25, 45, 8),
    "spinal_cord": Tissue(15, 45, 6),
    "costal_cartilages": Tissue(70, 150, 20),
    "gluteus": Tissue(40, 70, 16, 0.8),
    "autochthon": Tissue(40, 70, 16, 0.8),
    "iliopsoas": Tissue(40, 70, 16, 0.8),
}
_BONE, _VESSEL = Tissue(180, 420, 90, 0.8), Tissue(120, 240, 5)
_BONES = ("sacrum", "vertebrae", "humerus", "scapula", "clavicula", "femur", "hip", "skull", "rib", "sternum")


def tissue(name: str) -> Tissue:
    """Return the appearance of a structure in CT."""
    for start in sorted(_TISSUES, key=len, reverse=True):
        if name.startswith(start):
            return _TISSUES[start]
    return _BONE if name.startswith(_BONES) else _VESSEL


def absence_probability(name: str) -> float:
    """Return how often the structure is missing from a body: after surgery, by sex, or because few have it."""
    if name.startswith("kidney_cyst"):
        return 0.6
    probabilities = {"gallbladder": 0.15, "prostate": 0.4, "thyroid_gland": 0.05, "spleen": 0.04, "kidney_left": 0.03}
    return probabilities.get(name, 0.0)
