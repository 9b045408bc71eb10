"""Resampling to a spacing that leaves everything else in an item as it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd as MonaiSpacingd


class Spacingd(MonaiSpacingd):
    """MONAI's `Spacingd`, told of nothing but its keys; arguments, values and inverse are that one's.

    Not MONAI's itself, which from 1.6 on writes metadata into every entry whose name begins like a key's, and so ends
    with an AttributeError on MONAI Label's `image_path`, a text.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample every key, see MONAI."""
        item = dict(data)
        item.update(super().__call__({key: item[key] for key in self.key_iterator(item)}, lazy))
        return item
