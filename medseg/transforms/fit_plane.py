"""Slices of any size into the one size that a network takes, without distorting them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Resize, SpatialPad

from medseg.errors import ConfigError, DataError


class FitPlaned(MapTransform):
    """Scale the first two axes of space alike, until they fit into `size`, and fill up around the middle.

    Not MONAI's `Resized`, which stretches to the size, or (`size_mode="longest"`) counts all axes of a volume; it is
    what scales here, and `SpatialPad` what fills up. Where something gets smaller it is smoothed first. The affine goes
    along, so that labels find their way back (`StreamingInferer` with `output="source"`).

    Args:
        keys: pictures `(C, rows, columns)` or volumes `(C, rows, columns, slices)`; become `(C, *size)` or
            `(C, *size, slices)`.
        size: `(rows, columns)` afterwards.
        label_key: which of the keys is a label: each pixel becomes the nearest one, not a mean.

    Raises:
        ConfigError: a size that cannot be.
        DataError: another number of axes.
    """

    def __init__(
        self, keys: KeysCollection, size: Sequence[int], label_key: str = "label", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(size) != 2 or min(size) < 1:
            raise ConfigError("FitPlaned, size", "must be two numbers above 0, rows and columns", repr(list(size)))
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
                "FitPlaned", "takes pictures (C, rows, columns) or volumes with slices last", f"{tuple(image.shape)}"
            )
        plane = image.shape[1:3]
        inner = fitted(plane, self.size)
        rest = [-1] * (image.ndim - 3)
        if tuple(plane) != inner:
            smooth = "bilinear" if image.ndim == 3 else "trilinear"
            mode = "nearest-exact" if label else smooth
            shrinks = not label and inner[0] < plane[0]
            dtype = image.dtype  # torch interpolates no whole numbers but uint8, and MONAI gives float32 in any case
            image = Resize([*inner, *rest], mode=mode, anti_aliasing=shrinks, dtype=torch.float32)(image)
            image = image.to(dtype) if label else image
        return SpatialPad([*self.size, *rest])(image)


def fitted(plane: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a plane once it is scaled to fit into `size`.

    >>> fitted((512, 512), (288, 288)), fitted((310, 360), (288, 288)), fitted((30, 60), (40, 40))
    ((288, 288), (248, 288), (20, 40))
    """
    factor = min(wanted / have for wanted, have in zip(size, plane, strict=True))
    rows, columns = (max(1, min(wanted, round(have * factor))) for wanted, have in zip(size, plane, strict=True))
    return rows, columns
