"""Where an image says its voxels lie, whether that can be so, and whether a mask lies where its image lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.checks.files import Volume
from medseg.errors import GeometryError
from medseg.findings import Finding, error, note, warning
from medseg.grid import TOLERANCE_MM, Grid

ORTHONORMAL = 1e-4  # what ITK's NIfTI reader allows; above it, it refuses the file
SHEAR = 1e-2  # half a degree: no rounding any more
FORMS_MM = 0.05  # sform and qform are single precision; beyond this they are two answers
SPACING_MM = (0.1, 25.0)
EXTENT_MM = (30.0, 2500.0)
_SCALES = {"meter": 1000.0, "micron": 0.001}
Affine = npt.NDArray[np.float64]


def kind_of_voxels(volume: Volume) -> Finding | None:
    """What makes an image no plain 3D volume of real numbers: colours, complex numbers, other dimensions."""
    raw, location = volume.raw, volume.path
    if raw.dtype.fields is not None:
        names = "".join(raw.dtype.fields)
        return error("rgb", location, f"its voxels are colours ({names}), no values", "Find the volume it was made of.")
    if raw.dtype.kind == "c":
        return error("complex", location, "its voxels are complex numbers", "Take the magnitude.")
    if raw.ndim != 3:
        whole = f"it has {raw.ndim} dimensions, {tuple(raw.shape)}"
        if raw.ndim > 3 and all(size == 1 for size in raw.shape[3:]):
            return error("not-3d", location, whole, "Drop the axes of length 1.")
        return error("not-3d", location, whole, "Give one 3D volume a file.")
    return None


def affines(header: Any) -> tuple[Affine | None, Affine | None]:
    """The affines that sform and qform give, RAS in mm; None for one that is not set.

    Raises:
        GeometryError: a quaternion that is no rotation.
    """
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    if int(header["qform_code"]) <= 0:
        return sform, None
    try:
        return sform, header.get_qform()
    except Exception as fault:  # nibabel: quaternion too long, or a spacing below zero
        raise GeometryError("qform", "must be a rotation", str(fault)) from fault


def grid_of(volume: Volume) -> Grid | Finding:
    """The grid of a 3D volume, by sform, else qform, else what nibabel assumes; or why it has none."""
    try:
        sform, qform = affines(volume.header)
        affine = sform if sform is not None else qform if qform is not None else volume.header.get_base_affine()
        return Grid(volume.raw.shape, affine)
    except GeometryError as fault:
        what = fault.thing.rpartition(" ")[2]
        return error("affine-impossible", volume.path, f"its {what} {fault.problem}", "Convert it from its source.")


def examine(volume: Volume, grid: Grid) -> list[Finding]:
    """What is wrong, or worth knowing, about the geometry of one image."""
    location, found = volume.path, []
    sform, qform = affines(volume.header)
    if sform is None and qform is None:
        found.append(
            error(
                "no-geometry",
                location,
                "neither sform nor qform is set: nobody knows which side is left",
                "Convert it from its source, and keep the orientation.",
            )
        )
        return found + spacing(grid, volume)
    if sform is not None and qform is not None:
        apart = grid.distance(Grid(grid.shape, qform)) if abs(np.linalg.det(qform[:3, :3])) > 1e-12 else np.inf
        if apart > FORMS_MM:
            report = error if apart > min(grid.spacing) / 2 else warning
            found.append(
                report(
                    "sform-qform",
                    location,
                    f"sform and qform put it in two places, corners up to {apart:.4g} mm apart",
                    "Decide which is right and write it into both: some readers take one, some the other.",
                )
            )
    return found + axes(grid, location) + spacing(grid, volume)


def axes(grid: Grid, location: object) -> list[Finding]:
    """Axes that are not perpendicular, not along the body, or left-handed."""
    found = []
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    angle = grid.shear
    off = float(np.sin(np.radians(angle)))
    if off > ORTHONORMAL:
        found.append(
            error(
                "shear",
                location,
                f"its axes are sheared: {angle:.2f} degrees from perpendicular",
                "Resample it onto a grid with perpendicular axes, masks together with it.",
            )
            if off > SHEAR
            else warning(
                "axes-not-orthonormal",
                location,
                f"its axes are {angle:.3f} degrees from perpendicular; ITK and SimpleITK refuse to read it",
                "Write it again with the nearest rotation.",
            )
        )
    if np.linalg.det(directions) < 0:
        found.append(
            note(
                "axes-left-handed",
                location,
                f"its axes run {grid.axes}, a left-handed system; what ignores the affine shows it mirrored",
            )
        )
    tilt = float(np.degrees(np.arccos(min(1.0, np.abs(directions).max(axis=0).min()))))
    if tilt > 1.0:
        found.append(
            note("axes-oblique", location, f"its axes are up to {tilt:.1f} degrees off the body's ({grid.axes})")
        )
    return found


def spacing(grid: Grid, volume: Volume) -> list[Finding]:
    """Spacings and extents that no scan of a patient has, and a header that contradicts itself."""
    found = []
    steps, location = grid.spacing, volume.path
    printable = " x ".join(f"{step:.4g}" for step in steps)
    extent = [step * size for step, size in zip(steps, grid.shape, strict=True)]
    unit = volume.header.get_xyzt_units()[0]
    low, high = SPACING_MM
    if min(steps) < low or max(steps) > high or not EXTENT_MM[0] <= max(extent) <= EXTENT_MM[1]:
        size = " x ".join(f"{length:.4g}" for length in extent)
        found.append(
            warning(
                "spacing-suspicious",
                location,
                f"a voxel measures {printable} mm and the volume {size} mm",
                "Compare with the source; a spacing in cm or m, or one that was lost, looks like this.",
            )
        )
    elif unit in _SCALES:
        found.append(
            warning(
                "spacing-unit",
                location,
                f"its header counts in {unit}s, while {printable} is read as mm",
                "Write it again in mm.",
            )
        )
    told = np.abs(np.asarray(volume.header["pixdim"][1:4], dtype=np.float64))
    if np.abs(told - steps).max() > 1e-3 * max(steps):
        said = " x ".join(f"{step:.4g}" for step in told)
        found.append(
            warning(
                "spacing-contradicts",
                location,
                f"the affine gives voxels of {printable} mm, the header's pixdim {said} mm",
                "Write it again from its source; tools take one or the other.",
            )
        )
    return found


def compare(mask: Grid, image: Grid, location: object, what: str = "mask") -> Finding | None:
    """Whether a mask lies where its image lies; else how far from it.

    Args:
        mask: its grid.
        image: the image's.
        location: the mask's file.
        what: `mask` or `label`, the first word of the code.
    """
    if mask.shape != image.shape:
        return error(
            f"{what}-shape",
            location,
            f"its shape is {mask.shape}, the image's {image.shape}",
            "Resample it onto the image's grid, or take it out.",
        )
    apart = image.distance(mask)
    if apart <= TOLERANCE_MM:
        return None
    turned = "" if mask.axes == image.axes else f"; its axes run {mask.axes}, the image's {image.axes}"
    return error(
        f"{what}-affine",
        location,
        f"it lies elsewhere than its image, corners up to {apart:.4g} mm apart{turned}",
        "Resample it onto the image's grid, or take it out.",
    )
