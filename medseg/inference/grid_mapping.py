"""The way from the network's grid back to the one the scan came on, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from medseg.errors import GeometryError
from medseg.inference.kernels import Axis

_TOLERANCE = 1e-3  # voxels


@dataclass(frozen=True)
class OutputGridMap:
    """Where the voxels of an output grid lie in the network's.

    Args:
        shape: of the output.
        order: for each axis of the network's grid the axis of the output that runs along it.
        axes: for each axis of the network's grid, where the output's voxels lie on it.
        affine: of the output, 4x4; None where it is not known.
    """

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    axes: tuple[Axis, Axis, Axis]
    affine: npt.NDArray[np.float64] | None = None

    @classmethod
    def none(cls, shape: Sequence[int]) -> OutputGridMap:
        """The output lies on the network's grid."""
        i, j, k = (axis_at(np.arange(size, dtype=np.float64), size) for size in shape)
        return cls((int(shape[0]), int(shape[1]), int(shape[2])), (0, 1, 2), (i, j, k))

    @classmethod
    def to_source(cls, image: MetaTensor) -> OutputGridMap:
        """The output lies on the grid that the image was read on.

        Args:
            image: `(C, I, J, K)` or `(1, C, I, J, K)`, as MONAI's transforms leave it.

        Raises:
            GeometryError: the image does not say where it comes from, or was turned by other than right angles.
        """
        meta: dict[str, Any] = image.meta
        if "original_affine" not in meta or "spatial_shape" not in meta:
            raise GeometryError(
                "output='source'", "needs an image that says on which grid it was read", "none in its metadata",
                "Load it with LoadImaged, or take output='network'.",
            )  # fmt: skip
        source = np.asarray(meta["original_affine"], dtype=np.float64).reshape(4, 4)
        here = np.asarray(image.affine, dtype=np.float64).reshape(4, 4)
        shape = tuple(int(size) for size in np.asarray(meta["spatial_shape"]).ravel())
        return cls.between(shape, source, image.shape[-3:], here, meta.get("filename_or_obj", "the scan"))

    @classmethod
    def between(
        cls,
        shape: Sequence[int],
        affine: npt.NDArray[Any],
        inner_shape: Sequence[int],
        inner_affine: npt.NDArray[Any],
        name: object = "the scan",
    ) -> OutputGridMap:
        """The output lies on a grid of that shape and affine, the network on another one.

        Raises:
            GeometryError: the two are turned against each other by other than right angles, or sheared.
        """
        there = np.linalg.inv(inner_affine) @ affine
        reach = np.abs(there[:3, :3]) * (np.maximum(np.array(shape), 2) - 1)
        order = [int(one) for one in np.argmax(np.abs(there[:3, :3]), axis=1)]
        rest = reach.copy()
        rest[range(3), order] = 0
        if sorted(order) != [0, 1, 2] or rest.max() > _TOLERANCE * max(1.0, float(max(inner_shape)) / 100):
            raise GeometryError(
                name,
                "must have axes at right angles, along which the network's grid can run",
                f"a sheared affine, by which voxels leave their axis by up to {rest.max():.3g}",
                "Resample it onto a grid without shear first, or go by its voxel axes: medseg predict --allow-shear.",
            )
        axes = [
            axis_at(there[axis, order[axis]] * np.arange(shape[order[axis]]) + there[axis, 3], inner_shape[axis])
            for axis in range(3)
        ]
        (i, j, k), (a, b, c) = shape, order
        return cls((int(i), int(j), int(k)), (a, b, c), (axes[0], axes[1], axes[2]), np.asarray(affine))


def axis_at(where: npt.NDArray[np.float64], size: int) -> Axis:
    """The output's voxels of one axis, from where they lie on an axis of `size` voxels.

    Up to half a voxel beyond the ends the last voxel goes on, as MONAI's resampling has it; further out there
    was a crop, and it is background.
    """
    snapped = np.round(where)
    where = np.where(np.abs(where - snapped) < 1e-5, snapped, where)
    inside = (where > -0.5 - _TOLERANCE) & (where < size - 0.5 + _TOLERANCE)
    held = np.clip(where, 0, size - 1)
    low = np.minimum(np.floor(held), max(size - 2, 0)).astype(np.int64)
    part = (held - low).astype(np.float32)
    whole = part >= 1  # the last voxel itself
    return Axis(np.where(whole, low + 1, low), np.where(whole, np.float32(0), part), inside)
