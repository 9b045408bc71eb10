"""Intensities in the units that pretrained networks know: less a mean, by a deviation, channel by channel."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from medseg.errors import ConfigError, DataError


class Standardize:
    """`(image - mean) / std`, channel by channel; grey becomes as many channels as there are means.

    Not MONAI's `NormalizeIntensity`: that one takes single images and as many channels as it has means; this one takes
    batches as well, so that training, which augments grey images first, does what inference does.

    Args:
        mean: of each channel, or one for all.
        std: of each channel, above 0.
        context: neighboring slices on each side that are the channels instead of colors: all get the average `mean`
            and `std`. 0 for none.

    Raises:
        ConfigError: lists of different lengths, or a deviation that is not above 0.

    >>> Standardize([0.5, 0.0], [0.5, 1.0])(torch.ones(1, 2, 2))[:, 0, 0].tolist()
    [1.0, 1.0]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], context: int = 0) -> None:
        if not mean or len(mean) != len(std) or not all(one > 0 for one in std):
            raise ConfigError(
                "Standardize",
                "needs a mean and a deviation above 0 for each channel",
                f"mean={list(mean)}, std={list(std)}",
            )
        if context:
            mean = [statistics.fmean(mean)]
            std = [statistics.fmean(std)]
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)

    def __call__(self, image: torch.Tensor, channel_axis: int = 0) -> torch.Tensor:
        """The image in these units, float32.

        Args:
            image: `(C, *spatial)`, from 0 to 1.
            channel_axis: 1 for batches `(B, C, *spatial)`.

        Raises:
            DataError: channels that are neither one nor as many as there are means.
        """
        channels, means = image.shape[channel_axis], len(self.mean)
        if means not in (1, channels) and channels != 1:
            raise DataError("An image", f"must have 1 channel or {means}, for so many means there are", str(channels))
        shape = (-1, *(1,) * (image.ndim - 1 - channel_axis))
        mean, std = (one.reshape(shape).to(image.device) for one in (self.mean, self.std))
        done: torch.Tensor = (image.float() - mean) / std
        return done


class Standardized(MapTransform):
    """`Standardize` for items.

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
        return self.standardize(images, channel_axis=1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardize every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.standardize(item[key])
        return item
