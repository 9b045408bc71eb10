"""Label maps to compare, predicted or true: of a folder in whatever layout, of a file, or in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.catalogue import in_order, structure_names
from medseg.data.class_colors import CLASSES
from medseg.data.layouts import datalist, discover
from medseg.data.layouts.nnunet import DESCRIPTION
from medseg.data.layouts.totalsegmentator import IMAGE, MASKS, image_of
from medseg.data.nifti_writer import read_label_names, read_restriction
from medseg.errors import DataError, GeometryError, LabelError
from medseg.evaluation.pictures import Picture, find_pictures, holds_pictures
from medseg.file_names import VOLUMES, entries, existing, files_by_name, spelled_as, stem
from medseg.grid import Grid
from medseg.image_io_2d import is_image_2d
from medseg.labels import BACKGROUND, LabelMap

NAMES = "label_map.json"


@dataclass(frozen=True)
class Source:
    """The label map of one case: a file, or binary masks, or an array.

    Args:
        case: its id.
        label: a file with one label for each voxel.
        masks: binary masks by structure, instead.
        labels: how `label` or `array` is numbered.
        structures: what may be in it; of a truth, the annotated structures.
        image: the scan, if it is known.
        array: label values in memory, `(I, J, K)`, instead.
        grid: of `array`; None if spacing and position are unknown.
        slices: if it is a 2D slice, its masks; of a scan of such slices, those of all, in order.
        binarize: how masks that hold more than 0 and 1 are read, see `medseg.data.masks.binary_mask`.
        accept: codes of the rules for scans that the user accepts, see `medseg.data.scan_rules`.
    """

    case: str
    label: Path | None
    masks: Mapping[str, Path] = field(default_factory=dict)
    labels: LabelMap | None = None
    structures: tuple[str, ...] = ()
    image: Path | None = None
    array: npt.NDArray[Any] | None = None
    grid: Grid | None = None
    slices: tuple[Picture, ...] = ()
    binarize: float | None = None
    accept: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """The file, or the folder of the masks, or the name of an array."""
        if self.label is not None:
            return str(self.label)
        return str(next(iter(self.masks.values())).parent) if self.masks else f"{self.case} in memory"


def find_sources(root: str | Path, names: LabelMap | None = None) -> dict[str, Source]:
    """Find the label maps under `root`, by case id.

    Args:
        root: a folder of NIfTI label maps `<case>.nii.gz`; a folder of `<case>/<structure>.nii.gz` or
            `<case>/segmentations/<structure>.nii.gz`; a data set in any layout that `discover` knows; or masks of 2D
            slices, see `find_pictures`.
        names: how the label maps are numbered, if their headers, `label_map.json` or `dataset.json` beside or above
            them do not say so. It overrules them.

    Raises:
        DataError: nothing of that kind; LabelError: label maps without names for their numbers.
    """
    root = Path(root)
    if not root.is_dir():
        if root.suffix == ".json" and root.is_file():
            return _sources_of_dataset(root, names)
        raise DataError(root, "there must be a folder of label maps", "a file" if root.exists() else "no such folder")
    if holds_pictures(root):
        return {id: _picture_source(id, picture) for id, picture in find_pictures(root, names).items()}
    described = any((root / name).is_file() for name in (datalist.NAME, DESCRIPTION))
    files = files_by_name(root, VOLUMES)
    if files:
        above = _sources_of_dataset_above(root, names) if not described else {}
        return _file_sources(files, above, names)
    if not described:
        folders = {folder.name: masks for folder in entries(root) if (masks := _masks_in(folder))}
        if folders:
            return {
                case: Source(case, None, masks, structures=ordered(masks), image=_image_of(root / case))
                for case, masks in folders.items()
            }
    return _sources_of_dataset(root, names)


def _picture_source(id: str, picture: Picture) -> Source:
    case = picture.case
    return Source(id, case.label, case.masks, structures=picture.structures, image=case.image, slices=(picture,))


def _file_sources(files: Mapping[str, Path], above: Mapping[str, Source], names: LabelMap | None) -> dict[str, Source]:
    """Return label maps in files; one that cannot be read takes the names of the others and fails when it is scored."""
    sources, errors = dict(above), {}
    for case, path in files.items():
        try:
            sources[case] = above.get(case) or file_source(case, path, names)
        except DataError as error:
            errors[case] = error
    readable = next((sources[case] for case in files if case in sources), None)
    if readable is None:
        raise next(iter(errors.values()))
    for case in errors:
        sources[case] = replace(readable, case=case, label=files[case], image=None)
    return {case: sources[case] for case in files}


def ordered(names: Sequence[str] | Mapping[str, Path]) -> tuple[str, ...]:
    """Return the names in TotalSegmentator's order; those that it lacks follow, in theirs."""
    catalogued = in_order(names)
    return (*catalogued, *(name for name in names if name not in catalogued))


