"""What a network predicts for one scan or one slice: the object from which everything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image

from medseg.data import write_label_map
from medseg.data.masks import flatten_masks
from medseg.data.nifti_writer import label_dtype, label_image
from medseg.errors import DataError, GeometryError, InputError
from medseg.file_names import NIFTI, has_suffix
from medseg.findings import Finding
from medseg.grid import Grid
from medseg.image_io_2d import read_size
from medseg.labels import LabelMap
from medseg.report import StructureStatistics, structure_statistics
from medseg.report.figures import overview

Label = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Prediction:
    """The label map of one scan, on the scan's own grid.

    Args:
        label: class indices, `(I, J, K)`, in the voxel order of the scan.
        grid: where it lies (RAS, mm): the scan's.
        labels: what the indices mean.
        source: the scan's file or folder, or a name for one that was in memory.
        seconds: how long reading and segmenting took.
        only: the structures that were searched for, if not all.
        confidence: the mean probability of each structure over its voxels, if it was requested.
        image: the scan's voxels in HU, `(I, J, K)`, if they were kept; statistics and previews need them.
        warnings: what makes the result doubtful: the scan's geometry or values, or what the network was trained on.

    Raises:
        GeometryError: the label map does not have the grid's shape.

    Example:
        >>> grid = Grid((2, 2, 1), np.diag([10.0, 10.0, 10.0, 1.0]))
        >>> label = np.array([[[1], [0]], [[1], [2]]], np.uint8)
        >>> prediction = Prediction(label, grid, LabelMap(["liver", "spleen"]))
        >>> int(prediction.mask("liver").sum())  # voxels; times grid.voxel_ml it is the volume
        2
    """

    label: Label
    grid: Grid
    labels: LabelMap
    source: Path | str = "scan"
    seconds: float = 0.0
    only: tuple[str, ...] | None = None
    confidence: Mapping[str, float] | None = None
    image: npt.NDArray[Any] | None = None
    warnings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.label.shape != self.grid.shape:
            raise GeometryError(
                f"prediction for {self.source}",
                f"the label map's shape {self.label.shape} is not that of the grid, {self.grid.shape}",
            )

    def __repr__(self) -> str:
        shape = "x".join(str(size) for size in self.grid.shape)
        return f"Prediction({str(self.source)!r}, {shape} voxels, {self.labels})"

    @property
    def array(self) -> Label:
        """The class indices, `(I, J, K)`."""
        return self.label

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """The 4x4 matrix from voxel index to mm in RAS."""
        return self.grid.affine

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures that were searched for."""
        return self.only or self.labels.structures

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Return where a structure, or any structure of a group such as `ribs`, was predicted; `(I, J, K)`.

        Raises:
            LabelError: there is no such structure or group.
        """
        return np.isin(self.label, [self.labels.index(structure) for structure in self.labels.select([name])])

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return `volume_ml`, `voxels`, `mean_hu`, `touches_border` and `confidence` by structure.

        Raises:
            DataError: the scan's voxels were not kept.
        """
        return {row.structure: asdict(row) for row in self.statistics_rows()}

    def statistics_rows(self) -> list[StructureStatistics]:
        """Return `statistics` as rows, in the order of the label map.

        Raises:
            DataError: the scan's voxels were not kept.
        """
        return structure_statistics(self._image(), self.label, self.grid, self.labels, self.structures, self.confidence)

    def preview(self) -> Image:
        """Return an overview for people: three planes of the scan with the structures drawn over them.

        Raises:
            DataError: the scan's voxels were not kept.
        """
        return overview(self._image(), self.label, self.grid, self.labels, self.caption(Path(self.source).name))

    def caption(self, name: str) -> str:
        """Return the name of a scan and a line for each warning, for below a picture."""
        return "\n".join([name, *(f"{problem.code}: {problem.message}"[:150] for problem in self.warnings)])

    def _image(self) -> npt.NDArray[Any]:
        if self.image is None:
            raise DataError(
                f"prediction for {self.source}",
                "the voxels of the scan were not kept, so there are no HU to report",
                fix="Predict it with medseg.segment, or Predictor.load(scan, keep_image=True).",
            )
        return self.image

    def to_nibabel(self) -> Any:
        """Return the label map as a nibabel image with the scan's affine, and the structures' names in its header."""
        return label_image(self.label, self.location, self.labels, self.only)

    def save(self, path: str | Path) -> Path:
        """Write the label map as NIfTI with exactly the scan's shape and affine; complete or not at all.

        Raises:
            InputError: the path ends neither in `.nii.gz` nor in `.nii`.
            GeometryError, OutputError: see `medseg.data.write_label_map`.
        """
        if not has_suffix(path, NIFTI):
            raise InputError(path, "a label map is saved as NIfTI", fix="Give a path that ends in .nii.gz or .nii.")
        return write_label_map(path, self.label, self.location, self.labels, self.only)

    @property
    def location(self) -> Path | Grid:
        """What writers copy the geometry from: the scan, if it is a NIfTI file, or its grid."""
        path = Path(self.source)
        return path if has_suffix(path, NIFTI) and path.is_file() else self.grid


