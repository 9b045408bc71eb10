"""Rotate, scale, shift and mirror a whole batch in one step: bilinear for images, nearest for labels.

Compiled with numba where it is installed (the extra `fast`) and the batch lies in RAM, which takes half the time there;
in torch (`grid_sample`) otherwise.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.errors import MissingExtraError
from medseg.parallel_slices import parallel_slices
from medseg.transforms.batch.draws import Draws

Matrices = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
_READY: set[torch.dtype] = set()


def matrices(draws: Draws) -> Matrices:
    """Return where each pixel comes from, `(B, 2, 3)`: pixels from the center of the image, first axis first.

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
    result: Matrices = np.concatenate([linear, shift], axis=2) * np.stack(turned, axis=1)[:, :, None]
    return result


def warp(
    images: torch.Tensor, labels: torch.Tensor, where: Matrices, chosen: Indices | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take each pixel from where its matrix says; zeros from outside.

    Args:
        images: `(B, C, H, W)`, floating point; bilinear.
        labels: `(B, L, H, W)`; nearest. Values up to 2**24.
        where: `(B, 2, 3)`, see `matrices`.
        chosen: which samples; the others stay as they are. None for all.

    Returns:
        new images and labels, types as they came.
    """
    if chosen is None:
        chosen = np.arange(len(images))
    if compiled(images, labels):
        return _compiled(images, labels, where, chosen)
    if len(chosen) == len(images):
        return _sampled(images, labels, where)
    which = torch.from_numpy(chosen).to(images.device, non_blocking=True)
    moved, warped = _sampled(images[which], labels[which], where[chosen])
    return images.index_copy(0, which, moved), labels.index_copy(0, which, warped)


def compiled(images: torch.Tensor, labels: torch.Tensor) -> bool:
    """Return whether the compiled kernel can be used with these tensors."""
    return (
        images.device.type == "cpu"
        and images.dtype == torch.float32
        and labels.dtype not in (torch.float16, torch.bfloat16)
        and images.shape[2] * images.shape[3] < 2**31
        and _kernels() is not None
    )


@functools.cache
def _kernels() -> Any | None:
    try:
        return importlib.import_module("medseg.transforms.batch.compiled")
    except MissingExtraError:
        return None


def _compiled(
    images: torch.Tensor, labels: torch.Tensor, where: Matrices, chosen: Indices
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels: Any = _kernels()
    moved, warped = torch.empty(images.shape, dtype=images.dtype), torch.empty(labels.shape, dtype=labels.dtype)
    arrays = [tensor.contiguous().numpy() for tensor in (images, labels)]
    into = moved.numpy(), warped.numpy()
    drawn = set(chosen.tolist())

    def work(part: slice) -> None:
        for number in range(part.start, part.stop):
            image, label = (array[number] for array in arrays)
            if number in drawn:
                kernels.warp(image, label, where[number], into[0][number], into[1][number])
            else:
                into[0][number], into[1][number] = image, label

    # the first time of a type, which compiles, is one thread's alone
    parallel_slices(len(images), work, torch.get_num_threads() if labels.dtype in _READY else 1)
    if drawn:
        _READY.add(labels.dtype)
    return moved, warped


def _sampled(images: torch.Tensor, labels: torch.Tensor, where: Matrices) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = images.shape[2:]
    # places and labels need more digits than half precision has
    wide = images if images.dtype == torch.float64 else images.float()
    # torch wants shares of half the image, second axis first
    half = np.array([width / 2, height / 2])
    linear = where[:, ::-1, 1::-1] * half[None, None, :] / half[None, :, None]
    theta = np.concatenate([linear, where[:, ::-1, 2:] / half[None, :, None]], axis=2)
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(wide.dtype).to(images.device, non_blocking=True),
        [len(images), 1, height, width],
        align_corners=False,
    )
    moved = functional.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    exact = labels if labels.dtype == wide.dtype else labels.to(wide.dtype)
    warped = functional.grid_sample(exact, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(images.dtype), warped.to(labels.dtype)
