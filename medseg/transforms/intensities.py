"""Intensities: HU along a curve, a volume's window as PNG slices have it, ImageNet's units."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensity, ScaleIntensityRange

from medseg.errors import ConfigError, DataError


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
            raise ConfigError("WindowHUd", "points must be two or more [HU, value] pairs", f"got {points}")
        if (np.diff(table[:, 0]) <= 0).any() or (np.diff(table[:, 1]) < 0).any():
            raise ConfigError("WindowHUd", "HU must rise from point to point, and values not fall", f"got {points}")
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


SCAN = "scan"


class ScaleWindowd(MapTransform):
    """Scale a volume to 0 (what was black in the training images) up to 1 (what was white).

    Not MONAI's `ScaleIntensityd` or `ScaleIntensityRanged`, one of which it runs: which one depends on how the images
    were made, which a network of PNG slices cannot know, so no volume passes before `window` says it.

    Args:
        keys: volumes; become float32.
        window: `[low, high]`, the values that were black and white, such as HU; `scan` for the lowest and highest
            value of the volume, as images of more than 8 bits are read (`LoadSlice2Dd`); None refuses.

    Raises:
        ConfigError: anything else; at the first volume, None.
    """

    def __init__(
        self, keys: KeysCollection, window: Sequence[float] | str | None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        ends = None if window is None or isinstance(window, str) else [float(end) for end in window]
        if (isinstance(window, str) and window != SCAN) or (ends is not None and not _rises(ends)):
            raise ConfigError("window", "it must be [low, high], scan or null", f"got {window!r}")
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
                "it is not known which values were black and white in the images that the network was trained on",
                "",
                "Give --set window=[-160,240] (a CT window, in HU), or --set window=scan for images of 16 bits.",
            )
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.scale(item[key])
        return item


def _rises(ends: Sequence[float]) -> bool:
    return len(ends) == 2 and ends[0] < ends[1]


class Standardize:
    """Compute `(image - mean) / std`, channel by channel; gray becomes as many channels as there are means.

    Not MONAI's `NormalizeIntensity`: that one takes single images and as many channels as it has means; this one takes
    batches as well, so that training, which augments gray images first, does what inference does.

    Args:
        mean: of each channel, or one for all.
        std: of each channel, above 0.
        context: neighboring slices on each side that are the channels instead of colors: all get the average `mean`
            and `std`. 0 for none.

    Raises:
        ConfigError: lists of different lengths, or a standard deviation that is not above 0.

    >>> Standardize([0.5, 0.0], [0.5, 1.0])(torch.ones(1, 2, 2))[:, 0, 0].tolist()
    [1.0, 1.0]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], context: int = 0) -> None:
        if not mean or len(mean) != len(std) or not all(value > 0 for value in std):
            raise ConfigError(
                "Standardize",
                "it needs a mean and a standard deviation above 0 for each channel",
                f"got mean={list(mean)}, std={list(std)}",
            )
        if context:
            mean = [statistics.fmean(mean)]
            std = [statistics.fmean(std)]
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)

    def __call__(self, image: torch.Tensor, channel_axis: int = 0) -> torch.Tensor:
        """Return the standardized image, float32.

        Args:
            image: `(C, *spatial)`, from 0 to 1.
            channel_axis: 1 for batches `(B, C, *spatial)`.

        Raises:
            DataError: channels that are neither one nor as many as there are means.
        """
        channels, means = image.shape[channel_axis], len(self.mean)
        if means not in (1, channels) and channels != 1:
            raise DataError("image", f"it must have 1 channel or {means}, one for each mean", f"got {channels}")
        shape = (-1, *(1,) * (image.ndim - 1 - channel_axis))
        mean = self.mean.reshape(shape).to(image.device)
        std = self.std.reshape(shape).to(image.device)
        result: torch.Tensor = (image.float() - mean) / std
        return result

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """Standardize a batch of images, `(B, C, *spatial)`."""
        return self(images, channel_axis=1)


class Standardized(MapTransform):
    """Standardize items, see `Standardize`.

    Args:
        keys: images `(C, *spatial)`.
        mean: see `Standardize`.
        std: see `Standardize`.
        context: see `Standardize`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mean: Sequence[float],
        std: Sequence[float],
        context: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.standardize = Standardize(mean, std, context)

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """Standardize a batch of images `(B, C, *spatial)`, as `AugmentBatch` does once it has augmented them."""
        return self.standardize.batch(images)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardize every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.standardize(item[key])
        return item
