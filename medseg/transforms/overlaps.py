"""Overlapping structures as channels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from medseg.errors import LabelError


class MultiHotd(MapTransform):
    """Codes of combinations to one channel for each structure.

    Not MONAI's `AsDiscreted(to_onehot)`: there a voxel has one class; here it may belong to several.

    Args:
        keys: codes `(1, *spatial)`; become `(num_channels, *spatial)`, uint8 0 or 1.
        num_channels: structures, the background is none of them.

    Raises:
        LabelError: the item holds no `combinations`, or a code they do not list.
    """

    def __init__(self, keys: KeysCollection, num_channels: int) -> None:
        super().__init__(keys)
        self.num_channels = num_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Spread the codes, and drop their table from the item."""
        item = dict(data)
        if "combinations" not in item:
            raise LabelError(
                f"case {item.get('case', '?')}", "needs 'combinations'", "none", "Open it with overlaps='keep'."
            )
        combinations = item.pop("combinations")
        table = torch.zeros(len(combinations), self.num_channels, dtype=torch.uint8)
        for code, channels in enumerate(combinations):
            table[code, list(channels)] = 1
        for key in self.key_iterator(item):
            codes = torch.as_tensor(item[key])[0].long()
            if int(codes.max()) >= len(combinations):
                raise LabelError(
                    f"case {item.get('case', '?')}", f"lists {len(combinations)} codes", f"code {int(codes.max())}"
                )
            spread = table.T.contiguous()[:, codes]
            item[key] = spread
        return item
