"""Make a synthetic set of 2D slices in each layout that is known: for trying things out, for tests, for the demo.

Every patient has a stomach, loops of small bowel and a large bowel that run through the slices of a scan, an individual
brightness and size, noise and a bias field; stomach and small bowel overlap a little, as in the real set.
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
from medseg.data.layouts.kaggle import COLUMNS, SCANS, TABLE, TRAIN, encode_runs
from medseg.errors import DataError
from medseg.image_io_2d import write_image_2d
from medseg.labels import BACKGROUND

VERSION = 1  # goes into the digest: raise it whenever the same spec would give other pixels
RECORD = "phantom.json"
STRUCTURES = ("stomach", "small_bowel", "large_bowel")
COLORS = {BACKGROUND: (0, 0, 0), "stomach": (255, 0, 0), "small_bowel": (0, 255, 0), "large_bowel": (0, 0, 255)}
LAYOUTS = ("split", "folder", "classes", "kaggle")
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SlicePhantomSpec:
    """Specify the phantom set of slices.

    Args:
        train: patients to train on.
        val: patients to validate on; only the layout `split` separates them.
        scans: of each patient, on different days.
        slices: of each scan.
        size: rows and columns.
        spacing: mm between pixels.
        bits: 8 or 16.
        layout: `split` (train/ and valid/, masks in colors), `folder` (images/ and masks/, class indices),
            `classes` (one binary mask for each class) or `kaggle` (run lengths in train.csv).
        seed: of the random state; the same spec gives the same pixels.

    Raises:
        DataError: a number is out of range, or the layout does not exist.
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
            problem = "at least one patient, scan and slice and a spacing above 0 are needed"
            raise DataError("slice phantom", problem, f"got {self}")
        if len(self.size) != 2 or min(self.size) < 16 or self.bits not in (8, 16):
            problem = "two sizes of at least 16, and 8 or 16 bits are needed"
            raise DataError("slice phantom", problem, f"got {self.size} and {self.bits} bits")
        if self.layout not in LAYOUTS:
            raise DataError("slice phantom", f"the layouts are {', '.join(LAYOUTS)}", f"got '{self.layout}'")

    def digest(self) -> str:
        """Return a short name for the pixels that this spec gives."""
        return hashlib.sha256(json.dumps(["slices", VERSION, asdict(self)]).encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class PhantomSlice:
    """Hold one slice: patient, scan and number, its values `(rows, columns)` and the mask of each structure."""

    patient: str
    scan: str
    number: int
    folder: str
    values: npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
    masks: dict[str, Mask]

    @property
    def id(self) -> str:
        """Return its name in every layout."""
        return f"{self.scan}_slice_{self.number:04d}"

    def label(self) -> npt.NDArray[np.uint8]:
        """Return class indices, the later structure over the earlier one."""
        label = np.zeros(self.values.shape, dtype=np.uint8)
        for index, name in enumerate(STRUCTURES, 1):
            label[self.masks[name]] = index
        return label


def make_slices(spec: SlicePhantomSpec) -> Iterator[PhantomSlice]:
    """Yield every slice of the phantom, patient by patient. They depend on the spec alone."""
    for number in range(spec.train + spec.val):
        patient = f"case{101 + number}"
        for day in range(spec.scans):
            scan, folder = f"{patient}_day{20 + 2 * day}", "train" if number < spec.train else "valid"
            patient_rng, day_rng = (
                np.random.default_rng(seed) for seed in ([spec.seed, number], [spec.seed, number, day])
            )
            image, masks = _scan(spec, patient_rng, day_rng)
            for k in range(spec.slices):
                masks_of_slice = {name: mask[k] for name, mask in masks.items()}
                yield PhantomSlice(patient, scan, k + 1, folder, image[k], masks_of_slice)


def _scan(
    spec: SlicePhantomSpec, patient_rng: np.random.Generator, day_rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint16] | npt.NDArray[np.uint8], dict[str, Mask]]:
    """Return the slices of one scan, `(slices, rows, columns)`: patients differ in the body, days in noise."""
    z, r, c = np.meshgrid(
        *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (spec.slices, *spec.size)), indexing="ij"
    )
    r, c = r + day_rng.uniform(-0.05, 0.05), c + day_rng.uniform(-0.05, 0.05)

    def ellipsoid(center: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
        axes = zip((z, r, c), center, radii, strict=True)
        return np.asarray(sum(((axis - position) / radius) ** 2 for axis, position, radius in axes) <= 1)

    scale = patient_rng.uniform(0.9, 1.1)
    trunk = (r / 0.85) ** 2 + (c / 0.9) ** 2 <= 1
    stomach = ellipsoid((-0.3, -0.35 + patient_rng.uniform(-0.05, 0.05), 0.3), (0.75, 0.27 * scale, 0.32 * scale))
    small = np.zeros_like(stomach)
    for _ in range(7):
        center = (patient_rng.uniform(-0.2, 1.0), patient_rng.uniform(-0.2, 0.4), patient_rng.uniform(-0.35, 0.4))
        small |= ellipsoid(center, (0.45, 0.13 * scale, 0.16 * scale))
    around = ((r - 0.05) / 0.62) ** 2 + (c / 0.68) ** 2
    large = (np.abs(np.sqrt(around) - 1) < 0.12 * scale) & (z > -0.6) & ~((r > 0.2) & (np.abs(c) < 0.4)) & ~stomach
    masks = {"stomach": stomach, "small_bowel": small & ~large, "large_bowel": large}
    image = np.where(trunk, patient_rng.uniform(0.25, 0.35), 0.03)
    for name, low, high in (("stomach", 0.55, 0.7), ("small_bowel", 0.72, 0.85), ("large_bowel", 0.4, 0.5)):
        image[masks[name]] = patient_rng.uniform(low, high)
    image *= 1 + 0.15 * patient_rng.uniform(-1, 1) * r + 0.15 * patient_rng.uniform(-1, 1) * c
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6)) + 0.03 * day_rng.standard_normal(image.shape)
    if spec.bits == 16:
        return np.clip(np.rint(image * day_rng.uniform(700, 1500)), 0, 65535).astype(np.uint16), masks
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), masks


