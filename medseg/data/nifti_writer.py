"""NIfTI files that are written: complete or not at all, with the source's own geometry, and the names of structures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.data.nifti import NiftiHeader, open_nifti
from medseg.errors import GeometryError, LabelError
from medseg.file_names import NIFTI, has_suffix
from medseg.grid import Grid
from medseg.labels import LabelMap

_COMMENT = 6  # the NIfTI code of a plain-text header extension
_SHEAR = 1e-3  # degrees; a qform cannot hold a larger one
_FORMS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_ROWS = ("srow_x", "srow_y", "srow_z")


def label_dtype(classes: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned type that holds that many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def write_label_map(
    path: str | Path,
    label: npt.NDArray[Any],
    source: str | Path | Grid,
    labels: LabelMap,
    only: Sequence[str] | None = None,
) -> Path:
    """Write a label map that lies exactly where `source` lies.

    The geometry (sform, qform and their codes) is the source's. Nothing else of its header is copied, for it may
    hold a patient's name. The names of the structures go into a header extension as JSON.

    Args:
        path: a `.nii.gz` or `.nii` file.
        label: indices of `labels`, `(I, J, K)` in the voxel order of `source`.
        source: the NIfTI file whose geometry it gets, or a grid.
        labels: what the indices mean.
        only: the structures that were searched for, if not all; written beside the names.

    Raises:
        GeometryError: shape or, after writing, affine differ from the source's; nothing is left behind.
        LabelError: an index that `labels` does not hold.
        OutputError: the file cannot be written.
    """
    _save(path, label_image(label, source, labels, only), source)
    return Path(path)


def label_image(
    label: npt.NDArray[Any], source: str | Path | Grid, labels: LabelMap, only: Sequence[str] | None = None
) -> Any:
    """Return a label map as a nibabel image, as `write_label_map` writes it.

    Raises:
        GeometryError, LabelError: see `write_label_map`.
    """
    grid = source if isinstance(source, Grid) else open_nifti(source).grid
    thing = "label map" if isinstance(source, Grid) else f"label map of {source}"
    if label.shape != grid.shape:
        raise GeometryError(thing, f"its shape {label.shape} is not that of the scan, {grid.shape}")
    if label.size and int(label.max()) >= len(labels):
        raise LabelError(thing, f"label {int(label.max())} has no name: the last one is {len(labels) - 1}")
    content: dict[str, Any] = {"labels": labels.to_dict()}
    if only is not None:
        content["only"] = list(only)
    comment = json.dumps(content, separators=(",", ":"))
    return _image_on(label.astype(label_dtype(len(labels)), copy=False), source, comment)


def write_like(
    path: str | Path, array: npt.NDArray[Any], source: str | Path | Grid, comment: str | None = None
) -> None:
    """Write voxels with the geometry of `source` and nothing else of its header; complete or not at all.

    A grid goes into both sform and qform, as a scanner's coordinates; into the sform alone if it is sheared.

    Raises:
        GeometryError: what was written does not lie where `source` lies.
        OutputError: the file cannot be written.
    """
    _save(path, _image_on(array, source, comment), source)


def write_volume(path: str | Path, array: npt.NDArray[Any], grid: Grid) -> Path:
    """Write voxels `(I, J, K)` on a grid of their own; complete or not at all.

    Raises:
        GeometryError: the array does not have the grid's shape.
        OutputError: the file cannot be written.
    """
    if array.shape != grid.shape:
        raise GeometryError(path, f"the array's shape {array.shape} is not that of its grid, {grid.shape}")
    write_like(path, array, grid)
    return Path(path)


def _image_on(array: npt.NDArray[Any], source: str | Path | Grid, comment: str | None) -> Any:
    if isinstance(source, Grid):
        image = nib.Nifti1Image(array, source.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(source.affine, 1)
        image.set_qform(source.affine, 1 if source.shear < _SHEAR else 0)
    else:
        image = _image_like(open_nifti(source), array)
    if comment is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, comment.encode()))
    return image


def _save(path: str | Path, image: Any, source: str | Path | Grid) -> None:
    grid = source if isinstance(source, Grid) else open_nifti(source).grid
    if not isinstance(source, Grid):
        image = type(image)(image.dataobj, None, image.header)  # without an affine, nibabel leaves the header alone
        image.header["pixdim"][:4] = open_nifti(source).fields["pixdim"][:4]
    with atomic_path(path) as partial:
        nib.save(image, partial)
        grid.require(open_nifti(partial).grid, path, "its grid" if isinstance(source, Grid) else source)


def _image_like(source: NiftiHeader, array: npt.NDArray[Any]) -> Any:
    """Return an image that every reader places as the source, because each field is as it stands there."""
    image_class = nib.Nifti2Image if isinstance(source.fields, nib.Nifti2Header) else nib.Nifti1Image
    header, fields = image_class.header_class(), source.fields
    header.set_data_dtype(array.dtype)
    header.set_data_shape(source.shape)
    header["xyzt_units"] = int(fields["xyzt_units"]) & 7 or 2  # 2 are mm
    for key in (*_FORMS, *_ROWS):
        header[key] = fields[key]
    # As nibabel corrects it; `_save` sets what stands there.
    header["pixdim"][:4] = (fields["pixdim"][0] or 1, *np.abs(fields["pixdim"][1:4]))
    return image_class(array.reshape(source.shape), header.get_best_affine(), header)


def read_label_names(file: Any) -> LabelMap | None:
    """Return the names in the header of a label map, a file or a nibabel image, as `write_label_map` puts them there.

    None if it has none.
    """
    content = _comment(file)
    return LabelMap.from_dict(content["labels"], source=file) if "labels" in content else None


def read_restriction(path: str | Path) -> tuple[str, ...] | None:
    """Return the structures that a label map was restricted to; None where it was not, or does not say."""
    only = _comment(path).get("only")
    return tuple(str(name) for name in only) if isinstance(only, list) else None


def _comment(file: Any) -> dict[str, Any]:
    if isinstance(file, (str, Path)) and not has_suffix(file, NIFTI):
        return {}  # other formats carry no names
    header = open_nifti(file).fields if isinstance(file, (str, Path)) else file.header
    for extension in getattr(header, "extensions", ()):
        if extension.get_code() == _COMMENT:
            try:
                content = json.loads(extension.get_content())
            except ValueError:
                continue
            if isinstance(content, dict) and "labels" in content:
                return content
    return {}
