"""Check the geometry of an image: affine, spacing, axes, and the position of a mask relative to its image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.checks.files import Volume
from medseg.errors import GeometryError
from medseg.findings import Finding, error, note, warning
from medseg.grid import TOLERANCE_MM, Grid

ORTHONORMAL = 1e-4  # what ITK's NIfTI reader allows; above it, it refuses the file
SHEAR = 1e-2  # half a degree: more than rounding
FORMS_MM = 0.05  # sform and qform are single precision; beyond this they are two answers
SPACING_MM = (0.1, 25.0)
EXTENT_MM = (30.0, 2500.0)
_OTHER_UNITS = ("meter", "micron")
Affine = npt.NDArray[np.float64]


def check_voxel_type(volume: Volume) -> Finding | None:
    """Report an image that is no plain 3D volume of real numbers: colors, complex numbers, other dimensions."""
    raw, location = volume.raw, volume.path
    if raw.dtype.fields is not None:
        channels = "".join(raw.dtype.fields)
        return error("rgb", location, f"its voxels are colors ({channels})", "Find the volume it was made of.")
    if raw.dtype.kind == "c":
        return error("complex", location, "its voxels are complex numbers", "Take the magnitude.")
    if raw.ndim != 3:
        single = raw.ndim > 3 and all(size == 1 for size in raw.shape[3:])
        fix = "Drop the axes of length 1." if single else "Save one 3D volume per file."
        return error("not-3d", location, f"it has {raw.ndim} dimensions, {tuple(raw.shape)}", fix)
    return None


def affines(header: Any) -> tuple[Affine | None, Affine | None]:
    """Return the affines of sform and qform, RAS in mm; None for one that is not set.

    Raises:
        GeometryError: the quaternion is no rotation.
    """
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    if int(header["qform_code"]) <= 0:
        return sform, None
    try:
        return sform, header.get_qform()
    except Exception as fault:  # nibabel: quaternion too long, or a spacing below zero
        raise GeometryError("qform", "it is no rotation", str(fault)) from fault


def grid_of(volume: Volume) -> Grid | Finding:
    """Return the grid of a 3D volume, by sform, else qform, else nibabel's default; or why it has none."""
    try:
        sform, qform = affines(volume.header)
        affine = sform if sform is not None else qform if qform is not None else volume.header.get_base_affine()
        return Grid(volume.raw.shape, affine)
    except GeometryError as fault:
        message = f"its {fault.thing} cannot be used: {fault.problem}"
        return error("affine-impossible", volume.path, message, "Convert it again from its source.")


def check_geometry(volume: Volume, grid: Grid) -> list[Finding]:
    """Report what is wrong, or worth knowing, about the geometry of one image."""
    location = volume.path
    sform, qform = affines(volume.header)
    if sform is None and qform is None:
        message = "neither sform nor qform is set, so that left and right are unknown"
        fix = "Convert it again from its source, and keep the orientation."
        return [error("no-geometry", location, message, fix), *check_spacing(grid, volume)]
    findings = []
    if sform is not None and qform is not None:
        invertible = abs(np.linalg.det(qform[:3, :3])) > 1e-12
        distance = grid.distance(Grid(grid.shape, qform)) if invertible else np.inf
        if distance > FORMS_MM:
            report = error if distance > min(grid.spacing) / 2 else warning
            message = f"sform and qform differ, corners lie up to {distance:.4g} mm apart"
            fix = "Decide which is right and write it into both: some readers take one, some the other."
            findings.append(report("sform-qform", location, message, fix))
    return findings + check_axes(grid, location) + check_spacing(grid, volume)


def check_axes(grid: Grid, location: object) -> list[Finding]:
    """Report axes that are not perpendicular, not along the body, or left-handed."""
    findings = []
    angle = grid.shear
    sine = float(np.sin(np.radians(angle)))
    if sine > SHEAR:
        message = f"its axes are sheared, {angle:.2f} degrees from perpendicular"
        fix = "Resample it onto a grid with perpendicular axes, masks together with it."
        findings.append(error("shear", location, message, fix))
    elif sine > ORTHONORMAL:
        message = f"its axes are {angle:.3f} degrees from perpendicular; ITK and SimpleITK refuse to read it"
        fix = "Write it again with the nearest rotation."
        findings.append(warning("axes-not-orthonormal", location, message, fix))
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if np.linalg.det(directions) < 0:
        message = f"its axes are {grid.axes}, a left-handed system; software that ignores the affine shows it mirrored"
        findings.append(note("axes-left-handed", location, message))
    # The largest component of each direction is the cosine to the nearest axis of the body.
    tilt = float(np.degrees(np.arccos(min(1.0, np.abs(directions).max(axis=0).min()))))
    if tilt > 1.0:
        message = f"its axes are up to {tilt:.1f} degrees off those of the body ({grid.axes})"
        findings.append(note("axes-oblique", location, message))
    return findings


def check_spacing(grid: Grid, volume: Volume) -> list[Finding]:
    """Report spacings and extents that no scan of a patient has, and a header that contradicts itself."""
    findings = []
    steps, location = grid.spacing, volume.path
    voxel = " x ".join(f"{step:.4g}" for step in steps)
    extent = [step * size for step, size in zip(steps, grid.shape, strict=True)]
    unit = volume.header.get_xyzt_units()[0]
    low, high = SPACING_MM
    if min(steps) < low or max(steps) > high or not EXTENT_MM[0] <= max(extent) <= EXTENT_MM[1]:
        size = " x ".join(f"{length:.4g}" for length in extent)
        message = f"a voxel measures {voxel} mm and the volume {size} mm"
        fix = "Compare with the source; a spacing in cm or m, or one that was lost, looks like this."
        findings.append(warning("spacing-suspicious", location, message, fix))
    elif unit in _OTHER_UNITS:
        message = f"its header gives lengths in {unit}s, so that its spacing {voxel} is not in mm"
        findings.append(error("spacing-unit", location, message, "Write it again in mm."))
    pixdim = np.abs(np.asarray(volume.header["pixdim"][1:4], dtype=np.float64))
    if np.abs(pixdim - steps).max() > 1e-3 * max(steps):
        header = " x ".join(f"{step:.4g}" for step in pixdim)
        message = f"the affine gives voxels of {voxel} mm, the header's pixdim {header} mm"
        fix = "Write it again from its source; software takes one or the other."
        findings.append(warning("spacing-contradicts", location, message, fix))
    return findings


def compare_grids(mask: Grid, image: Grid, location: object, kind: str = "mask") -> Finding | None:
    """Report a mask that does not lie on its image's grid, and by how much.

    Args:
        mask: its grid.
        image: the image's.
        location: the mask's file.
        kind: `mask` or `label`, the first word of the code.
    """
    fix = "Resample it onto the image's grid, or leave it out."
    if mask.shape != image.shape:
        return error(f"{kind}-shape", location, f"its shape is {mask.shape}, the image's {image.shape}", fix)
    distance = image.distance(mask)
    if distance <= TOLERANCE_MM:
        return None
    axes = "" if mask.axes == image.axes else f"; its axes are {mask.axes}, the image's {image.axes}"
    message = f"it does not lie on its image, corners lie up to {distance:.4g} mm apart{axes}"
    return error(f"{kind}-affine", location, message, fix)
