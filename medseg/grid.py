"""Place the voxel grid of an image in the patient: shape and affine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

TOLERANCE_MM = 1e-3
_ROUNDING_MM = 5e-4  # by which a shear displaces a voxel where an affine was only rounded to single precision
_RESAMPLE = "Resample it onto the image's grid, or leave it out."


@dataclass(frozen=True, eq=False)
class Grid:
    """Place a grid of voxels in the patient's RAS frame.

    Args:
        shape: voxels along each array axis, `(I, J, K)`.
        affine: 4x4, from voxel index to the voxel's center in mm; x grows to the patient's right,
            y to the front, z to the head (RAS+).

    Raises:
        GeometryError: not three positive sizes, or an affine that is not 4x4, finite and invertible.

    Example:
        >>> grid = Grid((10, 20, 30), np.diag([-1.5, -1.5, 3.0, 1.0]))
        >>> grid.spacing, grid.axes
        ((1.5, 1.5, 3.0), 'LPS')
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError("shape", "a grid needs three positive sizes", f"got {tuple(self.shape)}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("affine", "it must be 4x4 and finite", f"got {affine.tolist()}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError("affine", "it must be invertible", f"got {affine.tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Return the distance between neighbors along each array axis, mm."""
        i, j, k = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Return the volume of one voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def axes(self) -> str:
        """Return the direction in which each array axis grows, nearest of R/L, A/P, S/I; 'RAS' for the plain case."""
        # Imported here: pages and tables import this module and read no image.
        from nibabel.orientations import aff2axcodes

        return "".join(code or "?" for code in aff2axcodes(self.affine))  # none for an axis of no direction

    @property
    def shear(self) -> float:
        """Return the largest deviation of two axes from perpendicular, degrees."""
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        cosines = np.abs(unit.T @ unit - np.eye(3)).max()
        return float(np.degrees(np.arcsin(min(1.0, cosines))))

    def upright(self) -> Grid:
        """Return the nearest grid with perpendicular axes: same shape, spacing and center, by polar decomposition.

        Example:
            >>> sheared = Grid((3, 3, 3), np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]))
            >>> round(sheared.shear), round(sheared.upright().shear, 6)
            (11, 0.0)
        """
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        # The orthogonal factor U V^T of U S V^T is the rotation (or reflection) nearest to the three directions.
        left, _, right = np.linalg.svd(self.affine[:3, :3] / steps)
        affine = np.eye(4)
        affine[:3, :3] = (left @ right) * steps
        center = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = self.affine[:3, 3] + (self.affine[:3, :3] - affine[:3, :3]) @ center
        return Grid(self.shape, affine)

    def for_network(self) -> Grid:
        """Return the grid that a network is told: upright if this is sheared by more than rounding, else this."""
        extent = max(step * size for step, size in zip(self.spacing, self.shape, strict=True))
        return self.upright() if np.radians(self.shear) * extent > _ROUNDING_MM else self

    def corners(self) -> npt.NDArray[np.float64]:
        """Return the centers of the eight corner voxels, `(8, 3)`, mm in RAS."""
        index = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))), dtype=np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def distance(self, grid: Grid) -> float:
        """Return the largest distance between corresponding corners, mm; inf if the shapes differ.

        No voxel lies further from its counterpart: between two affines the difference is linear in the index.
        """
        if self.shape != grid.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners() - grid.corners(), axis=1).max())

    def matches(self, grid: Grid, tolerance_mm: float = TOLERANCE_MM) -> bool:
        """Return whether the shapes are equal and no voxel lies more than `tolerance_mm` from its counterpart.

        Example:
            >>> plain = Grid((4, 4, 4), np.eye(4))
            >>> plain.matches(plain), plain.matches(Grid((4, 4, 4), np.diag([-1.0, 1, 1, 1])))
            (True, False)
        """
        return self.distance(grid) <= tolerance_mm

    def require(self, grid: Grid, thing: object, reference: object, tolerance_mm: float = TOLERANCE_MM) -> None:
        """Check that `thing` (whose grid is `grid`) lies on this grid, which is that of `reference`.

        Raises:
            GeometryError: it does not; says by how much.
        """
        if self.shape != grid.shape:
            problem = f"its shape {grid.shape} differs from the shape {self.shape} of {reference}"
            raise GeometryError(thing, problem, "", _RESAMPLE)
        distance = self.distance(grid)
        if distance > tolerance_mm:
            problem = f"it lies up to {distance:.4g} mm from {reference}, more than the {tolerance_mm:g} mm allowed"
            raise GeometryError(thing, problem, "", _RESAMPLE)


def to_ras(volumes: Sequence[npt.NDArray[Any]], grid: Grid) -> tuple[list[npt.NDArray[Any]], Grid]:
    """Transpose and flip volumes so that their axes grow to the right, the front and the head; no resampling.

    Args:
        volumes: `(I, J, K)` each; views of them are returned.
        grid: their grid.

    Example:
        >>> (volume,), ras = to_ras([np.arange(2).reshape(2, 1, 1)], Grid((2, 1, 1), np.diag([-1.0, 1, 1, 1])))
        >>> volume.ravel().tolist(), ras.affine[0].tolist()
        ([1, 0], [1.0, 0.0, 0.0, -1.0])
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(grid.affine)
    turned = [apply_orientation(volume, orientation) for volume in volumes]
    sizes = [0, 0, 0]
    for axis, (target, _) in enumerate(orientation):
        sizes[int(target)] = grid.shape[axis]
    # Adding 0 turns the -0.0 of the flips into 0.0.
    affine = grid.affine @ inv_ornt_aff(orientation, grid.shape) + 0.0
    return turned, Grid((sizes[0], sizes[1], sizes[2]), affine)
