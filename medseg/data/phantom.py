"""Make a synthetic CT data set in the TotalSegmentator layout: for trying things out, for tests, for the demo.

Every case is one body: the solids of `anatomy`, moved, rotated, scaled and bent at random, filled with
overlapping HU, texture and noise, in a field of view of its own. Two cases share no voxel position
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
from medseg.data import anatomy
from medseg.data.layouts.totalsegmentator import IMAGE, MASKS, META
from medseg.errors import DataError

logger = logging.getLogger(__name__)

VERSION = 1  # goes into the digest: raise it whenever the same spec would give other voxels
RECORD = "phantom.json"
_MARK = b"medseg phantom"  # in the header of each image, so that copies elsewhere are known for what they are
REGIONS = {"trunk": (75.0, 715.0), "abdomen": (75.0, 480.0), "chest": (420.0, 720.0), "head": (690.0, 995.0),
           "body": (60.0, 1000.0)}  # fmt: skip
Volume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PhantomSpec:
    """Specify the phantom data set.

    Args:
        train: number of cases to train on.
        val: number of cases to validate on.
        test: number of cases held out.
        seed: of the random state; the same spec gives the same voxels.
        size: voxels in the plane, `(I, J)`.
        spacing: mm along x, y, z; each case draws its own within 10 % of it.
        region: a part of the body (`trunk`, `abdomen`, `chest`, `head`, `body`) or `mixed`.

    Raises:
        DataError: a number is not positive, or the region does not exist.
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
            problem = "a phantom needs at least one case to train on"
            raise DataError("phantom", problem, f"got {self.train}, {self.val}, {self.test}")
        if len(self.size) != 2 or min(self.size) < 8 or len(self.spacing) != 3 or not min(self.spacing) > 0:
            problem = "a phantom needs two sizes of at least 8 and three spacings above 0"
            raise DataError("phantom", problem, f"got {self.size} and {self.spacing}")
        if self.region not in (*REGIONS, "mixed"):
            raise DataError("phantom", f"the regions are {', '.join((*REGIONS, 'mixed'))}", f"got '{self.region}'")

    def digest(self) -> str:
        """Return a short name for the voxels that this spec gives."""
        return hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:10]

    def cases(self) -> Iterator[tuple[str, str, int]]:
        """Yield id, subset of the split, and number of each case."""
        subsets = ["train"] * self.train + ["val"] * self.val + ["test"] * self.test
        for number, subset in enumerate(subsets):
            yield f"p{number:04d}", subset, number


@dataclass(frozen=True)
class Body:
    """Hold one phantom: HU `(I, J, K)` as int16, the mask of each structure in view, and the affine (RAS)."""

    hu: npt.NDArray[np.int16]
    masks: dict[str, npt.NDArray[np.bool_]]
    affine: npt.NDArray[np.float64]


def make_body(spec: PhantomSpec, number: int) -> Body:
    """Make the case of that number. It depends on the spec and the number alone."""
    rng = np.random.default_rng([spec.seed, number])
    region = spec.region
    if region == "mixed":
        region = ("trunk", "body", "abdomen", "chest", "trunk", "head")[number % 6]
    spacing = np.array(spec.spacing) * rng.uniform(0.9, 1.1, 3)
    scale = rng.uniform(0.86, 1.12, 3)
    low, high = (bound * scale[2] + rng.uniform(-30, 30) for bound in REGIONS[region])
    shape = (*spec.size, max(8, round((high - low) / spacing[2])))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    affine[2, 3] = low
    positions = _canonical(shape, affine, scale, rng)
    inside, depth = _outline(positions)
    masks = _masks(positions, inside, rng)
    return Body(_hu(shape, masks, inside, depth, rng), masks, affine)


def _canonical(
    shape: tuple[int, ...], affine: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return for each voxel its position in the nominal body, `(I, J, K, 3)`, mm."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    positions = index * np.diag(affine)[:3] + affine[:3, 3]
    center_z = positions[..., 2].mean()
    center = np.array([*rng.uniform(-26, 26, 2), center_z])
    turn = anatomy.rotation((rng.uniform(-5, 5), rng.uniform(-6, 6), rng.uniform(-15, 15)))
    positions = (positions - center) @ turn + np.array([0.0, 0.0, center_z])
    positions /= scale
    for axis in range(3):
        positions[..., axis] += _smooth(shape, 5, rng) * 7.0
    return np.asarray(positions)


def _smooth(shape: tuple[int, ...], knots: int, rng: np.random.Generator) -> Volume:
    """Return smooth noise of mean 0 and standard deviation 1 with about that many bumps along each axis."""
    noise = rng.standard_normal([knots] * 3).astype(np.float32)
    for axis, size in enumerate(shape):  # a cubic spline along each axis in turn
        spline = ndimage.zoom(
            np.eye(knots, dtype=np.float32), (size / knots, 1), order=3, mode="nearest", grid_mode=True
        )
        noise = np.moveaxis(np.tensordot(spline, noise, axes=(1, axis)), 0, axis)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), dtype=np.float32)


