"""Inputs that several test files make: an ITK image that lies where an affine says, a small set of cases on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases import Case, DatasetIndex, Split
from medseg.data.dicom_file import load_itk
from medseg.labels import LabelMap

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_image(voxels: np.ndarray, affine: np.ndarray) -> Any:
    """Return an ITK image, whose world is LPS, of voxels `(I, J, K)` that lie by an affine in RAS."""
    itk = load_itk()
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(voxels.T))
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin([float(value) for value in lps[:3, 3]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image


def liver_cases(folder: Path, ids: str) -> DatasetIndex:
    """Return an index of cases whose files hold their id; a and b for training, c for validation."""
    cases = []
    for id in ids:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{id}.nii.gz").write_bytes(id.encode())
        cases.append(
            Case(id, folder / "images" / f"{id}.nii.gz", folder / "labels" / f"{id}.nii.gz", annotated=("liver",))
        )
    return DatasetIndex(folder, tuple(cases), ("liver",), LabelMap(["liver"]), Split(("a", "b"), ("c",), ()))