@dataclass(frozen=True)
class SlicePrediction:
    """The label map of one 2D slice, on the pixels of its image.

    Args:
        id: names its files.
        source: the image's file, or a name for one that was in memory.
        label: class indices, `(rows, columns)`.
        labels: what the indices mean.
        channels: of a multilabel network, whose structures may overlap, `(structures, rows, columns)`; else None.
        scan: the scan it is a slice of; empty if there is none.
        spacing: mm from row to row and from column to column; None if it is not known.
        seconds: how long reading and segmenting took.
    """

    id: str
    source: Path | str
    label: Label
    labels: LabelMap
    channels: npt.NDArray[np.bool_] | None = None
    scan: str = ""
    spacing: tuple[float, float] | None = None
    seconds: float = 0.0

    @property
    def array(self) -> Label:
        """The class indices, `(rows, columns)`."""
        return self.label

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Return where a structure was predicted, `(rows, columns)`, under others too if they may overlap."""
        index = self.labels.index(name)
        return np.asarray(self.label == index if self.channels is None else self.channels[index - 1])

    def pixels(self) -> dict[str, int]:
        """Return the pixels of each structure."""
        return {name: int(self.mask(name).sum()) for name in self.labels.structures}


def volume_prediction(
    pred: torch.Tensor, source: Path | str, grid: Grid, labels: LabelMap, only: tuple[str, ...] | None = None
) -> Prediction:
    """Make a prediction from what postprocessing leaves, `(1, I, J, K)` on the scan's grid.

    Raises:
        GeometryError: it has another shape, or does not lie where the scan lies.
    """
    name = f"prediction for {source}"
    values = np.asarray(torch.as_tensor(pred).detach().cpu().numpy())
    if values.ndim != 4 or len(values) != 1:
        raise GeometryError(
            name,
            "the network must give one label map (1, I, J, K)",
            f"shape {values.shape}",
            "A multilabel network's inferer needs decode='labels' to flatten its channels into one.",
        )
    affine = getattr(pred, "affine", None)
    if affine is not None:
        grid.for_network().require(Grid(values.shape[1:], np.asarray(affine)), name, source)
    label = values[0].astype(label_dtype(len(labels)))
    if only is not None:
        label = _restricted(label, labels, only)
    return Prediction(label, grid, labels, source, only=only, confidence=_confidence(pred, labels))


def _restricted(label: Label, labels: LabelMap, only: Sequence[str]) -> Label:
    """Turn every other structure into background."""
    lookup = np.zeros(len(labels), label.dtype)
    indices = [labels.index(name) for name in only]
    lookup[indices] = indices
    return np.asarray(lookup[label])


def _confidence(pred: torch.Tensor, labels: LabelMap) -> dict[str, float] | None:
    """Return the confidence by structure, if the inferer gives it; absent structures are left out."""
    means = getattr(pred, "meta", {}).get("confidence")
    if not means:
        return None
    if isinstance(means[0], list):  # of a batch of one
        means = means[0]
    by_name = {name: means[labels.index(name)] for name in labels.structures}
    return {name: mean for name, mean in by_name.items() if np.isfinite(mean)}


def slice_prediction(
    pred: torch.Tensor,
    item: Mapping[str, Any],
    labels: LabelMap,
    multilabel: bool,
    only: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> SlicePrediction:
    """Make a prediction from what the inferer gives for a slice, `(1, rows, columns)` or a channel a structure.

    Args:
        pred: the inferer's output.
        item: the slice, as `medseg.data.slice_items` gives it.
        labels: the classes.
        multilabel: whether structures may overlap.
        only: the structures that were searched for, if not all.
        size: rows and columns of the image; by default those of its file.

    Raises:
        DataError: it does not have the size of the image.
    """
    source = str(item["image"])
    values = np.asarray(torch.as_tensor(pred).detach().cpu().numpy())
    size = size or read_size(source)
    if values.shape != (len(labels) - 1 if multilabel else 1, *size):
        raise DataError(source, f"the mask must have {size[0]} rows and {size[1]} columns", f"shape {values.shape}")
    structures = labels.structures if only is None else tuple(only)
    id = str(item.get("case") or Path(source).stem)
    prediction = SlicePrediction(
        id, Path(source), values[0], labels, scan=str(item.get("scan", "")), spacing=spacing_of(item)
    )
    if not multilabel:
        label = values[0].astype(label_dtype(len(labels)))
        return replace(prediction, label=_restricted(label, labels, structures))
    requested = np.array([name in structures for name in labels.structures])
    channels = (values > 0) & requested[:, None, None]
    return replace(prediction, label=flatten_masks(channels, labels), channels=channels)


def spacing_of(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the spacing that an item names, mm; None if it names none."""
    spacing = item.get("spacing")
    return None if spacing is None else (float(spacing[0]), float(spacing[1]))
