"""Where the voxels of an image lie in the patient: shape and affine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of voxels in the patient's RAS frame.

    Args:
        shape: voxels along each array axis, `(I, J, K)`.
        affine: 4x4, from voxel index to the voxel's centre in mm; x grows to the patient's right,
            y to the front, z to the head (RAS+).

    Raises:
        GeometryError: not three positive sizes, or an affine that is not 4x4, finite and invertible.

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
            raise GeometryError("A grid's shape", "needs three positive sizes", str(tuple(self.shape)))
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("A grid's affine", "must be 4x4 and finite", str(affine.tolist()))
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError("A grid's affine", "must be invertible", str(affine.tolist()))
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of_nifti(cls, image: Any) -> Grid:
        """The grid of a nibabel image, from its header alone.

        Raises:
            GeometryError: the image is not 3D.
        """
        if len(image.shape) != 3:
            name = image.get_filename() or "image"
            raise GeometryError(name, "must be a 3D volume", f"shape {image.shape}", "Give one volume a file.")
        return cls(image.shape, image.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbours along each array axis, mm."""
        i, j, k = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def axes(self) -> str:
        """The direction in which each array axis grows, nearest of R/L, A/P, S/I; 'RAS' for the plain case."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        best = max(
            itertools.permutations(range(3)), key=lambda order: sum(abs(directions[order[i], i]) for i in range(3))
        )
        letters = ("LR", "PA", "IS")
        return "".join(letters[best[i]][int(directions[best[i], i] > 0)] for i in range(3))

    @property
    def shear(self) -> float:
        """By how much the axes miss being perpendicular, degrees, at the worst pair."""
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        cosines = np.abs(unit.T @ unit - np.eye(3)).max()
        return float(np.degrees(np.arcsin(min(1.0, cosines))))

    def upright(self) -> Grid:
        """The nearest grid with perpendicular axes: same shape, spacing and centre, directions by polar decomposition.

        >>> sheared = Grid((3, 3, 3), np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]))
        >>> round(sheared.shear), round(sheared.upright().shear, 6)
        (11, 0.0)
        """
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        left, _, right = np.linalg.svd(self.affine[:3, :3] / steps)
        affine = np.eye(4)
        affine[:3, :3] = (left @ right) * steps
        middle = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = self.affine[:3, 3] + (self.affine[:3, :3] - affine[:3, :3]) @ middle
        return Grid(self.shape, affine)

    def corners(self) -> npt.NDArray[np.float64]:
        """The centres of the eight corner voxels, `(8, 3)`, mm in RAS."""
        index = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))), dtype=np.float64)
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def distance(self, other: Grid) -> float:
        """How far apart the two grids lie: the largest distance between like corners, mm; inf if shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def matches(self, other: Grid, tolerance_mm: float = TOLERANCE_MM) -> bool:
        """Whether both have the same shape and no voxel lies more than `tolerance_mm` from its contralateral.

        >>> plain = Grid((4, 4, 4), np.eye(4))
        >>> plain.matches(plain), plain.matches(Grid((4, 4, 4), np.diag([-1.0, 1, 1, 1])))
        (True, False)
        """
        return self.distance(other) <= tolerance_mm

    def require(self, other: Grid, thing: object, reference: object, tolerance_mm: float = TOLERANCE_MM) -> None:
        """See that `thing` (whose grid is `other`) lies on this grid, which is that of `reference`.

        Raises:
            GeometryError: it does not; says by how much.
        """
        if self.shape != other.shape:
            raise GeometryError(
                thing,
                f"must have the shape of {reference}, {self.shape}",
                f"shape {other.shape}",
                "Resample it onto the image's grid, or take it out.",
            )
        apart = self.distance(other)
        if apart > tolerance_mm:
            raise GeometryError(
                thing,
                f"must lie where {reference} lies (affines equal to {tolerance_mm:g} mm)",
                f"corners up to {apart:.4g} mm apart",
                "Resample it onto the image's grid, or take it out.",
            )


def to_ras(volumes: Sequence[npt.NDArray[Any]], grid: Grid) -> tuple[list[npt.NDArray[Any]], Grid]:
    """Turn and flip volumes so that their axes grow to the right, the front and the head; no resampling.

    Args:
        volumes: `(I, J, K)` each; views of them come out.
        grid: where they lie.

    >>> (volume,), turned = to_ras([np.arange(2).reshape(2, 1, 1)], Grid((2, 1, 1), np.diag([-1.0, 1, 1, 1])))
    >>> volume.ravel().tolist(), turned.affine[0].tolist()
    ([1, 0], [1.0, 0.0, 0.0, -1.0])
    """
    axes, letters = grid.axes, ("LR", "PA", "IS")
    order = [next(i for i, letter in enumerate(axes) if letter in pair) for pair in letters]
    signs = [1 if axes[i] in "RAS" else -1 for i in order]
    flips = tuple(slice(None, None, sign) for sign in signs)
    turned = [np.transpose(volume, order)[flips] for volume in volumes]
    shape = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    back = np.zeros((4, 4))  # from an index that was turned to the index it had
    back[3, 3] = 1.0
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        back[old, new] = sign
        back[old, 3] = 0 if sign > 0 else grid.shape[old] - 1
    return turned, Grid(shape, grid.affine @ back)
