"""Resampling to a spacing that leaves everything else in an item as it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Spacingd as MonaiSpacingd
from monai.utils import ensure_tuple


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
