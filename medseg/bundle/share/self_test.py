"""A small made-up scan and the mask that the bundle gave of it: does another machine give the same?"""

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
from medseg.bundle.bundle import Bundle
from medseg.bundle.verify.manifest import files_of
from medseg.data import PhantomSpec, SlicePhantomSpec, read_volume, write_slice_phantom
from medseg.data.nifti import SUFFIXES, write_volume
from medseg.data.phantom import make_body
from medseg.errors import ConfigError, DataError, MedsegError
from medseg.grid import Grid
from medseg.image_io_2d import is_picture, read_image_2d
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

FOLDER, RECORD = "selftest", "selftest.json"
INPUT, EXPECTED = "input", "expected"
SAME = 0.999  # share of the labelled voxels from which on a machine is said to give the mask again
CLOSE = 0.98  # mean Dice below which it is another mask, and not the same one in another precision
FLOORS = ((20, 0.9), (5, 0.5))  # voxels of a structure, and the Dice below which it is another one; rounding moves few
VOLUME = PhantomSpec(train=1, val=0, test=0, seed=7, size=(96, 72), spacing=(4.0, 4.0, 20.0), region="abdomen")
SLICES = SlicePhantomSpec(train=1, val=0, slices=4, size=(128, 128), layout="folder", seed=7)
_FORMAT = 1
_PLACED = 1e-3  # mm between affines, of rounding in a header
_VOLUMES, _PICTURES = ("nibabel", "nifti", "nii", "itk"), ("png", "jpeg", "pil", "pillow", "image")  # of `data_type`
_LEVELS = {"medseg.bundle": logging.WARNING, "ignite.engine": logging.CRITICAL, "LoadImage": logging.CRITICAL}


@dataclass(frozen=True)
class SelfTest:
    """How a bundle's masks on this machine stand to those that came with it.

    Args:
        dice: by structure, over all voxels; structures that neither mask has are left out.
        differing: voxels with another label.
        total: all voxels.
        files: masks that were compared.
        labelled: voxels that either mask has a structure at.
        sizes: voxels of each structure of `dice`, in the mask that has more of it.
        covered: structures that the masks that came have.
        structures: structures that the bundle knows.
    """

    dice: Mapping[str, float]
    differing: int
    total: int
    files: int
    labelled: int
    sizes: Mapping[str, int]
    covered: int
    structures: int

    @property
    def mean_dice(self) -> float:
        """The mean over the structures that are in either mask; 1.0 where there are none in both."""
        return float(np.mean(list(self.dice.values()))) if self.dice else 1.0

    @property
    def reproduced(self) -> bool:
        """Whether at least 99.9 % of the labelled voxels have the same label; other processors round fewer away.

        And whether no structure became another one, see `FLOORS`.
        """
        return self.total > 0 and self.differing <= (1 - SAME) * self.labelled and not self._lost()

    @property
    def close(self) -> bool:
        """Whether it is the same mask but for rounding: half precision on a GPU costs more voxels than `reproduced`."""
        if self.total <= 0 or self._lost():
            return False
        scores = [score for name, score in self.dice.items() if self.sizes.get(name, 0) >= FLOORS[-1][0]]
        few = self.differing <= 2 * (1 - CLOSE) * self.labelled
        return self.reproduced or (float(np.mean(scores)) >= CLOSE if scores else few)

    def _lost(self) -> list[str]:
        """Structures that are others now, however few voxels they have beside the rest."""
        return [
            name
            for name, score in self.dice.items()
            if any(self.sizes.get(name, 0) >= size and score < least for size, least in FLOORS)
        ]

    def __str__(self) -> str:
        """One line with the figures."""
        share = 100 * self.differing / max(self.labelled, 1)
        text = f"mean Dice {self.mean_dice:.4f}, {self.differing} of {self.total} voxels differ"
        text += f" ({share:.3f} % of the labelled ones)"
        lost = self._lost()
        return text + (f"; {', '.join(lost[:5])} changed" if lost else "")