def write_slice_phantom(root: str | Path, spec: SlicePhantomSpec | None = None) -> Path:
    """Write the phantom set of slices. A folder that holds the same set already is left as it is.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
    """
    root, spec = Path(root), spec or SlicePhantomSpec()
    record = {"version": VERSION, "slices": json.loads(json.dumps(asdict(spec)))}
    if (root / RECORD).is_file() and json.loads((root / RECORD).read_text(encoding="utf-8")) == record:
        return root
    with atomic_folder(root) as partial:
        rows: list[tuple[str, str, str]] = []
        for phantom_slice in make_slices(spec):
            rows += _write_slice(partial, phantom_slice, spec)
        if spec.layout == "kaggle":
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
            write_text(partial / TABLE, text.getvalue())
        elif spec.layout != "classes":
            write_json(partial / CLASSES, {name: list(color) for name, color in COLORS.items()})
        write_json(partial / RECORD, record)
    return root


def _write_slice(root: Path, phantom_slice: PhantomSlice, spec: SlicePhantomSpec) -> list[tuple[str, str, str]]:
    """Write one slice and its masks; return its rows of the table."""
    id, masks = phantom_slice.id, phantom_slice.masks
    if spec.layout == "kaggle":
        size = f"{spec.size[1]}_{spec.size[0]}_{spec.spacing:.2f}_{spec.spacing:.2f}"
        scan = root / TRAIN / phantom_slice.patient / phantom_slice.scan / SCANS
        write_image_2d(scan / f"slice_{phantom_slice.number:04d}_{size}.png", phantom_slice.values)
        return [(id, name, encode_runs(mask)) for name, mask in masks.items()]
    folder = root / phantom_slice.folder if spec.layout == "split" else root
    write_image_2d(folder / "images" / f"{id}.png", phantom_slice.values)
    colors = np.array(list(COLORS.values()), dtype=np.uint8)
    if spec.layout == "split":
        write_image_2d(folder / "masks" / f"{id}.png", colors[phantom_slice.label()])
    elif spec.layout == "folder":
        write_image_2d(folder / "masks" / f"{id}.png", phantom_slice.label(), list(COLORS.values()))
    else:
        for name, mask in masks.items():
            write_image_2d(folder / "masks" / name / f"{id}.png", mask.astype(np.uint8) * 255)
    return []
