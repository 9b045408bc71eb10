"""What is written of a prediction, beside the label map itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.bundle.predict import Prediction
from medseg.data import read_grid, read_volume
from medseg.data.nifti import read_label_names, read_looked_for, stem, write_like
from medseg.errors import DataError
from medseg.labels import LabelMap
from medseg.report import save_overview, save_statistics, structure_statistics


@dataclass(frozen=True)
class Outputs:
    """What is wanted beside the label map `FOLDER/NAME.nii.gz`.

    Args:
        split: one binary mask for each structure, `FOLDER/NAME/STRUCTURE.nii.gz`; absent ones are empty.
        stats: `FOLDER/NAME.statistics.json` and `.csv`.
        preview: `FOLDER/NAME.png`, three planes.
    """

    split: bool = False
    stats: bool = False
    preview: bool = False

    @property
    def need_hu(self) -> bool:
        """Whether the scan's voxels are needed."""
        return self.stats or self.preview

    def files(self, mask: Path, structures: tuple[str, ...]) -> list[Path]:
        """All that is written beside a mask."""
        name = stem(mask)
        found = [mask.with_name(name) / f"{structure}.nii.gz" for structure in structures] if self.split else []
        found += [mask.with_name(f"{name}.statistics{kind}") for kind in (".json", ".csv")] if self.stats else []
        return [*found, mask.with_name(f"{name}.png")] if self.preview else found

    def missing(self, mask: Path, structures: tuple[str, ...]) -> list[Path]:
        """Those that are not there, or older than the mask."""
        made = mask.stat().st_mtime_ns
        files = self.files(mask, structures)
        return [file for file in files if not file.is_file() or file.stat().st_mtime_ns < made]

    def write(self, prediction: Prediction, hu: npt.NDArray[Any] | None, mask: Path) -> list[Path]:
        """Write what is wanted and missing beside a mask that was written; each file whole or not at all.

        Raises:
            OutputError: the place cannot be written.
        """
        structures = prediction.only or prediction.labels.structures
        missing = self.missing(mask, structures)
        for path in missing:
            if path.parent != mask.parent:
                part = (prediction.label == prediction.labels.index(stem(path))).astype(np.uint8)
                write_like(path, part, prediction.location)
        if hu is None:
            return missing
        grid, labels, label = prediction.grid, prediction.labels, prediction.label
        if self.stats and any(".statistics." in path.name for path in missing):
            found = structure_statistics(hu, label, grid, labels, structures, prediction.confidence)
            save_statistics(mask.with_name(f"{stem(mask)}.statistics.json"), found, grid, prediction.source)
        if self.preview and any(path.suffix == ".png" for path in missing):
            save_overview(mask.with_name(f"{stem(mask)}.png"), hu, label, grid, labels, stem(mask))
        return missing


def kept_mask(mask: Path, scan: Path, labels: LabelMap, only: tuple[str, ...] | None) -> Prediction | None:
    """The prediction that a mask on disk holds; None where it is not there, damaged, or of another grid.

    Raises:
        DataError: it is whole, but holds other structures than those asked for; or the scan cannot be read.
    """
    if not mask.is_file():
        return None
    grid = read_grid(scan)
    try:
        label, location = read_volume(mask)
        names = read_label_names(mask)
    except DataError:
        return None
    if not grid.matches(location) or label.dtype.kind not in "iu" or (label.size and int(label.max()) >= len(labels)):
        return None
    if names is not None and (names != labels or read_looked_for(mask) != only):
        raise DataError(
            mask,
            "is left as it is where it holds the structures that are asked for",
            "a mask of other ones",
            "Choose another folder with -o, or make it again with --overwrite.",
        )
    return Prediction(label, grid, labels, scan, 0.0, only)