def kind_of(bundle: Bundle) -> str | None:
    """What a bundle takes: `volume` (NIfTI files), `slices` (pictures), or None where nothing tells.

    Its inference.json is read, not run: how it lists what lies in `dataset_dir`, then its metadata's `data_type`.
    """
    if not {"dataset_dir", "output_dir"} <= set(bundle.content("inference")):
        return None
    said = str(bundle.metadata.get("data_type", "")).lower()
    guessed = {**dict.fromkeys(_VOLUMES, "volume"), **dict.fromkeys(_PICTURES, "slices")}.get(said)
    return _lists(bundle) or guessed


def _lists(bundle: Bundle) -> str | None:
    """What the config itself says by how it lists files, as ours do."""
    listed = json.dumps(bundle.content("inference"))
    return "slices" if "slice_items" in listed else "volume" if "find_scans" in listed else None


def make_self_test(bundle: Bundle, folder: Path, watch: Callable[[ConfigParser], Any] | None = None) -> bool:
    """Make the self-test of a bundle: made-up scans in `input`, and what the bundle makes of them in `expected`.

    It is computed on the CPU, whatever there is. Nothing of a patient goes in.

    Args:
        bundle: it, with its weights.
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
        if _lists(bundle) is not None:
            raise
        logger.warning("%s takes other input than its metadata lets one guess: %s", bundle.name, error)
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _make(bundle: Bundle, kind: str, folder: Path, watch: Callable[[ConfigParser], Any] | None) -> None:
    source = folder / INPUT
    source.mkdir(parents=True)
    if kind == "volume":
        body = make_body(VOLUME, 0)
        write_volume(source / "phantom.nii.gz", body.hu, Grid(body.hu.shape, body.affine))
    else:
        with tempfile.TemporaryDirectory(prefix="medseg-selftest-") as location:
            made = write_slice_phantom(Path(location, "set"), SLICES)
            for path in sorted((made / "images").rglob("*.png")):
                shutil.copyfile(path, source / path.name)
    infer(bundle, source, folder / EXPECTED, "cpu", watch)
    masks = _masks(folder / EXPECTED)
    for name, path in files_of(folder / EXPECTED).items():
        if name not in masks:  # such as the same masks in colours
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    if not masks:
        raise ConfigError(bundle.root, "must write masks to output_dir in its inference.json", "none")
    spec = asdict(VOLUME if kind == "volume" else SLICES)
    write_json(folder / RECORD, {"format": _FORMAT, "kind": kind, "phantom": spec, "device": "cpu"})


def run_self_test(bundle: Bundle, device: str | None = None) -> SelfTest | None:
    """Run the self-test that came with a bundle; None where none did.

    Args:
        bundle: an unpacked bundle.
        device: `cpu`, `cuda`, ...; by default what the bundle chooses itself.

    Raises:
        MedsegError: the bundle does not run, or what came with it is not whole.
    """
    folder = bundle.root / FOLDER
    if not (folder / RECORD).is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="medseg-selftest-") as location:
        infer(bundle, folder / INPUT, Path(location, "masks"), device)
        return compare_masks(Path(location, "masks"), folder / EXPECTED, _names(bundle))


def infer(
    bundle: Bundle, source: Path, target: Path, device: str | None, watch: Callable[[ConfigParser], Any] | None = None
) -> None:
    """Run a bundle's inference.json, as MONAI does: what lies in a folder, to masks in another one.

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
            for key in ("initialize", "run"):
                if key in parser:
                    parser.get_parsed_content(key)
    except Exception as error:  # of any library; MONAI wraps what its configs raise
        raise _ours(error, bundle) from error


