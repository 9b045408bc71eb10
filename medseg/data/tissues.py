"""How the structures of the phantom look in CT, and which of them a body may lack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tissue:
    """How a structure looks in CT.

    Args:
        low: least mean HU that a case may draw.
        high: greatest mean HU that a case may draw.
        texture: depth of the texture, HU.
        grain: 0 for a texture of large patches, 1 for a fine one.
        wall: HU of the outermost voxels of a hollow organ; None where there is no wall.
        gas: share of the inside that is gas.
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
    """How the structure looks in CT."""
    for start in sorted(_TISSUES, key=len, reverse=True):
        if name.startswith(start):
            return _TISSUES[start]
    return _BONE if name.startswith(_BONES) else _VESSEL


def absent_chance(name: str) -> float:
    """How often the structure is missing from a body: after surgery, by sex, or because few have it."""
    if name.startswith("kidney_cyst"):
        return 0.6
    chances = {"gallbladder": 0.15, "prostate": 0.4, "thyroid_gland": 0.05, "spleen": 0.04, "kidney_left": 0.03}
    return chances.get(name, 0.0)
