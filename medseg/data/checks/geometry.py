"""Check the geometry of a volume by its grid, whatever its format, and the position of a mask relative to its image."""

from __future__ import annotations

import numpy as np

from medseg.data.scan_rules import finding
from medseg.findings import Finding, error
from medseg.grid import TOLERANCE_MM, Grid

ORTHONORMAL = 1e-4  # what ITK's NIfTI reader allows; above it, it refuses the file
SHEAR = 1e-2  # half a degree: more than rounding
BODY_MM = (0.05, 20.0)  # spacings beyond are none of a body
SMALL_MM = 0.1
EXTENT_MM = (30.0, 2500.0)
ORIGIN_MM = 10_000.0


def check_grid(grid: Grid, location: object) -> list[Finding]:
    """Report axes, spacings and extents that no scan of a patient has, or that are worth knowing."""
    return check_axes(grid, location) + check_spacing(grid, location)


def check_axes(grid: Grid, location: object) -> list[Finding]:
    """Report axes that are not perpendicular, not along the body, or left-handed."""
    findings = []
    angle = grid.shear
    sine = float(np.sin(np.radians(angle)))
    if sine > SHEAR:
        message = f"its axes are sheared, {angle:.2f} degrees from perpendicular"
        findings.append(finding("shear", location, message))
    elif sine > ORTHONORMAL:
        message = f"its axes are {angle:.3f} degrees from perpendicular; ITK and SimpleITK refuse to read it"
        findings.append(finding("axes-not-orthonormal", location, message))
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if np.linalg.det(directions) < 0:
        message = f"its axes are {grid.axes}, a left-handed system; software that ignores the affine shows it mirrored"
        findings.append(finding("axes-left-handed", location, message))
    # The largest component of each direction is the cosine to the nearest axis of the body.
    tilt = float(np.degrees(np.arccos(min(1.0, np.abs(directions).max(axis=0).min()))))
    if tilt > 1.0:
        message = f"its axes are up to {tilt:.1f} degrees off those of the body ({grid.axes})"
        findings.append(finding("axes-oblique", location, message))
    return findings


def check_spacing(grid: Grid, location: object) -> list[Finding]:
    """Report spacings, extents and origins that no scan of a patient has."""
    findings, steps = [], grid.spacing
    extent = [step * size for step, size in zip(steps, grid.shape, strict=True)]
    voxel, size = (" x ".join(f"{length:.4g}" for length in lengths) for lengths in (steps, extent))
    message = f"a voxel measures {voxel} mm and the volume {size} mm"
    if min(steps) < BODY_MM[0] or max(steps) > BODY_MM[1]:
        findings.append(finding("spacing-beyond-body", location, message))
    elif min(steps) < SMALL_MM or not EXTENT_MM[0] <= max(extent) <= EXTENT_MM[1]:
        findings.append(finding("spacing-suspicious", location, message))
    distance = float(np.linalg.norm(grid.corners(), axis=1).max())
    if distance > ORIGIN_MM:
        message = f"it lies up to {distance / 1000:.4g} m from the origin of its coordinates"
        findings.append(finding("origin-beyond-body", location, message))
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