def compare_masks(found: Path, expected: Path, names: Mapping[int, str]) -> SelfTest:
    """Hold masks against those of the same names.

    Args:
        found: the folder of what was made here.
        expected: the folder of what came.
        names: of the structures, by label.

    Raises:
        DataError: a mask is missing, or of another shape or in another place.
    """
    masks = _masks(expected)
    if not masks:
        raise DataError(expected, "must hold the masks of the self-test", "none")
    known = [index for index in names if index > 0]
    size = max(names, default=0) + 1
    table = np.zeros((0, 0), np.int64)
    for name in masks:
        if not (found / name).is_file():
            raise DataError(expected.parent, f"must give the mask {name}", "none", "The bundle writes other files now.")
        (mine, here), (theirs, there) = _labels(found / name), _labels(expected / name)
        if mine.shape != theirs.shape:
            raise DataError(name, f"must have the shape {theirs.shape}", f"shape {mine.shape}")
        if here is not None and there is not None and not np.allclose(here, there, rtol=0, atol=_PLACED):
            was, rule = (
                np.round(here, 3).tolist(),
                f"must lie where the mask that came lies, {np.round(there, 3).tolist()}",
            )
            raise DataError(name, rule, f"{was}")
        size = max(size, int(mine.max(initial=0)) + 1, int(theirs.max(initial=0)) + 1, len(table))
        grown = np.zeros((size, size), np.int64)
        grown[: len(table), : len(table)] = table
        pairs = theirs.ravel().astype(np.int64) * size + mine.ravel()
        table = grown + np.bincount(pairs, minlength=size * size).reshape(size, size)
    total, same = int(table.sum()), int(np.trace(table))
    there, here = table.sum(axis=1), table.sum(axis=0)
    in_either = [index for index in range(1, size) if there[index] + here[index]]
    called = {index: names.get(index, f"label {index}") for index in in_either}
    return SelfTest(
        {called[index]: float(2 * table[index, index] / (there[index] + here[index])) for index in in_either},
        total - same,
        total,
        len(masks),
        total - int(table[0, 0]),
        {called[index]: int(max(there[index], here[index])) for index in in_either},
        int(np.count_nonzero(there[1:])),
        len(known),
    )


def coverage(folder: Path, labels: LabelMap | None = None) -> str:
    """How much a self-test can tell: which of the structures are in the masks that came with it, in a few words.

    Args:
        folder: the folder of the self-test.
        labels: the structures; None where nobody knows.

    Returns:
        Such as `3 of 117 structures`; empty where the masks hold nothing but background.
    """
    found: set[int] = set()
    for name in _masks(folder / EXPECTED):
        found |= {int(index) for index in np.unique(_labels(folder / EXPECTED / name)[0]) if index > 0}
    return covers(len(found), len(labels.structures) if labels is not None else 0)


def covers(covered: int, structures: int) -> str:
    """That many of so many, in words; empty where it is none.

    >>> covers(3, 117), covers(1, 0), covers(0, 4)
    ('3 of 117 structures', '1 structure', '')
    """
    if not covered:
        return ""
    many = f"{covered} of {structures}" if structures else str(covered)
    return f"{many} structure{'s' * (max(covered, structures) > 1)}"


def _labels(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """The labels and, of a volume, the affine."""
    if is_picture(path):
        return np.asarray(read_image_2d(path).values), None
    values, grid = read_volume(path)
    return np.asarray(values), np.asarray(grid.affine)


def _masks(folder: Path) -> list[str]:
    """The files below a folder that hold a label for each voxel or pixel; colours are none."""
    files = files_of(folder)
    return [
        name
        for name, path in files.items()
        if name.endswith(SUFFIXES) or (is_picture(path) and read_image_2d(path).values.ndim == 2)
    ]


def _names(bundle: Bundle) -> dict[int, str]:
    try:
        content = json.loads((bundle.root / "label_map.json").read_text(encoding="utf-8"))
        return {int(index): str(name) for index, name in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _ours(error: Exception, bundle: Bundle) -> MedsegError:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MedsegError):
            return found
        found = found.__cause__
    if isinstance(error, torch.OutOfMemoryError):
        return DataError(bundle.name, "needs more memory than there is for its self-test", str(error).splitlines()[0])
    found = error
    while found.__cause__ is not None:
        found = found.__cause__
    said = (str(found).strip().splitlines() or [""])[0]
    rule, fix = "must run its own inference.json", "medseg bundle verify says more."
    return ConfigError(bundle.name, rule, f"{type(found).__name__}: {said}", fix)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what inference says of each file, and ignite of an error that is raised anyway."""
    levels = {logging.getLogger(name): level for name, level in _LEVELS.items()}
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
