"""Resampling to a spacing or to the size that a network takes."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize, SpatialPad
from monai.transforms import Spacingd as MonaiSpacingd
from monai.utils import ensure_tuple

from medseg.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class Spacingd(MonaiSpacingd):
    """Resample as MONAI's `Spacingd` does, labels to the nearest voxel, and touch no entry but the keys.

    Not MONAI's itself, which from 1.6 on writes metadata into every entry whose name begins like a key's, and so ends
    with an AttributeError on MONAI Label's `image_path`, a text.

    Args:
        keys: volumes `(C, I, J, K)`.
        pixdim: mm along each axis; -1 leaves the axis as it is.
        mode: of the interpolation; by default `nearest` for `label_key` and `bilinear` for all others.
        label_key: which of the keys is a label.
        options: further arguments of MONAI's transform.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | float,
        mode: Any = None,
        label_key: str = "label",
        **options: Any,
    ) -> None:
        modes = ["nearest" if key == label_key else "bilinear" for key in ensure_tuple(keys)]
        super().__init__(keys, pixdim, mode=modes if mode is None else mode, **options)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample every key, see MONAI."""
        item = dict(data)
        item.update(super().__call__({key: item[key] for key in self.key_iterator(item)}, lazy))
        return item


_UNEVEN = 1.2  # ratio of the sides of a pixel from which on a network of square pixels is misled


class ResizeKeepAspectd(MapTransform):
    """Scale the first two axes of space alike, until they fit into `size`, and fill up around the middle.

    Not MONAI's `Resized`, which stretches to the size, or (`size_mode="longest"`) counts all axes of a volume; it is
    what scales here, and `SpatialPad` what fills up. Where something gets smaller it is smoothed first. The affine goes
    along, so that labels can be brought back (`StreamingInferer` with `output_grid="source"`).

    Args:
        keys: images `(C, rows, columns)` or volumes `(C, rows, columns, slices)`; become `(C, *size)` or
            `(C, *size, slices)`.
        size: `(rows, columns)` afterwards.
        label_key: which of the keys is a label: each pixel becomes the nearest one, not a mean.

    Raises:
        ConfigError: `size` is not two whole numbers above 0.
        DataError: another number of axes.
    """

    def __init__(
        self, keys: KeysCollection, size: Sequence[int], label_key: str = "label", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ConfigError(
                "ResizeKeepAspectd, size", "it must be two whole numbers above 0, rows and columns", f"got {size!r}"
            )
        self.size, self.label_key = (int(size[0]), int(size[1])), label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fit every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._fit(item[key], key == self.label_key)
        return item

    def _fit(self, image: torch.Tensor, label: bool) -> Any:
        if image.ndim not in (3, 4):
            raise DataError(
                "ResizeKeepAspectd",
                "it takes images (C, rows, columns) or volumes with the slices last",
                f"got {tuple(image.shape)}",
            )
        plane = image.shape[1:3]
        rows, columns = _spacing(image)
        if max(rows, columns) > _UNEVEN * min(rows, columns):
            name = getattr(image, "meta", {}).get("filename_or_obj", "an image")
            logger.warning("%s: its pixels are %.3g x %.3g mm, so the network sees it squeezed", name, rows, columns)
        inner = fitted(plane, self.size)
        more = [-1] * (image.ndim - 3)
        if tuple(plane) != inner:
            smooth = "bilinear" if image.ndim == 3 else "trilinear"
            mode = "nearest-exact" if label else smooth
            shrinks = not label and inner[0] < plane[0]
            dtype = image.dtype  # torch interpolates no whole numbers but uint8, and MONAI gives float32 in any case
            image = Resize([*inner, *more], mode=mode, anti_aliasing=shrinks, dtype=torch.float32)(image)
            image = image.to(dtype) if label else image
        return SpatialPad([*self.size, *more])(image)


def _spacing(image: torch.Tensor) -> tuple[float, float]:
    """Return the spacing, mm, along the first two axes; 1 where it is not known."""
    if not isinstance(image, MetaTensor):
        return 1.0, 1.0
    steps = np.linalg.norm(np.asarray(image.affine, dtype=np.float64)[:3, :2], axis=0)
    return float(steps[0]) or 1.0, float(steps[1]) or 1.0


def fitted(plane: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of a plane once it is scaled to fit into `size`.

    >>> fitted((512, 512), (288, 288)), fitted((310, 360), (288, 288)), fitted((30, 60), (40, 40))
    ((288, 288), (248, 288), (20, 40))
    """
    factor = min(target / length for target, length in zip(size, plane, strict=True))
    rows, columns = (max(1, min(target, round(length * factor))) for target, length in zip(size, plane, strict=True))
    return rows, columns
