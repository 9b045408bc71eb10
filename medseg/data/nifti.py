"""NIfTI files: read strictly, written whole, with the source's own geometry."""

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
from medseg.data.gzip_io import damaged, read_whole
from medseg.errors import DataError, GeometryError, LabelError
from medseg.grid import Grid
from medseg.labels import LabelMap

SUFFIXES = (".nii.gz", ".nii")
_COMMENT = 6  # the NIfTI code of a plain-text header extension


def stem(path: str | Path) -> str:
    """The name of a NIfTI file without its extension.

    >>> stem("scans/patient.1.nii.gz")
    'patient.1'
    """
    name = Path(path).name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def open_image(path: str | Path) -> Any:
    """Open a NIfTI file: its header is read and checked, its voxels are not read yet.

    Raises:
        DataError: it is missing, empty, no NIfTI, or its header cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "must be a NIfTI file", "no such file")
    if not str(path).lower().endswith(SUFFIXES):
        raise DataError(path, "must be a NIfTI file", f"the extension '{path.suffix}'", "Give a .nii or .nii.gz file.")
    if path.stat().st_size == 0:
        raise DataError(path, "must be a NIfTI file", "an empty file", "Download or copy it again.")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise DataError(path, "must be a NIfTI file", "a Git-LFS pointer", "Fetch the file itself: git lfs pull")
    try:
        return nib.load(path)
    except Exception as error:  # nibabel raises many kinds for one thing: a file that is not what it says
        raise damaged(path, error) from error


def voxels(image: Any) -> npt.NDArray[Any]:
    """The voxels of an opened image, scaled as its header says. The array is the caller's own.

    Raises:
        DataError: the file is cut short, its compressed bytes are damaged, or their checksum does not agree.
    """
    path = Path(image.get_filename())
    stored = image.dataobj
    wanted = stored.offset + int(np.prod(stored.shape, dtype=np.int64)) * stored.dtype.itemsize
    raw = read_whole(path, wanted)
    if len(raw) < wanted:
        raise damaged(path, EOFError(f"{len(raw)} bytes of the {wanted} that its header promises"))
    data: npt.NDArray[Any] = np.ndarray(stored.shape, stored.dtype, buffer=raw, offset=stored.offset, order="F")
    return np.asanyarray(apply_read_scaling(data, stored.slope, stored.inter))


def read_grid(path: str | Path) -> Grid:
    """The grid of a NIfTI file, from its header alone.

    Raises:
        DataError: see `open_image`; GeometryError: it is not 3D.
    """
    return Grid.of_nifti(open_image(path))


def read_volume(path: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels `(I, J, K)` and the grid of a 3D NIfTI file.

    Raises:
        DataError: see `open_image` and `voxels`; or its voxels are colours or complex.
        GeometryError: it is not 3D.
    """
    image = open_image(path)
    grid = Grid.of_nifti(image)
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        found = "colours (RGB)" if kind.names else f"{kind} ones"
        raise DataError(path, "must hold plain numbers as voxels", found, "Give the CT itself, not a picture of it.")
    return voxels(image), grid


def label_dtype(classes: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds that many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def write_label_map(
    path: str | Path,
    label: npt.NDArray[Any],
    source: str | Path | Grid,
    labels: LabelMap,
    only: Sequence[str] | None = None,
) -> Path:
    """Write a label map that lies exactly where `source` lies.

    The geometry (sform, qform and their codes) is the source's; of the rest of its header nothing is kept, for
    it may hold a patient's name. The names of the structures go into a header extension as JSON.

    Args:
        path: a `.nii.gz` or `.nii` file.
        label: indices of `labels`, `(I, J, K)` in the voxel order of `source`.
        source: the NIfTI file whose geometry it has, or a grid.
        labels: what the indices mean.
        only: the structures that were looked for, where it was not all; written beside the names.

    Raises:
        GeometryError: shape or, after writing, affine differ from the source's; nothing is left behind.
        LabelError: an index that `labels` does not hold.
        OutputError: the place cannot be written.
    """
    grid = source if isinstance(source, Grid) else read_grid(source)
    if label.shape != grid.shape:
        raise GeometryError(path, f"must have the shape of {source}, {grid.shape}", f"shape {label.shape}")
    if label.size and int(label.max()) >= len(labels):
        raise LabelError(path, f"must hold labels up to {len(labels) - 1}", f"label {int(label.max())}")
    names: dict[str, Any] = {"labels": labels.to_dict()}
    if only is not None:
        names["only"] = list(only)
    comment = json.dumps(names, separators=(",", ":"))
    write_like(path, label.astype(label_dtype(len(labels)), copy=False), source, comment=comment)
    return Path(path)


def write_like(
    path: str | Path, array: npt.NDArray[Any], source: str | Path | Grid, comment: str | None = None
) -> None:
    """Write voxels with the geometry of `source` and nothing else of its header; whole or not at all.

    Where `source` is a grid, it goes into sform and qform both, as that of a scanner.

    Raises:
        GeometryError: what was written does not lie where `source` lies.
        OutputError: the place cannot be written.
    """
    if isinstance(source, Grid):
        image, grid = nib.Nifti1Image(array, source.affine), source
        image.header.set_xyzt_units("mm")
        image.set_sform(source.affine, 1)
        image.set_qform(source.affine, 1)
    else:
        reference = open_image(source)
        image, grid = _image_like(reference, array), Grid.of_nifti(reference)
    if comment is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, comment.encode()))
    with atomic_path(path) as partial:
        nib.save(image, partial)
        grid.require(read_grid(partial), path, "its grid" if isinstance(source, Grid) else source)


def write_volume(path: str | Path, array: npt.NDArray[Any], grid: Grid) -> Path:
    """Write voxels on a grid of their own, `(I, J, K)`; whole or not at all.

    Raises:
        GeometryError: the array does not have the grid's shape.
        OutputError: the place cannot be written.
    """
    if array.shape != grid.shape:
        raise GeometryError(path, f"must have the shape of its grid, {grid.shape}", f"shape {array.shape}")
    image = nib.Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as partial:
        nib.save(image, partial)
        grid.require(read_grid(partial), path, "its grid")
    return Path(path)


def _image_like(reference: Any, array: npt.NDArray[Any]) -> Any:
    kind = nib.Nifti2Image if isinstance(reference.header, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class()
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
        return kind(array, reference.affine, header)  # neither is set: nibabel's own default must be spelled out
    return kind(array, None, header)


def read_label_names(file: Any) -> LabelMap | None:
    """Return the names in the header of a label map, a file or a nibabel image, as `write_label_map` puts them there.

    None if it has none.
    """
    content = _comment(file)
    return LabelMap.from_dict(content["labels"], source=file) if "labels" in content else None


def read_looked_for(path: str | Path) -> tuple[str, ...] | None:
    """The structures that a label map was restricted to; None where it was not, or does not say."""
    only = _comment(path).get("only")
    return tuple(str(name) for name in only) if isinstance(only, list) else None


def _comment(file: Any) -> dict[str, Any]:
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