def _outline(positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return which voxels lie in the body, and their depth (0 in the center, 1 on the skin)."""
    heights, widths, depths = anatomy.OUTLINE.T
    x, y, z = np.moveaxis(positions, -1, 0)
    depth = (np.abs(x / np.interp(z, heights, widths)) ** 2.3 + np.abs(y / np.interp(z, heights, depths)) ** 2.3) ** (
        1 / 2.3
    )
    return (depth <= 1.0) & (z < 1000), depth


def _masks(
    positions: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the mask of every structure in view. Cysts also count as kidney: real masks overlap, too."""
    solids = anatomy.solids()
    extents = [(positions.min(axis=axes), positions.max(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    drawn = {name: (rng.uniform(-9, 9, 3), rng.uniform(0.86, 1.14), rng.random()) for name in solids}
    rigid = (np.zeros(3), 1.0)  # bones keep their places, so that neighbors do not part
    owner = np.zeros(inside.shape, dtype=np.uint8)
    names = list(solids)
    cysts = [name for name in names if name.startswith("kidney_cyst")]
    for name in _drawing_order(names):
        shift, grow, absence = drawn[name]
        if absence < anatomy.absence_probability(name):
            continue
        if name.startswith(("vertebrae", "rib", "sternum", "costal", "spinal", "skull", "brain", "sacrum")):
            shift, grow = rigid
        elif name in cysts:
            shift, grow = drawn[name.replace("cyst_", "")][:2]
        elif name.startswith("lung"):
            shift, grow = drawn["lung_upper_lobe_" + name.rsplit("_", 1)[1]][:2]
        for solid in solids[name]:
            low, high = solid.bounds(grow)
            box = tuple(_span((start <= high + shift) & (end >= low + shift)) for start, end in extents)
            part = positions[box].reshape(-1, 3) - shift
            candidates = np.flatnonzero(((part >= low) & (part <= high)).all(axis=1))
            inside_solid = np.zeros(len(part), dtype=bool)
            inside_solid[candidates[solid.contains(part[candidates], grow)]] = True
            owner[box][inside_solid.reshape(owner[box].shape)] = names.index(name) + 1
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
    """Return the slice from the first to the last index at which all three coordinates are reached, from `(n, 3)`."""
    indices = np.flatnonzero(reached.all(axis=1))
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def _drawing_order(names: list[str]) -> list[str]:
    """Sort the structures by priority where solids meet: lungs, hollow and solid organs, vessels and bone."""
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
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Fill the body: fat, a wall of muscle, unnamed soft tissue, then every structure with its own mean."""
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[inside] = rng.uniform(-115, -85)
    fat = rng.uniform(0.84, 0.94)
    hu[inside & (depth < fat) & (depth > fat - 0.12)] = rng.uniform(20, 75)
    unnamed = _smooth(shape, 11, rng) > 1.1
    hu[inside & (depth < fat - 0.12) & unnamed] = rng.uniform(20, 75)
    fine, coarse = _smooth(shape, 48, rng), _smooth(shape, 14, rng)
    for name, mask in masks.items():
        look = anatomy.tissue(name)
        texture = look.grain * fine[mask] + (1 - look.grain) * coarse[mask]
        values = rng.uniform(look.low, look.high) + look.texture * texture
        if look.gas:
            share = look.gas * rng.uniform(0.3, 1.0)
            values[texture > np.quantile(texture, 1 - share)] = -950
        hu[mask] = values
        if look.wall is not None:
            hu[mask & ~ndimage.binary_erosion(mask)] = look.wall + rng.uniform(-15, 15)
    hu = ndimage.gaussian_filter(hu, 0.45)
    hu += rng.uniform(8, 20) * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(hu), -1024, 3071), dtype=np.int16)


def write_phantom(root: str | Path, spec: PhantomSpec | None = None) -> Path:
    """Write the phantom data set in the TotalSegmentator layout, all 117 mask files for every case.

    A folder that holds the same phantom already is left as it is. The folder appears when it is complete.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
    """
    root, spec = Path(root), spec or PhantomSpec()
    record = {"version": VERSION, "spec": json.loads(json.dumps(asdict(spec)))}
    if (root / RECORD).is_file() and json.loads((root / RECORD).read_text(encoding="utf-8")) == record:
        return root
    with atomic_folder(root) as partial:
        for id, _, number in tqdm(list(spec.cases()), desc="Phantoms", unit="case", disable=None, leave=False):
            _write_case(partial / id, make_body(spec, number))
        rows = [f"{id};{subset}" for id, subset, _ in spec.cases()]
        write_text(partial / META, "\n".join(["image_id;split", *rows]) + "\n")
        write_json(partial / RECORD, record)
    return root


def _write_case(folder: Path, body: Body) -> None:
    (folder / MASKS).mkdir(parents=True)
    image = nib.Nifti1Image(body.hu, body.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = _MARK
    nib.save(image, folder / IMAGE)
    empty = np.zeros(body.hu.shape, dtype=np.uint8)
    for name in anatomy.solids():
        mask = body.masks.get(name)
        voxels = empty if mask is None else mask.astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, body.affine), folder / MASKS / f"{name}.nii.gz")


def is_phantom(image: Path) -> bool:
    """Return whether an image is synthetic: marked so, or in a data set that medseg made."""
    if any((folder / RECORD).is_file() for folder in image.resolve().parents[:3]):
        return True
    try:
        return bytes(nib.load(image).header["descrip"]).startswith(_MARK)
    except Exception:  # another format, or damaged, which is reported where it is read
        return False
