"""A made-up CT data set in the TotalSegmentator layout: for trying things out, for tests, for the demo.

Every case is one body: the solids of `anatomy`, moved, turned, scaled and bent by chance, filled with
overlapping HU, texture and noise, seen through a field of view of its own. Two cases share no voxel position
and no HU value by design, so that neither an atlas nor a threshold solves it; a network can.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from tqdm import tqdm

from medseg.atomic import atomic_folder, write_json, write_text
from medseg.data import anatomy, tissues
from medseg.data.totalsegmentator import IMAGE, MASKS, META
from medseg.errors import DataError

logger = logging.getLogger(__name__)

VERSION = 1  # goes into the digest: raise it whenever the same spec would give other voxels
RECORD = "phantom.json"
REGIONS = {"trunk": (75.0, 715.0), "abdomen": (75.0, 480.0), "chest": (420.0, 720.0), "head": (690.0, 995.0),
           "body": (60.0, 1000.0)}  # fmt: skip
Volume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PhantomSpec:
    """What the phantom data set holds.

    Args:
        train: number of cases to train on.
        val: number of cases to validate on.
        test: number of cases held out.
        seed: chance; the same spec gives the same voxels.
        size: voxels in the plane, `(I, J)`.
        spacing: mm along x, y, z; each case draws its own within 10 % of it.
        region: a part of the body (`trunk`, `abdomen`, `chest`, `head`, `body`) or `mixed`.

    Raises:
        DataError: a number that is not positive, or a region that does not exist.
    """

    train: int = 8
    val: int = 2
    test: int = 2
    seed: int = 0
    size: tuple[int, int] = (136, 96)
    spacing: tuple[float, float, float] = (3.0, 3.0, 5.0)
    region: str = "mixed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "spacing", tuple(self.spacing))
        if self.train < 1 or min(self.val, self.test) < 0:
            raise DataError("phantom", "needs at least one case to train on", f"{self.train}, {self.val}, {self.test}")
        if len(self.size) != 2 or min(self.size) < 8 or len(self.spacing) != 3 or not min(self.spacing) > 0:
            raise DataError("phantom", "needs two sizes of at least 8 and three spacings above 0", str(self))
        if self.region not in (*REGIONS, "mixed"):
            raise DataError("phantom", f"needs a region of {', '.join((*REGIONS, 'mixed'))}", f"'{self.region}'")

    def digest(self) -> str:
        """A short name for the voxels that this spec gives."""
        return hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:10]

    def cases(self) -> Iterator[tuple[str, str, int]]:
        """Each case's id, side of the split, and number."""
        sides = ["train"] * self.train + ["val"] * self.val + ["test"] * self.test
        for number, side in enumerate(sides):
            yield f"p{number:04d}", side, number


@dataclass(frozen=True)
class Body:
    """One phantom: HU `(I, J, K)` as int16, the mask of each structure that is in view, and the affine (RAS)."""

    hu: npt.NDArray[np.int16]
    masks: dict[str, npt.NDArray[np.bool_]]
    affine: npt.NDArray[np.float64]


def make_body(spec: PhantomSpec, number: int) -> Body:
    """Make the case of that number. Depends on the spec and the number alone."""
    chance = np.random.default_rng([spec.seed, number])
    region = spec.region
    if region == "mixed":
        region = ("trunk", "body", "abdomen", "chest", "trunk", "head")[number % 6]
    spacing = np.array(spec.spacing) * chance.uniform(0.9, 1.1, 3)
    scale = chance.uniform(0.86, 1.12, 3)
    low, high = (bound * scale[2] + chance.uniform(-30, 30) for bound in REGIONS[region])
    shape = (*spec.size, max(8, round((high - low) / spacing[2])))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    affine[2, 3] = low
    where = _canonical(shape, affine, scale, chance)
    inside, depth = _outline(where)
    masks = _masks(where, inside, chance)
    return Body(_hu(shape, masks, inside, depth, chance), masks, affine)


