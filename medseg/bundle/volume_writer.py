"""What is written of the prediction for a volume: the label map, and statistics, masks and a preview beside it."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.atomic import remove_partial
from medseg.bundle.batch_predict import AnyPrediction, ScanResult
from medseg.bundle.prediction import Prediction
from medseg.data import read_grid
from medseg.data.nifti_writer import read_label_names, read_restriction, write_like
from medseg.data.volumes import read_scan
from medseg.errors import DataError, InputError
from medseg.file_names import stem
from medseg.findings import warning
from medseg.labels import LabelMap
from medseg.report import save_overview, save_statistics


@dataclass(frozen=True)
class Outputs:
    """What to write beside the label map `FOLDER/NAME.nii.gz`.

    Args:
        split: one binary mask for each structure, `FOLDER/NAME/STRUCTURE.nii.gz`; absent ones are empty.
        stats: `FOLDER/NAME.statistics.json` and `.csv`.
        preview: `FOLDER/NAME.png`, three planes.
    """

    split: bool = False
    stats: bool = False
    preview: bool = False

    @property
    def needs_image(self) -> bool:
        """Whether the scan's voxels are needed."""
        return self.stats or self.preview

    def files(self, mask: Path, structures: Sequence[str]) -> list[Path]:
        """Return everything that is written beside a mask."""
        name = stem(mask)
        files = [mask.with_name(name) / f"{structure}.nii.gz" for structure in structures] if self.split else []
        if self.stats:
            files += [mask.with_name(f"{name}.statistics.json"), mask.with_name(f"{name}.statistics.csv")]
        return [*files, mask.with_name(f"{name}.png")] if self.preview else files

    def missing(self, mask: Path, structures: Sequence[str]) -> list[Path]:
        """Return those that do not exist, or are older than the mask; all of them where there is no mask."""
        files = self.files(mask, structures)
        if not mask.is_file():
            return files
        written = mask.stat().st_mtime_ns
        return [file for file in files if not file.is_file() or file.stat().st_mtime_ns < written]

    def write(self, prediction: Prediction, mask: Path) -> list[Path]:
        """Write what is missing beside a mask; each file complete or not at all.

        Raises:
            OutputError: a file cannot be written.
        """
        missing = self.missing(mask, prediction.structures)
        for path in missing:
            if path.parent != mask.parent:
                structure = prediction.label == prediction.labels.index(stem(path))
                write_like(path, structure.astype(np.uint8), prediction.location)
        if any(".statistics." in path.name for path in missing):
            path = mask.with_name(f"{stem(mask)}.statistics.json")
            rows = prediction.statistics_rows()
            save_statistics(path, rows, prediction.grid, prediction.source, prediction.warnings)
        if prediction.image is not None and any(path.suffix == ".png" for path in missing):
            path = mask.with_name(f"{stem(mask)}.png")
            caption = prediction.caption(stem(mask))
            save_overview(path, prediction.image, prediction.label, prediction.grid, prediction.labels, caption)
        return missing


