"""NIfTI files with odd headers, made byte by byte: nibabel would correct most of them while writing."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import itk
import nibabel as nib
import numpy as np

SHAPE = (40, 36, 6)
LPS = np.array([[-2.5, 0, 0, 50], [0, -2.5, 0, 60], [0, 0, 6, 70], [0, 0, 0, 1]])
RAS = np.array([[2.5, 0, 0, -47.5], [0, 2.5, 0, -27.5], [0, 0, 6, 70], [0, 0, 0, 1]])  # LPS turned by 180 degrees
MIRRORED = np.diag([-1.0, 1, 1, 1]) @ LPS
MOVED = LPS + np.outer([0, 0, 1, 0], [0, 0, 0, 1.5])
COSINES = np.array([[2.4995, 0.0438, 0, -50], [-0.0437, 2.4996, 0, -60], [0, 0, 6, 7], [0, 0, 0, 1]])


def sheared(degrees: float) -> np.ndarray:
    affine = LPS.copy()
    affine[0, 1] = 2.5 * np.tan(np.radians(degrees))
    return affine


@dataclass
class Odd:
    """A header: what is odd about it, and the rule that it breaks."""

    code: str | None = None
    sform: np.ndarray | None = None
    qform: np.ndarray | None = None
    codes: tuple[int, int] = (1, 0)  # of sform and qform
    shape: tuple[int, ...] = SHAPE
    change: Callable[[nib.Nifti1Header], None] = field(default=lambda header: None)
    factor: float = 1.0  # from the affine as nibabel reads it to mm


def pixdim(*spacing: float) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        header["pixdim"][1:4] = spacing

    return change


def put(**fields: object) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        for key, value in fields.items():
            header[key] = value

    return change


SOUND = {
    "both": Odd(None, LPS, LPS, (1, 1)),
    "sform": Odd(None, LPS),
    "qform": Odd(None, None, LPS, (0, 1)),
    "sform_2_qform_1": Odd(None, LPS, LPS, (2, 1)),
    "no_unit": Odd(None, LPS, change=put(xyzt_units=0)),
    "with_time_unit": Odd(None, LPS, change=put(xyzt_units=10)),
    "with_a_time_unit_that_does_not_exist": Odd(None, LPS, change=put(xyzt_units=2 | 56)),
    "pixdim_4_digits": Odd(None, RAS, LPS, (1, 0), change=pixdim(2.5001, 2.4999, 6)),
    "pixdim_rounded_both": Odd(None, LPS, LPS, (1, 1), change=pixdim(2.5003, 2.5003, 6)),
    "qfac_0": Odd(None, None, LPS, (0, 1), change=lambda header: header["pixdim"].__setitem__(0, 0)),
    "last_axis_of_one": Odd(None, LPS, shape=(*SHAPE, 1)),
    "two_last_axes_of_one": Odd(None, LPS, LPS, (1, 1), shape=(*SHAPE, 1, 1)),
    "label_intent": Odd(None, LPS, change=put(intent_code=1002)),
    "oblique_4_digits": Odd(None, COSINES, change=pixdim(2.5, 2.5, 6)),
}  # fmt: skip
WARNINGS = {
    "pixdim_1": Odd("spacing-contradicts", LPS, change=pixdim(1, 1, 1)),
    "pixdim_1_and_a_turned_qform_without_code": Odd("spacing-contradicts", LPS, RAS, (1, 0), change=pixdim(1, 1, 1)),
    "pixdim_swapped": Odd("spacing-contradicts", LPS, change=pixdim(6, 2.5, 2.5)),
    "meters": Odd("spacing-unit", np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS, change=put(xyzt_units=1), factor=1e3),
    "microns": Odd("spacing-unit", np.diag([1e3, 1e3, 1e3, 1]) @ LPS, change=put(xyzt_units=3), factor=1e-3),
    "meters_by_qform": Odd(
        "spacing-unit", None, np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS, (0, 1), change=put(xyzt_units=1 | 8), factor=1e3
    ),
    "unit_7": Odd("unit-unknown", LPS, change=put(xyzt_units=7)),
    "unit_4": Odd("unit-unknown", LPS, change=put(xyzt_units=4)),
    "unit_255": Odd("unit-unknown", LPS, change=put(xyzt_units=255)),
    "vox_offset_0": Odd("vox-offset", LPS, change=put(vox_offset=0)),
    "vox_offset_0_both": Odd("vox-offset", LPS, LPS, (1, 1), change=put(vox_offset=0)),
    "forms_a_millimeter_apart": Odd("sform-qform-close", LPS, LPS + np.outer([1, 0, 0, 0], [0, 0, 0, 1]), (1, 1)),
    "t_statistics": Odd("intent", LPS, change=put(intent_code=3)),
    "vectors": Odd("intent", LPS, change=put(intent_code=1007)),
    "shear_of_a_fifth_degree": Odd("axes-not-orthonormal", sheared(0.2)),
    "small_voxels": Odd("spacing-suspicious", np.diag([0.03, 0.03, 0.1, 1]) @ LPS),
}
ERRORS = {
    "no_forms": Odd("no-geometry", LPS, LPS, (0, 0)),
    "no_forms_nor_numbers": Odd("no-geometry", None, None, (0, 0), change=pixdim(2.5, 2.5, 6)),
    "turned_forms": Odd("sform-qform", LPS, RAS, (1, 1)),
    "mirrored_forms": Odd("sform-qform", LPS, MIRRORED, (2, 1)),
    "mirrored_forms_and_rounded_pixdim": Odd("sform-qform", LPS, MIRRORED, (1, 2), change=pixdim(2.5, 2.5, 6.01)),
    "forms_half_a_slice_apart": Odd("sform-qform", LPS, MOVED, (2, 1)),
    "qform_no_rotation": Odd("sform-qform", LPS, LPS, (1, 1), change=put(quatern_b=5)),
    "pixdim_negative_qform": Odd("pixdim-negative", None, LPS, (0, 1), change=pixdim(2.5, 2.5, -6)),
    "pixdim_negative_sform": Odd("pixdim-negative", LPS, change=pixdim(-2.5, 2.5, 6)),
    "pixdim_negative_both": Odd("pixdim-negative", LPS, LPS, (2, 1), change=pixdim(-2.5, -2.5, 6)),
    "shear_1_degree": Odd("shear", sheared(1)),
    "shear_20_degrees": Odd("shear", sheared(20)),
    "shear_and_pixdim_1": Odd("shear", sheared(5), change=pixdim(1, 1, 1)),
    "spacing_30_mm": Odd("spacing-beyond-body", np.diag([1, 1, 5, 1]) @ LPS),
    "spacing_in_meters_without_unit": Odd("spacing-beyond-body", np.diag([1e-3, 1e-3, 1e-3, 1]) @ LPS),
    "origin_20_m_away": Odd("origin-beyond-body", LPS + np.outer([0, 2e4, 0, 0], [0, 0, 0, 1])),
    "origin_in_microns": Odd("origin-beyond-body", None, LPS + np.outer([5e4, 6e4, 7e4, 0], [0, 0, 0, 1]), (0, 1)),
}  # fmt: skip
NEVER = {
    "pixdim_0": Odd("pixdim-zero", LPS, LPS, (1, 1), change=pixdim(2.5, 2.5, 0)),
    "pixdim_0_qform": Odd("pixdim-zero", None, LPS, (0, 1), change=pixdim(0, 2.5, 6)),
    "pixdim_0_no_forms": Odd("pixdim-zero", None, None, (0, 0), change=pixdim(0, 0, 0)),
    "pixdim_nan": Odd("pixdim-zero", LPS, change=pixdim(2.5, np.nan, 6)),
    "pixdim_inf": Odd("pixdim-zero", LPS, change=pixdim(2.5, 2.5, np.inf)),
    "nan_in_sform": Odd("affine-impossible", LPS, change=put(srow_x=[np.nan, 0, 0, 1])),
    "inf_in_sform": Odd("affine-impossible", LPS, change=put(srow_z=[0, 0, 6, np.inf])),
    "flat_sform": Odd("affine-impossible", LPS, change=put(srow_z=[0, 0, 0, 1])),
    "nan_in_qform": Odd("affine-impossible", None, LPS, (0, 1), change=put(qoffset_x=np.nan)),
    "qform_alone_no_rotation": Odd("affine-impossible", None, LPS, (0, 1), change=put(quatern_c=-3)),
    "qfac_minus_3": Odd("affine-impossible", None, LPS, (0, 1), change=lambda h: h["pixdim"].__setitem__(0, -3)),
    "sform_code_99": Odd("affine-impossible", LPS, change=put(sform_code=99)),
    "qform_code_negative": Odd("affine-impossible", LPS, change=put(qform_code=-1)),
    "vox_offset_100": Odd("file-header", LPS, change=put(vox_offset=100)),
    "vox_offset_nan": Odd("file-header", LPS, change=put(vox_offset=np.nan)),
    "vox_offset_beyond_the_file": Odd("file-truncated", LPS, change=put(vox_offset=1e9)),
    "four_dimensions": Odd("not-3d", LPS, shape=(*SHAPE, 2)),
    "a_fifth_dimension": Odd("not-3d", LPS, shape=(*SHAPE, 1, 3)),
    "two_dimensions": Odd("not-3d", LPS, shape=(40, 36)),
    "a_dimension_of_0": Odd("file-header", LPS, change=lambda header: header["dim"].__setitem__(3, 0)),
    "slope_inf": Odd("file-header", LPS, change=put(scl_slope=np.inf)),
    "magic_of_a_pair": Odd("file-pair", LPS, change=put(magic=b"ni1")),
}


def write_odd(path: Path, odd: Odd, voxels: np.ndarray | None = None) -> Path:
    """Write a file with an odd header, compressed if the name ends so."""
    if voxels is None:
        voxels = np.random.default_rng(0).integers(-100, 200, odd.shape).astype(np.int16)
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(odd.shape)
    header.set_xyzt_units("mm")
    if odd.qform is not None:
        header.set_qform(odd.qform, 1)
    if odd.sform is not None:
        header.set_sform(odd.sform, 1)
        header["pixdim"][1:4] = np.linalg.norm(odd.sform[:3, :3], axis=0)
    header["sform_code"], header["qform_code"] = odd.codes
    header["vox_offset"], header["magic"] = 352, b"n+1"
    odd.change(header)
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


def itk_grid(path: Path) -> np.ndarray:
    """The size of a file, and direction, spacing and origin of its first three axes, as ITK reads its header."""
    reader = itk.NiftiImageIO.New()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    count = reader.GetNumberOfDimensions()
    rows = [[*reader.GetDirection(i)][:3] for i in range(3)]
    return np.array([*rows, *([getattr(reader, name)(i) for i in range(3)] for name in ("GetSpacing", "GetOrigin"))]), [
        reader.GetDimensions(i) for i in range(count)
    ]