def read_names(path: str | Path) -> LabelMap:
    """Read a numbering from `label_map.json`, or from `dataset.json` of nnU-Net or the Decathlon.

    Args:
        path: the file, or the word `totalsegmentator` for the 117 structures of version 2.

    Raises:
        LabelError: the file holds no numbering.
    """
    if str(path).lower() == "totalsegmentator":
        return LabelMap.totalsegmentator()
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        labels = content.get("labels", content)
        if any(isinstance(value, int) for value in labels.values()):
            labels = {str(value): name for name, value in labels.items()}
        named = {str(index): str(name) for index, name in labels.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise LabelError(path, "the file must be JSON that names labels, like a label_map.json", str(error)) from error
    return LabelMap.from_dict({**named, "0": BACKGROUND}, path, gaps=True)


def file_source(case: str, path: Path, names: LabelMap | None = None) -> Source:
    """Return the label map in a file, numbered as `names`, its header or a file beside or above it says.

    Raises:
        LabelError: no names for its numbers.
    """
    if is_image_2d(path):
        ((id, picture),) = find_pictures(path, names).items()
        return _picture_source(id, picture)
    labels = names or read_label_names(path)
    if labels is None:
        candidates = [
            folder / name for folder in (path.parent, path.parent.parent) for name in (NAMES, DESCRIPTION, CLASSES)
        ]
        beside = next((candidate for candidate in candidates if candidate.is_file()), None)
        if beside is None:
            raise LabelError(
                path,
                "its labels have no names, and label maps are matched by name, never by number",
                f"none in its header, no {NAMES}, {DESCRIPTION} or {CLASSES} beside it",
                "Give a file with the names, or the word totalsegmentator, with --truth-labels or --prediction-labels.",
            )
        labels = read_names(beside)
    return Source(case, path, labels=labels, structures=read_restriction(path) or labels.structures)


def memory_source(
    image: Any, labels: LabelMap | None = None, spacing: Sequence[float] | None = None, case: str = "case"
) -> Source:
    """Return the label map in an object in memory.

    Args:
        image: an array or tensor of labels, `(I, J, K)`, `(I, J)` or with one channel before it; an object with an
            `affine`: a nibabel image, a MetaTensor, a `medseg.Prediction`; or a `medseg.bundle.SlicePrediction`.
        labels: what the values mean. The labels of a Prediction overrule it, and it overrules a nibabel image's header.
        spacing: mm along each axis, if the image has no affine or is 2D.
        case: its id, for errors.

    Raises:
        GeometryError: no 2D or 3D label map, an ITK image, or the spacing does not fit.
    """
    if hasattr(image, "GetDirection"):
        # Its array has the axes reversed: beside another image it could fit and be wrong.
        fix = "Pass the path of its file, a nibabel image, or an array (I, J, K) with spacing=."
        raise GeometryError(case, "an ITK image cannot be evaluated as it is", fix=fix)
    image_labels = getattr(image, "labels", None)
    if isinstance(image_labels, LabelMap):
        labels = image_labels
        if hasattr(image, "channels"):  # a prediction of a slice, whose structures may overlap
            masks = {name: image.mask(name) for name in labels}
            picture = Picture.of_arrays(case, masks, Path(image.source))
            return Source(case, None, labels=labels, structures=labels.structures, slices=(picture,))
    elif labels is None and hasattr(image, "header"):
        labels = read_label_names(image)
    values = _values(image)
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    flat = values.ndim == 2
    if values.ndim not in (2, 3) or not values.size:
        raise GeometryError(case, "a label map must have 2 or 3 axes", f"shape {values.shape}")
    values = values[..., None] if flat else values
    affine = None if flat else getattr(image, "affine", None)
    if affine is None and spacing is not None:
        steps = [*map(float, spacing), *([1.0] if flat else [])]
        if len(steps) != 3:
            raise GeometryError(case, "the spacing must have one value for each axis", f"got {tuple(spacing)}")
        affine = np.diag([*steps, 1.0])
    grid = getattr(image, "grid", None)
    if not isinstance(grid, Grid):
        grid = None if affine is None else Grid(values.shape, np.asarray(affine, dtype=np.float64))
    only = getattr(image, "only", None)
    structures = tuple(only) if only else labels.structures if labels is not None else ()
    return Source(case, None, labels=labels, structures=structures, array=values, grid=grid)


def _values(image: Any) -> npt.NDArray[Any]:
    """Return the voxels of a Prediction, a nibabel image, a tensor on any device or an array."""
    if hasattr(image, "detach"):
        return np.asarray(image.detach().cpu().numpy())
    for name in ("label", "array", "dataobj"):
        if not isinstance(image, np.ndarray) and hasattr(image, name):
            return np.asarray(getattr(image, name))
    return np.asarray(image)


def dataset_sources(cases: Iterable[Any], labels: LabelMap) -> dict[str, Source]:
    """Return the truth of a data set's cases, numbered as `labels`, by case id.

    Args:
        cases: `medseg.Case`s.
        labels: of their label maps.
    """
    sources = {}
    for case in cases:
        annotated = case.annotated if case.annotated is not None else labels.structures
        masks = case.masks if case.combinations is not None or case.label is None else {}
        label = None if masks else case.label
        sources[case.id] = Source(case.id, label, masks, labels, tuple(annotated), case.image)
    return sources


def _masks_in(folder: Path) -> dict[str, Path]:
    """Return the masks of one case: NIfTI files in `segmentations`, or in a folder of nothing but masks."""
    masks = existing(folder / MASKS)
    if masks.is_dir():
        return spelled_as(files_by_name(masks), structure_names())
    files = spelled_as(files_by_name(folder), [stem(IMAGE), *structure_names()])
    files.pop(stem(IMAGE), None)
    return files if not any(name.endswith("_0000") for name in files) and in_order(files) else {}


def _image_of(folder: Path) -> Path | None:
    return image_of(folder) if image_of(folder).is_file() else None


def _sources_of_dataset(root: Path, names: LabelMap | None) -> dict[str, Source]:
    dataset = discover(root)
    sources = {}
    for case in dataset.cases:
        if case.masks:
            structures = ordered(case.masks)
            sources[case.id] = Source(case.id, None, dict(case.masks), structures=structures, image=case.image)
        elif case.label is not None:
            labels = names or dataset.labels
            structures = case.annotated if case.annotated is not None else labels.structures if labels else ()
            sources[case.id] = Source(
                case.id, case.label, labels=labels, structures=tuple(structures), image=case.image
            )
    if not sources:
        raise DataError(root, "the data set has neither label maps nor masks", f"{len(dataset.cases)} cases")
    return sources


def _sources_of_dataset_above(folder: Path, names: LabelMap | None) -> dict[str, Source]:
    """Return what the data set that the folder is a part of says of its label maps; it knows what is annotated."""
    if not any((folder.parent / name).is_file() for name in (datalist.NAME, DESCRIPTION)):
        return {}
    try:
        sources = _sources_of_dataset(folder.parent, names)
    except (DataError, LabelError):
        return {}  # not a complete data set: the label maps have to bring their own names
    here = folder.resolve()
    return {
        stem(source.label): source
        for source in sources.values()
        if source.label and source.label.parent.resolve() == here
    }