def _canonical(
    shape: tuple[int, ...], affine: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], chance: np.random.Generator
) -> npt.NDArray[np.float64]:
    """For each voxel the place in the nominal body it shows, `(I, J, K, 3)`, mm."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    where = index * np.diag(affine)[:3] + affine[:3, 3]
    middle = where[..., 2].mean()
    centre = np.array([*chance.uniform(-26, 26, 2), middle])
    turn = anatomy.rotation((chance.uniform(-5, 5), chance.uniform(-6, 6), chance.uniform(-15, 15)))
    where = (where - centre) @ turn + np.array([0.0, 0.0, middle])
    where /= scale
    for axis in range(3):
        where[..., axis] += _smooth(shape, 5, chance) * 7.0
    return np.asarray(where)


def _smooth(shape: tuple[int, ...], knots: int, chance: np.random.Generator) -> Volume:
    """Smooth noise of mean 0 and standard deviation 1 with about that many bumps along each axis."""
    noise = chance.standard_normal([knots] * 3).astype(np.float32)
    for axis, size in enumerate(shape):  # a cubic spline along each axis in turn
        spline = ndimage.zoom(
            np.eye(knots, dtype=np.float32), (size / knots, 1), order=3, mode="nearest", grid_mode=True
        )
        noise = np.moveaxis(np.tensordot(spline, noise, axes=(1, axis)), 0, axis)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), dtype=np.float32)


def _outline(where: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which voxels lie in the body, and how far out (0 in the middle, 1 on the skin)."""
    heights, widths, depths = anatomy.OUTLINE.T
    x, y, z = np.moveaxis(where, -1, 0)
    depth = (np.abs(x / np.interp(z, heights, widths)) ** 2.3 + np.abs(y / np.interp(z, heights, depths)) ** 2.3) ** (
        1 / 2.3
    )
    return (depth <= 1.0) & (z < 1000), depth


def _masks(
    where: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], chance: np.random.Generator
) -> dict[str, npt.NDArray[np.bool_]]:
    """The mask of every structure in view. Cysts also count as kidney: real masks overlap, too."""
    solids = anatomy.solids()
    reach = [(where.min(axis=rest), where.max(axis=rest)) for rest in ((1, 2), (0, 2), (0, 1))]
    drawn = {name: (chance.uniform(-9, 9, 3), chance.uniform(0.86, 1.14), chance.random()) for name in solids}
    rigid = (np.zeros(3), 1.0)
    owner = np.zeros(inside.shape, dtype=np.uint8)
    names = list(solids)
    cysts = [name for name in names if name.startswith("kidney_cyst")]
    for name in _drawing_order(names):
        shift, grow, luck = drawn[name]
        if luck < tissues.absent_chance(name):
            continue
        if name.startswith(("vertebrae", "rib", "sternum", "costal", "spinal", "skull", "brain", "sacrum")):
            shift, grow = rigid
        elif name in cysts:
            shift, grow = drawn[name.replace("cyst_", "")][:2]
        elif name.startswith("lung"):
            shift, grow = drawn["lung_upper_lobe_" + name.rsplit("_", 1)[1]][:2]
        for solid in solids[name]:
            low, high = solid.bounds(grow)
            box = tuple(_span((least <= high + shift) & (most >= low + shift)) for least, most in reach)
            part = where[box].reshape(-1, 3) - shift
            near = np.flatnonzero(((part >= low) & (part <= high)).all(axis=1))
            held = np.zeros(len(part), dtype=bool)
            held[near[solid.holds(part[near], grow)]] = True
            owner[box][held.reshape(owner[box].shape)] = names.index(name) + 1
    owner[~inside] = 0
    masks = {name: owner == number + 1 for number, name in enumerate(names)}
    for cyst in cysts:
        kidney = cyst.replace("cyst_", "")
        if masks[kidney].any():
            masks[kidney] |= masks[cyst]
        else:
            masks[cyst][:] = False
    return {name: mask for name, mask in masks.items() if mask.any()}


