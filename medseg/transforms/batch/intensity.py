"""Change intensities as MONAI does, a whole batch at once, with a number of its own for each image.

Functions of images `(B, C, H, W)`, floating point, and of numbers `(B,)`; each gives new images on the same device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

_TRUNCATED = 4.0  # sigmas after which MONAI's blur ends


def _spread(values: Any, images: torch.Tensor) -> torch.Tensor:
    """Return numbers `(B,)` as `(B, 1, 1, 1)` on the device of the images."""
    return torch.as_tensor(values, dtype=images.dtype).reshape(-1, 1, 1, 1).to(images.device, non_blocking=True)


def gamma(images: torch.Tensor, exponents: Any) -> torch.Tensor:
    """Raise intensities to a power, between the lowest and highest of each image: MONAI's `AdjustContrast`.

    >>> gamma(torch.tensor([[[[0.0, 1.0, 2.0]]]]), [2.0]).flatten().tolist()
    [0.0, 0.5, 2.0]
    """
    lowest = images.amin(dim=(1, 2, 3), keepdim=True)
    extent = images.amax(dim=(1, 2, 3), keepdim=True) - lowest
    shares = (images - lowest).div_(extent + 1e-7)
    return shares.pow_(_spread(exponents, images)).mul_(extent).add_(lowest)


def scale(images: torch.Tensor, factors: Any) -> torch.Tensor:
    """Multiply by `1 + factor`: MONAI's `ScaleIntensity`."""
    return images * (1 + _spread(factors, images))


def shift(images: torch.Tensor, offsets: Any) -> torch.Tensor:
    """Add an offset: MONAI's `ShiftIntensity`."""
    return images + _spread(offsets, images)


def contrast(images: torch.Tensor, factors: Any) -> torch.Tensor:
    """Multiply the distance to the image's mean by `1 + factor`: MONAI's `ScaleIntensityFixedMean`."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean).mul_(1 + _spread(factors, images)).add_(mean)


def noise(images: torch.Tensor, deviations: Any, seeds: Sequence[int]) -> torch.Tensor:
    """Add normal noise from a seed of each image: MONAI's `RandGaussianNoise` with mean 0.

    The same seed gives the same noise on the same kind of device, whatever else is in the batch.
    """
    generator = torch.Generator(images.device)
    field = torch.empty_like(images)
    for image, seed in zip(field, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(int(seed)))
    return field.mul_(_spread(deviations, images)).add_(images)


def smooth(images: torch.Tensor, sigmas_i: Any, sigmas_j: Any) -> torch.Tensor:
    """Blur with a Gaussian along both axes, zeros outside: MONAI's `GaussianSmooth`, integrals over pixels.

    Args:
        images: `(B, C, H, W)`.
        sigmas_i: in pixels along H, above 0.
        sigmas_j: along W.
    """
    for axis, sigmas in ((2, sigmas_i), (3, sigmas_j)):
        bells, length = _bells(sigmas).to(images), images.shape[axis]
        center = bells.shape[1] // 2
        weights = bells[:, :, None, None, None]
        # sums of shifted images: a convolution with one channel takes several times as long on a CPU
        blurred = images * weights[:, center]
        for step in range(1, min(center, length - 1) + 1):
            weight, shared = weights[:, center + step], length - step
            blurred.narrow(axis, step, shared).addcmul_(images.narrow(axis, 0, shared), weight)
            blurred.narrow(axis, 0, shared).addcmul_(images.narrow(axis, step, shared), weight)
        images = blurred
    return images


def _bells(sigmas: Any) -> torch.Tensor:
    """Return the weights of each blur, `(B, taps)`, truncated where MONAI truncates; shorter ones are padded with 0."""
    sigma = torch.as_tensor(sigmas, dtype=torch.float32)[:, None]
    tails = (sigma * _TRUNCATED).clamp(min=0.5).add(0.5).floor()
    reach = int(tails.max())
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    root = 0.70710678 / sigma
    bells = 0.5 * ((root * (x + 0.5)).erf() - (root * (x - 0.5)).erf())
    return bells.clamp(min=0) * (x.abs() <= tails)


def low_resolution(images: torch.Tensor, zooms: Any) -> torch.Tensor:
    """Resample down to `zoom` of the pixels (nearest) and up again (bilinear): MONAI's `RandSimulateLowResolution`."""
    done = torch.empty_like(images)
    for image, zoom, into in zip(images, zooms, done, strict=True):
        size = [max(1, int(np.round(length * zoom))) for length in image.shape[1:]]
        small = functional.interpolate(image[None], size=size, mode="nearest")
        into.copy_(functional.interpolate(small, size=image.shape[1:], mode="bilinear", align_corners=False)[0])
    return done
