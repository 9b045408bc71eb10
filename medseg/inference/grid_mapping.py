"""Map the voxels of an output grid to the network's grid, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from medseg.errors import GeometryError
from medseg.inference.kernels import AxisMap

_TOLERANCE = 1e-3  # voxels


@dataclass(frozen=True)
class OutputGridMap:
    """Where the voxels of an output grid lie in the network's grid.

    Args:
        shape: of the output.
        order: for each axis of the network's grid the output axis that runs along it.
        axes: for each axis of the network's grid, where the output's voxels lie on it.
        affine: of the output, 4x4; None where it is not known.
    """

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    axes: tuple[AxisMap, AxisMap, AxisMap]
    affine: npt.NDArray[np.float64] | None = None

    @classmethod
    def identity(cls, shape: Sequence[int]) -> OutputGridMap:
        """Return the map of an output on the network's own grid."""
        i, j, k = (axis_map(np.arange(size, dtype=np.float64), size) for size in shape)
        return cls((int(shape[0]), int(shape[1]), int(shape[2])), (0, 1, 2), (i, j, k))

    @classmethod
    def to_source(cls, image: MetaTensor) -> OutputGridMap:
        """Return the map of an output on the grid that the image was read on.

        Args:
            image: `(C, I, J, K)` or `(1, C, I, J, K)`, as MONAI's transforms return it.

        Raises:
            GeometryError: the image has no source grid in its metadata, or was rotated by other than right angles.
        """
        meta: dict[str, Any] = image.meta
        if "original_affine" not in meta or "spatial_shape" not in meta:
            raise GeometryError(
                "output_grid='source'",
                "the image's metadata does not say on which grid it was read",
                fix="Load it with LoadImaged, or use output_grid='network'.",
            )
        source = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
        affine = np.asarray(image.affine, dtype=np.float64).reshape(4, 4)
        shape = tuple(int(size) for size in np.asarray(meta["spatial_shape"]).ravel())
        return cls.between(shape, source, image.shape[-3:], affine, meta.get("filename_or_obj", "the scan"))

    @classmethod
    def between(
        cls,
        shape: Sequence[int],
        affine: npt.NDArray[Any],
        network_shape: Sequence[int],
        network_affine: npt.NDArray[Any],
        name: object = "the scan",
    ) -> OutputGridMap:
        """Return the map of an output grid to a network grid, each given by shape and affine.

        Args:
            shape: of the output.
            affine: of the output, 4x4, mm.
            network_shape: of the network's grid.
            network_affine: of the network's grid, 4x4, mm.
            name: of the scan, for the error.

        Raises:
            GeometryError: the grids are rotated against each other by other than right angles, or sheared.
        """
        to_network = np.linalg.inv(network_affine) @ affine
        # How many network voxels each output axis spans along each network axis: only one entry a row may count.
        reach = np.abs(to_network[:3, :3]) * (np.maximum(np.array(shape), 2) - 1)
        order = [int(column) for column in np.argmax(np.abs(to_network[:3, :3]), axis=1)]
        off_axis = reach.copy()
        off_axis[range(3), order] = 0
        if sorted(order) != [0, 1, 2] or off_axis.max() > _TOLERANCE * max(1.0, float(max(network_shape)) / 100):
            raise GeometryError(
                name,
                "its axes are not at right angles, or not along those of the network's grid",
                f"voxels leave their axis by up to {off_axis.max():.3g}",
                "Resample it onto a grid without shear first, or ignore the shear: medseg predict --accept shear.",
            )
        i, j, k = (
            axis_map(to_network[axis, order[axis]] * np.arange(shape[order[axis]]) + to_network[axis, 3], size)
            for axis, size in enumerate(network_shape)
        )
        return cls(
            (int(shape[0]), int(shape[1]), int(shape[2])), (order[0], order[1], order[2]), (i, j, k), np.asarray(affine)
        )


def axis_map(positions: npt.NDArray[np.float64], size: int) -> AxisMap:
    """Return the map of an output axis whose voxels lie at `positions` on an input axis of `size` voxels.

    Up to half a voxel beyond the ends the last voxel is repeated, as in MONAI's resampling; further out the scan
    was cropped, and the output is background.
    """
    # Affines carry rounding errors: a voxel that should coincide with an input voxel must not be interpolated.
    rounded = np.round(positions)
    positions = np.where(np.abs(positions - rounded) < 1e-5, rounded, positions)
    inside = (positions > -0.5 - _TOLERANCE) & (positions < size - 0.5 + _TOLERANCE)
    clipped = np.clip(positions, 0, size - 1)
    low = np.minimum(np.floor(clipped), max(size - 2, 0)).astype(np.int64)
    fraction = (clipped - low).astype(np.float32)
    is_last = fraction >= 1  # the last voxel itself has none above
    return AxisMap(np.where(is_last, low + 1, low), np.where(is_last, np.float32(0), fraction), inside)
