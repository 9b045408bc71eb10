"""Rotation, scale, shift and mirror of a whole batch in one step: bilinear for images, nearest for labels.

In torch (`grid_sample`), on whatever device the batch lies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.transforms.batch.draws import Draws

Matrices = npt.NDArray[np.float64]


def matrices(draws: Draws) -> Matrices:
    """Where each pixel comes from, `(B, 2, 3)`: pixels from the middle of the image, first axis first.

    MONAI's `AffineGrid`: rotation times shift times scale. What is mirrored is mirrored before that. What was not
    drawn stays as it is.
    """
    count = len(draws.angle)
    angle, *shifts = (np.nan_to_num(values, nan=0.0) for values in (draws.angle, draws.shift_i, draws.shift_j))
    scales = [np.nan_to_num(values, nan=1.0) for values in (draws.scale_i, draws.scale_j)]
    turned = [np.where(np.nan_to_num(values, nan=0.0) > 0, -1.0, 1.0) for values in (draws.mirror_i, draws.mirror_j)]
    rotation = np.empty((count, 2, 2))
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(angle)
    rotation[:, 1, 0] = np.sin(angle)
    rotation[:, 0, 1] = -rotation[:, 1, 0]
    linear = rotation * np.stack(scales, axis=1)[:, None, :]
    shift = rotation @ np.stack(shifts, axis=1)[:, :, None]
    return np.concatenate([linear, shift], axis=2) * np.stack(turned, axis=1)[:, :, None]


def warp(images: torch.Tensor, labels: torch.Tensor, where: Matrices) -> tuple[torch.Tensor, torch.Tensor]:
    """Take each pixel from where its matrix says; zeros from outside.

    Args:
        images: `(B, C, H, W)`, floating point; bilinear.
        labels: `(B, L, H, W)`; nearest. Values up to 2**24 where they are not floating point.
        where: `(B, 2, 3)`, see `matrices`.

    Returns:
        new images and labels, types as they came.
    """
    height, width = images.shape[2:]
    # torch wants shares of half the image, second axis first
    half = np.array([width / 2, height / 2])
    linear = where[:, ::-1, 1::-1] * half[None, None, :] / half[None, :, None]
    theta = np.concatenate([linear, where[:, ::-1, 2:] / half[None, :, None]], axis=2)
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(images.dtype).to(images.device, non_blocking=True),
        [len(images), 1, height, width],
        align_corners=False,
    )
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    exact = labels if labels.dtype == images.dtype else labels.to(images.dtype)
    found = functional.grid_sample(exact, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, found.to(labels.dtype)
