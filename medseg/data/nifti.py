"""NIfTI files: read strictly, written completely or not at all, with the source's own geometry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.volumeutils import apply_read_scaling

from medseg.atomic import atomic_path
from medseg.data.gzip_io import cut_short, damaged, read_decompressed
from medseg.errors import DataError, GeometryError, LabelError
from medseg.file_names import NIFTI, has_suffix
from medseg.grid import Grid
from medseg.labels import LabelMap

_COMMENT = 6  # the NIfTI code of a plain-text header extension
_NOT_MM = {1: "meter", 3: "micron"}  # by the NIfTI code; an unknown unit is taken for mm, as all tools do
_RECONVERT = "Convert it again from its source."


def open_image(path: str | Path) -> Any:
    """Open a NIfTI file with nibabel: its header is read and checked, its voxels are not read yet.

    Raises:
        DataError: it is missing, empty, not in NIfTI format, or its header cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "no such file")
    if not has_suffix(path, NIFTI):
        raise DataError(path, "the file is not in NIfTI format", path.suffix, "Give a .nii or .nii.gz file.")
    if path.stat().st_size == 0:
        raise DataError(path, "the file is empty", fix="Download or copy it again.")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise DataError(path, "the file is only a Git-LFS pointer", fix="Fetch the file itself: git lfs pull.")
    try:
        return nib.load(path)
    except Exception as error:  # nibabel raises many kinds for one thing: a file that is not what it says
        raise damaged(path, error) from error


def voxels(image: Any) -> npt.NDArray[Any]:
    """Return the voxels of an opened image, scaled as its header says. The array is the caller's own.

    Raises:
        DataError: the file is cut short, its compressed bytes are damaged, or their checksum does not agree.
    """
    path = Path(image.get_filename())
    stored = image.dataobj
    if stored.offset < int(image.header["sizeof_hdr"]):
        # nibabel takes the header's bytes for voxels then, and every voxel is shifted.
        raise DataError(path, f"its voxels would begin inside the header (vox_offset {stored.offset})", "", _RECONVERT)
    expected = stored.offset + int(np.prod(stored.shape, dtype=np.int64)) * stored.dtype.itemsize
    raw = read_decompressed(path, expected)
    if len(raw) < expected:
        raise cut_short(path, len(raw), expected)
    data: npt.NDArray[Any] = np.ndarray(stored.shape, stored.dtype, buffer=raw, offset=stored.offset, order="F")
    scaled: npt.NDArray[Any] = np.asanyarray(apply_read_scaling(data, stored.slope, stored.inter))
    return scaled.astype(scaled.dtype.newbyteorder("="), copy=False)


def read_nifti_grid(path: str | Path) -> Grid:
    """Return where the voxels of a NIfTI file lie, from its header alone: by its sform, or else its qform.

    Raises:
        DataError: see `open_image`.
        GeometryError: it is not 3D, is not in mm, or says two different things.
    """
    return _grid(open_image(path), path)


def read_nifti(path: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """Return the voxels `(I, J, K)` of a 3D NIfTI file, and where they lie.

    Raises:
        DataError: see `open_image` and `voxels`; or its voxels are colors or complex numbers.
        GeometryError: see `read_nifti_grid`.
    """
    image = open_image(path)
    grid = _grid(image, path)
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        content = "colors (RGB)" if dtype.names else f"{dtype} numbers"
        raise DataError(path, f"the voxels are {content}", "", "Give the CT itself, not an image of it.")
    return voxels(image), grid


def _grid(image: Any, path: str | Path) -> Grid:
    header = image.header
    if len(image.shape) != 3:
        raise GeometryError(path, "a scan must be a 3D volume", f"shape {image.shape}", "Save one volume a file.")
    unit = _NOT_MM.get(int(header["xyzt_units"]) & 7)
    if unit is not None:
        raise GeometryError(path, "its unit of length must be mm", unit, _RECONVERT)
    try:
        grid = Grid(image.shape, image.affine)
    except GeometryError as error:
        raise GeometryError(
            path, f"its {error.thing} cannot be used: {error.problem}", error.came, _RECONVERT
        ) from error
    _require_one_geometry(header, grid, path)
    return grid


def _require_one_geometry(header: Any, grid: Grid, path: str | Path) -> None:
    """Refuse a header whose sform contradicts both its pixdim and its qform.

    A pixdim that was only rounded does no harm, nor does a qform that is not set: the sform decides.
    """
    if not int(header["sform_code"]):
        return
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if int(header["qform_code"]) and not np.allclose(pixdim, grid.spacing):
        distance = grid.distance(Grid(grid.shape, header.get_qform()))
        if distance > min(grid.spacing) / 2:
            raise GeometryError(
                path,
                f"sform and qform put the corners up to {distance:.4g} mm apart, and pixdim contradicts the sform",
                fix="Find out which is right, and write it into both.",
            )


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
    grid = source if isinstance(source, Grid) else read_nifti_grid(source)
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

    A grid goes into both sform and qform, as a scanner's coordinates.

    Raises:
        GeometryError: what was written does not lie where `source` lies.
        OutputError: the file cannot be written.
    """
    _save(path, _image_on(array, source, comment), source)


def _image_on(array: npt.NDArray[Any], source: str | Path | Grid, comment: str | None) -> Any:
    if isinstance(source, Grid):
        image = nib.Nifti1Image(array, source.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(source.affine, 1)
        image.set_qform(source.affine, 1)
    else:
        image = _image_like(open_image(source), array)
    if comment is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, comment.encode()))
    return image


def _save(path: str | Path, image: Any, source: str | Path | Grid) -> None:
    grid = source if isinstance(source, Grid) else read_nifti_grid(source)
    with atomic_path(path) as partial:
        nib.save(image, partial)
        grid.require(read_nifti_grid(partial), path, "its grid" if isinstance(source, Grid) else source)


def write_volume(path: str | Path, array: npt.NDArray[Any], grid: Grid) -> Path:
    """Write voxels `(I, J, K)` on a grid of their own; complete or not at all.

    Raises:
        GeometryError: the array does not have the grid's shape.
        OutputError: the file cannot be written.
    """
    if array.shape != grid.shape:
        raise GeometryError(path, f"the array's shape {array.shape} is not that of its grid, {grid.shape}")
    image = nib.Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as partial:
        nib.save(image, partial)
        grid.require(read_nifti_grid(partial), path, "its grid")
    return Path(path)


def _image_like(reference: Any, array: npt.NDArray[Any]) -> Any:
    image_class = nib.Nifti2Image if isinstance(reference.header, nib.Nifti2Header) else nib.Nifti1Image
    header = image_class.header_class()
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm")
    header.set_data_shape(array.shape)
    old = reference.header
    header["pixdim"][:4] = old["pixdim"][:4]
    for key in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"):
        header[key] = old[key]
    for key in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[key] = old[key]
    if not int(old["sform_code"]) and not int(old["qform_code"]):
        return image_class(array, reference.affine, header)  # nibabel's default affine must be written out
    return image_class(array, None, header)


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
    header = (open_image(file) if isinstance(file, (str, Path)) else file).header
    for extension in getattr(header, "extensions", ()):
        if extension.get_code() == _COMMENT:
            try:
                content = json.loads(extension.get_content())
            except ValueError:
                continue
            if isinstance(content, dict) and "labels" in content:
                return content
    return {}
