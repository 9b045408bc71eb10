"""Make and run a bundle's self-test: a small synthetic scan, and the mask that the bundle gave of it."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle import ConfigParser

from medseg.atomic import write_json
from medseg.bundle.batch_predict import BatchPredictor
from medseg.bundle.bundle import Bundle
from medseg.bundle.mask_parts import BuiltParts
from medseg.bundle.predict import Predictor
from medseg.bundle.slice_writer import SliceWriter
from medseg.bundle.verify.manifest import files_of
from medseg.bundle.volume_writer import VolumeWriter
from medseg.data import (
    PhantomSpec,
    SlicePhantomSpec,
    find_scans,
    read_volume,
    scan_name,
    slice_items,
    write_slice_phantom,
)
from medseg.data.nifti_writer import write_volume
from medseg.data.phantom import make_body
from medseg.errors import ConfigError, DataError, MedsegError, first_line
from medseg.file_names import NIFTI, has_suffix
from medseg.grid import Grid
from medseg.image_io_2d import is_image_2d, read_image_2d
from medseg.labels import LabelMap
from medseg.metrics.overlap import confusion_matrix, dice

logger = logging.getLogger(__name__)

FOLDER, RECORD = "selftest", "selftest.json"
INPUT, EXPECTED = "input", "expected"
SAME = 0.999  # share of the labeled voxels that must agree for a mask to count as reproduced
CLOSE = 0.98  # mean Dice below which it is another mask, and not the same one in another precision
# Voxels of a structure, and the Dice below which it counts as changed: rounding moves few voxels.
CHANGED = ((20, 0.9), (5, 0.5))
VOLUME = PhantomSpec(train=1, val=0, test=0, seed=7, size=(96, 72), spacing=(4.0, 4.0, 18.0), region="abdomen")
SLICES = SlicePhantomSpec(train=1, val=0, slices=4, size=(128, 128), layout="folder", seed=7)
_FORMAT = 1
Watch = Callable[[ConfigParser | BuiltParts], Any]  # gets the config of a bundle before it runs
_TOLERANCE = 1e-3  # mm between affines, for rounding in a header
_VOLUME_TYPES = ("nibabel", "nifti", "nii", "itk")  # of `data_type`
_IMAGE_TYPES = ("png", "jpeg", "pil", "pillow", "image")
_LEVELS = {"medseg.bundle": logging.WARNING, "ignite.engine": logging.CRITICAL, "LoadImage": logging.CRITICAL}


@dataclass(frozen=True)
class SelfTest:
    """The masks of this machine compared with those that came with the bundle.

    Args:
        dice: by structure, over all voxels; structures that neither mask has are left out.
        differing: voxels with another label.
        total: all voxels.
        files: masks that were compared.
        labeled: voxels where either mask has a structure.
        sizes: voxels of each structure of `dice`, in the mask that has more of it.
        covered: number of structures that the masks that came have.
        structures: number of structures that the bundle knows.
    """

    dice: Mapping[str, float]
    differing: int
    total: int
    files: int
    labeled: int
    sizes: Mapping[str, int]
    covered: int
    structures: int

    @property
    def mean_dice(self) -> float:
        """The mean over the structures that are in either mask; 1.0 where neither has any."""
        return float(np.mean(list(self.dice.values()))) if self.dice else 1.0

    @property
    def reproduced(self) -> bool:
        """True if 99.9 % of the labeled voxels agree and no structure changed; other processors round fewer away."""
        return self.total > 0 and self.differing <= (1 - SAME) * self.labeled and not self._changed()

    @property
    def close(self) -> bool:
        """True if it is the same mask but for rounding: half precision on a GPU costs more voxels than `reproduced`."""
        if self.total <= 0 or self._changed():
            return False
        scores = [score for name, score in self.dice.items() if self.sizes.get(name, 0) >= CHANGED[-1][0]]
        few = self.differing <= 2 * (1 - CLOSE) * self.labeled
        return self.reproduced or (float(np.mean(scores)) >= CLOSE if scores else few)

    def _changed(self) -> list[str]:
        """Return the structures that became others, however few voxels they have."""
        changed = []
        for name, score in self.dice.items():
            size = self.sizes.get(name, 0)
            if any(size >= voxels and score < limit for voxels, limit in CHANGED):
                changed.append(name)
        return changed

    def __str__(self) -> str:
        """Return one line with the figures."""
        share = 100 * self.differing / max(self.labeled, 1)
        text = f"mean Dice {self.mean_dice:.4f}, {self.differing} of {self.total} voxels differ"
        text += f" ({share:.3f} % of the labeled ones)"
        changed = self._changed()
        return text + (f"; {', '.join(changed[:5])} changed" if changed else "")


def kind_of(bundle: Bundle) -> str | None:
    """Return what a bundle takes: `volume` (NIfTI), `slices` (PNG), or None where it cannot be told.

    Its inference.json is read and not run: how it lists the files in `dataset_dir`, then its metadata's `data_type`.
    """
    if not {"dataset_dir", "output_dir"} <= set(bundle.content("inference")):
        return None
    data_type = str(bundle.metadata.get("data_type", "")).lower()
    guessed = "volume" if data_type in _VOLUME_TYPES else "slices" if data_type in _IMAGE_TYPES else None
    return _listed_kind(bundle) or guessed


def _listed_kind(bundle: Bundle) -> str | None:
    """Return the kind that the config shows by the function of ours that lists its files; None without one."""
    text = json.dumps(bundle.content("inference"))
    return "slices" if "slice_items" in text else "volume" if "find_scans" in text else None


def make_self_test(bundle: Bundle, folder: Path, watch: Watch | None = None) -> bool:
    """Make the self-test of a bundle: synthetic scans in `input`, and what the bundle makes of them in `expected`.

    It is computed on the CPU, on any machine. Nothing of a patient goes in.

    Args:
        bundle: a bundle with its weights.
        folder: becomes the folder of the self-test.
        watch: gets the parser of the config before it runs.

    Returns:
        False where it is not known what the bundle takes, or a guess was wrong; nothing is written then.

    Raises:
        MedsegError: the bundle does not run, or gives no masks.
    """
    kind = kind_of(bundle)
    if kind is None:
        return False
    try:
        _make(bundle, kind, folder, watch)
    except MedsegError as error:
        if _listed_kind(bundle) is not None:
            raise
        logger.warning("%s takes other input than its metadata suggest: %s", bundle.name, error)
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _make(bundle: Bundle, kind: str, folder: Path, watch: Watch | None) -> None:
    source = folder / INPUT
    source.mkdir(parents=True)
    if kind == "volume":
        body = make_body(VOLUME, 0)
        write_volume(source / "phantom.nii.gz", body.hu, Grid(body.hu.shape, body.affine))
    else:
        with tempfile.TemporaryDirectory(prefix="medseg-selftest-") as location:
            phantom = write_slice_phantom(Path(location, "set"), SLICES)
            for path in sorted((phantom / "images").rglob("*.png")):
                shutil.copyfile(path, source / f"phantom_{path.name.partition('_slice_')[2]}")
    infer(bundle, source, folder / EXPECTED, "cpu", watch)
    masks = _masks(folder / EXPECTED)
    for name, path in files_of(folder / EXPECTED).items():
        if name not in masks:  # such as the same masks in colors
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    if not masks:
        problem = "its inference.json writes no masks to output_dir"
        raise ConfigError(bundle.root, problem, "", "Let it save each mask there.")
    spec = asdict(VOLUME if kind == "volume" else SLICES)
    write_json(folder / RECORD, {"format": _FORMAT, "kind": kind, "phantom": spec, "device": "cpu"})


def run_self_test(bundle: Bundle, device: str | None = None) -> SelfTest | None:
    """Run the self-test that came with a bundle; None where it has none.

    Args:
        bundle: an unpacked bundle.
        device: `cpu`, `cuda`, ...; by default what the bundle chooses itself.

    Raises:
        MedsegError: the bundle does not run, or its self-test is not complete.
    """
    folder = bundle.root / FOLDER
    if not (folder / RECORD).is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="medseg-selftest-") as location:
        infer(bundle, folder / INPUT, Path(location, "masks"), device)
        return compare_masks(Path(location, "masks"), folder / EXPECTED, _class_names(bundle))


def infer(
    bundle: Bundle,
    source: Path,
    target: Path,
    device: str | None,
    watch: Watch | None = None,
) -> None:
    """Run a bundle's inference.json as MONAI does, from the scans in one folder to masks in another.

    Raises:
        MedsegError: whatever went wrong, as one of ours.
    """
    overrides: dict[str, Any] = {"dataset_dir": str(source.resolve()), "output_dir": str(target.resolve())}
    if device is not None and "device" in bundle.content("inference"):
        overrides["device"] = device
    try:
        with _quiet():
            parser = bundle.resolve("inference", overrides)
            if watch is not None:
                watch(parser)
            if isinstance(parser, BuiltParts):  # also of a trusted bundle that needs no trust
                _segment(bundle, parser, source, target)
                return
            for key in ("initialize", "run"):
                if key in parser:
                    parser.get_parsed_content(key)
    except Exception as error:  # of any library; MONAI wraps what its configs raise
        raise _as_medseg_error(error, bundle) from error


def _segment(bundle: Bundle, parser: ConfigParser | BuiltParts, source: Path, target: Path) -> None:
    """Segment what is in a folder without running anything of the bundle, with the names that its own savers give."""
    predictor = Predictor(bundle, slices=any(map(is_image_2d, source.iterdir())), parser=parser)
    writer: SliceWriter | VolumeWriter
    if predictor.slices:
        items = slice_items(source, int(parser.get_parsed_content("context", default=0)))
        writer = SliceWriter.of(predictor, target, items)
    else:
        scans = find_scans(source)
        writer = VolumeWriter({scan: target / f"{scan_name(scan)}.nii.gz" for scan in scans}, predictor.labels)
    for outcome in BatchPredictor(predictor, writer).run():
        if outcome.error is not None:
            raise outcome.error


def compare_masks(folder: Path, expected: Path, names: Mapping[int, str]) -> SelfTest:
    """Compare masks with the expected ones of the same file names.

    Args:
        folder: the masks that were made here.
        expected: the masks that came with the bundle.
        names: of the structures, by label.

    Raises:
        DataError: a mask is missing, or has another shape or position.
    """
    masks = _masks(expected)
    if not masks:
        raise DataError(expected, "the masks of the self-test are missing", "", "Fetch the bundle again.")
    pairs = [_pair(folder, expected, name) for name in masks]
    size = max(names, default=0) + 1
    for mask, truth in pairs:
        size = max(size, int(mask.max(initial=0)) + 1, int(truth.max(initial=0)) + 1)
    confusion = np.zeros((size, size), np.int64)
    for mask, truth in pairs:
        confusion += confusion_matrix(mask, truth, size)
    in_truth, in_mask = confusion.sum(axis=1), confusion.sum(axis=0)
    scores, sizes = {}, {}
    for index, score in enumerate(dice(confusion), 1):  # the background has no score
        if in_truth[index] + in_mask[index] > 0:
            name = names.get(index, f"label {index}")
            scores[name] = float(score)
            sizes[name] = int(max(in_truth[index], in_mask[index]))
    total = int(confusion.sum())
    return SelfTest(
        dice=scores,
        differing=total - int(np.trace(confusion)),
        total=total,
        files=len(masks),
        labeled=total - int(confusion[0, 0]),
        sizes=sizes,
        covered=int(np.count_nonzero(in_truth[1:])),
        structures=sum(index > 0 for index in names),
    )


def _pair(folder: Path, expected: Path, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the mask of that name made here and the expected one, on the same grid."""
    if not (folder / name).is_file():
        problem = f"the self-test gave no mask {name}"
        raise DataError(expected.parent, problem, "", "Ask who packed the bundle to pack it again.")
    (mask, affine), (truth, expected_affine) = _labels(folder / name), _labels(expected / name)
    if mask.shape != truth.shape:
        problem = f"the mask of the self-test must have shape {truth.shape}"
        raise DataError(name, problem, f"got {mask.shape}", "--no-self-test installs the bundle without this check.")
    if affine is None or expected_affine is None:
        return mask, truth
    if not np.allclose(affine, expected_affine, rtol=0, atol=_TOLERANCE):
        was, now = (np.round(matrix, 3).tolist() for matrix in (expected_affine, affine))
        fix = "--no-self-test installs the bundle without this check."
        raise DataError(name, f"the mask of the self-test must have the affine {was}", f"got {now}", fix)
    return mask, truth


