"""A made-up set of 2D slices in each layout that is known: for trying things out, for tests, for the demo.

Every patient has a stomach, loops of small bowel and a large bowel that run through the slices of a scan, brightness
and size of his own, noise and a bias field; stomach and small bowel overlap a little, as in the real set.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.atomic import atomic_folder, write_json, write_text
from medseg.data.class_colors import CLASSES
from medseg.data.kaggle import COLUMNS, SCANS, TABLE, TRAIN
from medseg.data.rle import encode_runs
from medseg.errors import DataError
from medseg.image_io_2d import write_picture
from medseg.labels import BACKGROUND

VERSION = 1  # goes into the digest: raise it whenever the same spec would give other pixels
RECORD = "phantom.json"
STRUCTURES = ("stomach", "small_bowel", "large_bowel")
COLOURS = {BACKGROUND: (0, 0, 0), "stomach": (255, 0, 0), "small_bowel": (0, 255, 0), "large_bowel": (0, 0, 255)}
LAYOUTS = ("split", "folder", "classes", "kaggle")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SlicePhantomSpec:
    """What the phantom set of slices holds.

    Args:
        train: patients to train on.
        val: patients to validate on; in the layout `split` only, elsewhere they just join.
        scans: of each patient, on different days.
        slices: of each scan.
        size: rows and columns.
        spacing: mm from pixel to pixel.
        bits: 8 or 16.
        layout: `split` (train/ and valid/, masks in colours), `folder` (images/ and masks/, class indices),
            `classes` (one binary mask for each class) or `kaggle` (run lengths in train.csv).
        seed: chance; the same spec gives the same pixels.

    Raises:
        DataError: a number or a layout that cannot be.
    """

    train: int = 4
    val: int = 1
    scans: int = 1
    slices: int = 12
    size: tuple[int, int] = (96, 112)
    spacing: float = 1.5
    bits: int = 8
    layout: str = "split"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if min(self.train, self.scans, self.slices) < 1 or self.val < 0 or not self.spacing > 0:
            raise DataError("slice phantom", "needs a patient, a scan, a slice and a spacing above 0", str(self))
        if len(self.size) != 2 or min(self.size) < 16 or self.bits not in (8, 16):
            raise DataError("slice phantom", "needs two sizes of at least 16, and 8 or 16 bits", str(self))
        if self.layout not in LAYOUTS:
            raise DataError("slice phantom", f"needs a layout of {', '.join(LAYOUTS)}", f"'{self.layout}'")

    def digest(self) -> str:
        """A short name for the pixels that this spec gives."""
        return hashlib.sha256(json.dumps(["slices", VERSION, asdict(self)]).encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class PhantomSlice:
    """One slice: patient, scan and number, its values `(rows, columns)` and the mask of each structure."""

    patient: str
    scan: str
    number: int
    side: str
    values: npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
    masks: dict[str, Mask]

    @property
    def id(self) -> str:
        """Its name in every layout."""
        return f"{self.scan}_slice_{self.number:04d}"

    def label(self) -> npt.NDArray[np.uint8]:
        """Class indices, the later structure over the earlier one."""
        label = np.zeros(self.values.shape, dtype=np.uint8)
        for index, name in enumerate(STRUCTURES, 1):
            label[self.masks[name]] = index
        return label


def make_slices(spec: SlicePhantomSpec) -> Iterator[PhantomSlice]:
    """Every slice of the phantom, patient by patient. Depends on the spec alone."""
    for number in range(spec.train + spec.val):
        patient = f"case{101 + number}"
        for day in range(spec.scans):
            chance = np.random.default_rng([spec.seed, number, day])
            scan = f"{patient}_day{20 + 2 * day}"
            image, masks = _scan(spec, np.random.default_rng([spec.seed, number]), chance)
            for k in range(spec.slices):
                held = {name: mask[k] for name, mask in masks.items()}
                yield PhantomSlice(patient, scan, k + 1, "train" if number < spec.train else "valid", image[k], held)


def _scan(
    spec: SlicePhantomSpec, body: np.random.Generator, chance: np.random.Generator
) -> tuple[npt.NDArray[np.uint16] | npt.NDArray[np.uint8], dict[str, Mask]]:
    """The slices of one scan, `(slices, rows, columns)`: the body by the patient, noise and shift by the day."""
    z, r, c = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (spec.slices, *spec.size)), indexing="ij"
    )
    r, c = r + chance.uniform(-0.05, 0.05), c + chance.uniform(-0.05, 0.05)

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
        location = zip((z, r, c), centre, radii, strict=True)
        return np.asarray(sum(((axis - at) / by) ** 2 for axis, at, by in location) <= 1)

    scale = body.uniform(0.9, 1.1)
    trunk = (r / 0.85) ** 2 + (c / 0.9) ** 2 <= 1
    stomach = ball((-0.3, -0.35 + body.uniform(-0.05, 0.05), 0.3), (0.75, 0.27 * scale, 0.32 * scale))
    small = np.zeros_like(stomach)
    for _ in range(7):
        at = (body.uniform(-0.2, 1.0), body.uniform(-0.2, 0.4), body.uniform(-0.35, 0.4))
        small |= ball(at, (0.45, 0.13 * scale, 0.16 * scale))
    around = ((r - 0.05) / 0.62) ** 2 + (c / 0.68) ** 2
    large = (np.abs(np.sqrt(around) - 1) < 0.12 * scale) & (z > -0.6) & ~((r > 0.2) & (np.abs(c) < 0.4)) & ~stomach
    masks = {"stomach": stomach, "small_bowel": small & ~large, "large_bowel": large}
    image = np.where(trunk, body.uniform(0.25, 0.35), 0.03)
    for name, low, high in (("stomach", 0.55, 0.7), ("small_bowel", 0.72, 0.85), ("large_bowel", 0.4, 0.5)):
        image[masks[name]] = body.uniform(low, high)
    image *= 1 + 0.15 * body.uniform(-1, 1) * r + 0.15 * body.uniform(-1, 1) * c
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6)) + 0.03 * chance.standard_normal(image.shape)
    if spec.bits == 16:
        return np.clip(np.rint(image * chance.uniform(700, 1500)), 0, 65535).astype(np.uint16), masks
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), masks


def write_slice_phantom(root: str | Path, spec: SlicePhantomSpec | None = None) -> Path:
    """Write the phantom set of slices. A folder that holds the same one already is left as it is.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    root, spec = Path(root), spec or SlicePhantomSpec()
    record = {"version": VERSION, "slices": json.loads(json.dumps(asdict(spec)))}
    if (root / RECORD).is_file() and json.loads((root / RECORD).read_text(encoding="utf-8")) == record:
        return root
    with atomic_folder(root) as partial:
        rows: list[tuple[str, str, str]] = []
        for one in make_slices(spec):
            rows += _write(partial, one, spec)
        if spec.layout == "kaggle":
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
            write_text(partial / TABLE, text.getvalue())
        elif spec.layout != "classes":
            write_json(partial / CLASSES, {name: list(colour) for name, colour in COLOURS.items()})
        write_json(partial / RECORD, record)
    return root


def _write(root: Path, one: PhantomSlice, spec: SlicePhantomSpec) -> list[tuple[str, str, str]]:
    """Write one slice and its masks; gives the rows that the table has of it."""
    colours = np.array(list(COLOURS.values()), dtype=np.uint8)
    if spec.layout == "kaggle":
        size = f"{spec.size[1]}_{spec.size[0]}_{spec.spacing:.2f}_{spec.spacing:.2f}"
        name = f"slice_{one.number:04d}_{size}.png"
        write_picture(root / TRAIN / one.patient / one.scan / SCANS / name, one.values)
        return [(one.id, name, encode_runs(mask)) for name, mask in one.masks.items()]
    folder = root / one.side if spec.layout == "split" else root
    write_picture(folder / "images" / f"{one.id}.png", one.values)
    if spec.layout == "split":
        write_picture(folder / "masks" / f"{one.id}.png", colours[one.label()])
    elif spec.layout == "folder":
        write_picture(folder / "masks" / f"{one.id}.png", one.label(), list(COLOURS.values()))
    else:
        for name, mask in one.masks.items():
            write_picture(folder / "masks" / name / f"{one.id}.png", mask.astype(np.uint8) * 255)
    return []