def _span(reached: npt.NDArray[np.bool_]) -> slice:
    """From the first to the last index at which all three coordinates are reached, `(n, 3)` to a slice."""
    found = np.flatnonzero(reached.all(axis=1))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _drawing_order(names: list[str]) -> list[str]:
    """Who gives way to whom where solids meet: lungs to all, hollow organs to solid ones, all to vessels and bone."""
    muscles_and_lungs = ("lung", "gluteus", "autochthon", "iliopsoas", "brain")
    hollow = ("small_bowel", "colon", "stomach", "duodenum")
    solid = ("liver", "spleen", "heart", "urinary", "prostate", "kidney_l", "kidney_r", "kidney_cyst")
    first = (*muscles_and_lungs, *hollow, *solid)

    def rank(name: str) -> int:
        return next((i for i, start in enumerate(first) if name.startswith(start)), len(first))

    return sorted(names, key=rank)


def _hu(
    shape: tuple[int, ...],
    masks: dict[str, npt.NDArray[np.bool_]],
    inside: npt.NDArray[np.bool_],
    depth: npt.NDArray[np.float64],
    chance: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Fill the body: fat, a wall of muscle, unnamed soft tissue, then every structure with its own mean."""
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[inside] = chance.uniform(-115, -85)
    fat = chance.uniform(0.84, 0.94)
    hu[inside & (depth < fat) & (depth > fat - 0.12)] = chance.uniform(20, 75)
    unnamed = _smooth(shape, 11, chance) > 1.1
    hu[inside & (depth < fat - 0.12) & unnamed] = chance.uniform(20, 75)
    fine, coarse = _smooth(shape, 48, chance), _smooth(shape, 14, chance)
    for name, mask in masks.items():
        look = tissues.tissue(name)
        texture = look.grain * fine[mask] + (1 - look.grain) * coarse[mask]
        values = chance.uniform(look.low, look.high) + look.texture * texture
        if look.gas:
            share = look.gas * chance.uniform(0.3, 1.0)
            values[texture > np.quantile(texture, 1 - share)] = -950
        hu[mask] = values
        if look.wall is not None:
            hu[mask & ~ndimage.binary_erosion(mask)] = look.wall + chance.uniform(-15, 15)
    hu = ndimage.gaussian_filter(hu, 0.45)
    hu += chance.uniform(8, 20) * chance.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(hu), -1024, 3071), dtype=np.int16)


def write_phantom(root: str | Path, spec: PhantomSpec | None = None) -> Path:
    """Write the phantom data set in the TotalSegmentator layout, all 117 mask files for every case.

    A folder that holds the same phantom already is left as it is. The folder appears when it is whole.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    root, spec = Path(root), spec or PhantomSpec()
    record = {"version": VERSION, "spec": json.loads(json.dumps(asdict(spec)))}
    if (root / RECORD).is_file() and json.loads((root / RECORD).read_text(encoding="utf-8")) == record:
        return root
    with atomic_folder(root) as partial:
        for id, _, number in tqdm(list(spec.cases()), desc="Phantoms", unit="case", disable=None, leave=False):
            _write_case(partial / id, make_body(spec, number))
        rows = [f"{id};{side}" for id, side, _ in spec.cases()]
        write_text(partial / META, "\n".join(["image_id;split", *rows]) + "\n")
        write_json(partial / RECORD, record)
    return root


def _write_case(folder: Path, body: Body) -> None:
    (folder / MASKS).mkdir(parents=True)
    image = nib.Nifti1Image(body.hu, body.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / IMAGE)
    empty = np.zeros(body.hu.shape, dtype=np.uint8)
    for name in anatomy.solids():
        mask = body.masks.get(name)
        voxels = empty if mask is None else mask.astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, body.affine), folder / MASKS / f"{name}.nii.gz")