def coverage(folder: Path, labels: LabelMap | None = None) -> str:
    """Return how much a self-test can tell, as the structures that its expected masks have.

    Args:
        folder: the folder of the self-test.
        labels: the structures that the bundle knows; None where it does not say.

    Returns:
        Such as `3 of 117 structures`; empty where the masks are all background.
    """
    structures: set[int] = set()
    for name in _masks(folder / EXPECTED):
        structures |= {int(index) for index in np.unique(_labels(folder / EXPECTED / name)[0]) if index > 0}
    return coverage_text(len(structures), len(labels.structures) if labels is not None else 0)


def coverage_text(covered: int, structures: int) -> str:
    """Return "so many of so many structures" in words; empty for none.

    >>> coverage_text(3, 117), coverage_text(1, 0), coverage_text(0, 4)
    ('3 of 117 structures', '1 structure', '')
    """
    if not covered:
        return ""
    counts = f"{covered} of {structures}" if structures else str(covered)
    return f"{counts} structure{'s' * (max(covered, structures) > 1)}"


def _labels(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return the labels and, of a volume, the affine."""
    if is_image_2d(path):
        return np.asarray(read_image_2d(path).values), None
    values, grid = read_volume(path)
    return np.asarray(values), np.asarray(grid.affine)


def _masks(folder: Path) -> list[str]:
    """Return the files below a folder that have a label for each voxel or pixel, not those in colors."""
    masks = []
    for name, path in files_of(folder).items():
        if has_suffix(name, NIFTI) or (is_image_2d(path) and read_image_2d(path).values.ndim == 2):
            masks.append(name)
    return masks


def _class_names(bundle: Bundle) -> dict[int, str]:
    try:
        content = json.loads((bundle.root / "label_map.json").read_text(encoding="utf-8"))
        return {int(index): str(name) for index, name in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _as_medseg_error(error: Exception, bundle: Bundle) -> MedsegError:
    """Return the error of ours that an exception comes from, or one that says what it is."""
    root: BaseException = error
    while not isinstance(root, MedsegError) and root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, MedsegError):
        return root
    if isinstance(error, torch.OutOfMemoryError):
        return DataError(bundle.name, "its self-test needs more memory than there is", first_line(error))
    problem, fix = "its own inference.json fails", "medseg bundle verify says more."
    return ConfigError(bundle.name, problem, first_line(root), fix)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what inference logs of each file, and what ignite logs of an error that is raised anyway."""
    before = {name: logging.getLogger(name).level for name in _LEVELS}
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
