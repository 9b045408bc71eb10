"""A volume's values as those of the pictures that a network was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, ScaleIntensity, ScaleIntensityRange

from medseg.errors import ConfigError

SCAN = "scan"


class ScaleWindowd(MapTransform):
    """Values of a volume to 0 (what was black in the pictures) up to 1 (what was white).

    Not MONAI's `ScaleIntensityd` or `ScaleIntensityRanged`, one of which it is: which one is for whoever knows how the
    pictures were made, and while nobody has said so, no volume passes.

    Args:
        keys: volumes; become float32.
        window: `[low, high]`, the values that were black and white, such as HU; `scan` for the least and the greatest
            value of the volume, as pictures of more than 8 bits are read (`LoadSlice2Dd`); None refuses.

    Raises:
        ConfigError: anything else; at the first volume, None.
    """

    def __init__(
        self, keys: KeysCollection, window: Sequence[float] | str | None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        ends = None if window is None or isinstance(window, str) else [float(one) for one in window]
        if (isinstance(window, str) and window != SCAN) or (ends is not None and not _rises(ends)):
            raise ConfigError("window", "must be [low, high], scan or null", repr(window))
        self.scale: Any = None
        if window == SCAN:
            self.scale = ScaleIntensity(0.0, 1.0)
        elif ends is not None:
            self.scale = ScaleIntensityRange(ends[0], ends[1], 0.0, 1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale every key."""
        if self.scale is None:
            raise ConfigError(
                "window",
                "must say which values of a volume are black and which white in the pictures that were trained on",
                "null",
                "Give --set window=[-160,240] (those of a CT window, in HU), or --set window=scan where the pictures "
                "had 16 bits.",
            )
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.scale(item[key])
        return item


def _rises(ends: Sequence[float]) -> bool:
    return len(ends) == 2 and ends[0] < ends[1]