class VolumeWriter:
    """Write the label maps of volumes.

    Args:
        targets: the mask of each scan.
        labels: what the label values mean.
        outputs: what to write beside the masks.
        only: the structures that are searched for, if not all.
        accept: codes of the rules for scans that the user accepts.
    """

    def __init__(
        self,
        targets: Mapping[Path, Path],
        labels: LabelMap,
        outputs: Outputs | None = None,
        only: tuple[str, ...] | None = None,
        accept: Sequence[str] = (),
    ) -> None:
        self.targets = dict(targets)
        self.labels = labels
        self.outputs = outputs or Outputs()
        self.only = only
        self.accept = accept

    @property
    def items(self) -> list[Path]:
        """The scans."""
        return list(self.targets)

    @property
    def needs_image(self) -> bool:
        """Whether the scan's voxels are needed to write."""
        return self.outputs.needs_image

    @property
    def needs_confidence(self) -> bool:
        """Whether the confidence of each structure is needed."""
        return self.outputs.stats

    def begin(self) -> None:
        """Remove the partial files of a process that was killed."""
        for mask in self.targets.values():
            first, _, suffix = mask.name.partition(".")
            for partial in mask.parent.glob(f".{glob.escape(first)}.*.partial.{glob.escape(suffix)}"):
                partial.unlink(missing_ok=True)
            if mask.with_name(stem(mask)).is_dir() and self.outputs.split:
                remove_partial(mask.with_name(stem(mask)))

    def existing(self, item: Path) -> Prediction | None:
        """Return the prediction of a complete mask, with the scan's voxels if something beside it is missing.

        None if it must be segmented again: also for statistics that are missing, damaged, or those of another mask,
        because the confidence of a structure is known to the network alone.

        Raises:
            DataError: see `existing_mask`; or the scan cannot be read.
        """
        mask = self.targets[item]
        prediction = existing_mask(mask, item, self.labels, self.only, self.accept)
        if prediction is None:
            return None
        missing = self.outputs.missing(mask, prediction.structures)
        if self.outputs.stats:
            prediction = _statistics_of(prediction, mask)
            if prediction is None:
                return None
        if not (self.needs_image and missing):
            return prediction
        return replace(prediction, image=read_scan(item, self.accept).voxels)

    def write(self, item: Path, prediction: AnyPrediction, is_new: bool) -> ScanResult:
        """Write the label map if it is new, and what is missing beside it.

        A new mask comes last, and gets the time of before the files beside it. So a mask that exists has all that was
        requested with it, whenever the process is killed; and the files are not older than their mask.

        Raises:
            GeometryError, OutputError: see `Prediction.save`.
        """
        if not isinstance(prediction, Prediction):
            raise InputError(item, "a slice cannot be written as a volume", fix="Use a SliceWriter.")
        mask = self.targets[item]
        if is_new:
            mask.unlink(missing_ok=True)
        begun = time.time_ns()
        files = self.outputs.write(prediction, mask)
        if is_new:
            prediction.save(mask)
            os.utime(mask, ns=(begun, begun))
        return ScanResult(mask, replace(prediction, image=None), is_new, tuple(files))

    def close(self) -> None:
        """Do nothing: each mask stands alone."""


def _statistics_of(prediction: Prediction, mask: Path) -> Prediction | None:
    """Return a prediction with the confidence and the warnings in its statistics; None if these are not whole.

    They are those of the mask if they count the voxels that it holds.
    """
    counts = np.bincount(prediction.label.ravel(order="K"), minlength=len(prediction.labels))
    expected = {name: int(counts[prediction.labels.index(name)]) for name in prediction.structures}
    try:
        content = json.loads(mask.with_name(f"{stem(mask)}.statistics.json").read_text(encoding="utf-8"))
        if {row["structure"]: row["voxels"] for row in content["structures"]} != expected:
            return None
        confidence = {row["structure"]: row["confidence"] for row in content["structures"] if row["confidence"]}
        warnings = [warning(row["code"], prediction.source, row["message"], row["fix"]) for row in content["warnings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return replace(prediction, confidence=confidence, warnings=tuple(warnings))


def existing_mask(
    mask: Path, scan: Path, labels: LabelMap, only: tuple[str, ...] | None, accept: Sequence[str] = ()
) -> Prediction | None:
    """Return the prediction that a mask on disk holds; None if it is missing, damaged, or on another grid.

    Raises:
        DataError: it is complete, but holds other structures than those requested; or the scan cannot be read.
    """
    if not mask.is_file():
        return None
    grid = read_grid(scan, accept)
    try:
        stored = read_scan(mask, accept)
        label, mask_grid = stored.voxels, stored.grid
        names = read_label_names(mask)
    except DataError:
        return None
    if not grid.matches(mask_grid) or label.dtype.kind not in "iu":
        return None
    if label.size and not 0 <= int(label.min()) <= int(label.max()) < len(labels):
        return None
    if names is not None and (names != labels or read_restriction(mask) != only):
        raise DataError(
            mask,
            "a mask of other structures is there already",
            fix="Choose another folder with -o, or replace it with --overwrite.",
        )
    return Prediction(label, grid, labels, scan, only=only)
