"""HU to network input along a line with several knees: soft tissue gets the contrast, air and bone stay apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.errors import ConfigError


class WindowHUd(MapTransform):
    """Map HU piecewise linearly: `points` holds `[HU, value]` pairs; beyond the ends values stay as at the ends.

    Not MONAI's `ScaleIntensityRanged`, which has two points: one wide window leaves the organs within a few
    hundredths of each other, a narrow one makes lung and air the same. Two points give what that one gives.

    Args:
        keys: volumes in HU; become float32.
        points: at least two pairs, HU rising, values not falling.

    Raises:
        ConfigError: fewer than two points, or an order that would fold HU over.
    """

    def __init__(self, keys: KeysCollection, points: Sequence[Sequence[float]]) -> None:
        super().__init__(keys)
        table = np.asarray(points, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2:
            raise ConfigError("WindowHUd", "needs at least two [HU, value] pairs", repr(points))
        if (np.diff(table[:, 0]) <= 0).any() or (np.diff(table[:, 1]) < 0).any():
            raise ConfigError("WindowHUd", "needs HU that rise and values that do not fall", repr(points))
        self.hu, self.values = table.T

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            tensor = volume.as_tensor() if isinstance(volume, MetaTensor) else torch.as_tensor(volume)
            mapped = np.interp(tensor.cpu().numpy(), self.hu, self.values).astype(np.float32)
            result = torch.from_numpy(mapped).to(tensor.device)
            if isinstance(volume, MetaTensor):
                result = MetaTensor(result, meta=volume.meta, applied_operations=volume.applied_operations)
            item[key] = result
        return item
