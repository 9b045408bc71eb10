"""Augment whole batches, on the GPU where there is one, as `RandAugmentd` has drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.engines import default_prepare_batch

from medseg.errors import ConfigError, DataError, LabelError
from medseg.transforms.batch import intensity
from medseg.transforms.batch.draws import DRAWN, Draws, RandAugmentd
from medseg.transforms.batch.warp import matrices, warp

Pairs = npt.NDArray[np.int64]
_INTENSITIES: tuple[tuple[Callable[..., torch.Tensor], tuple[str, ...]], ...] = (
    (intensity.gamma, ("gamma",)),
    (intensity.scale, ("factor",)),
    (intensity.shift, ("offset",)),
    (intensity.contrast, ("contrast",)),
    (intensity.noise, ("std", "noise_seed")),
    (intensity.smooth, ("sigma_i", "sigma_j")),
    (intensity.low_resolution, ("zoom",)),
)


class AugmentBatch:
    """Move a batch to the device and augment it there; a trainer's `prepare_batch`.

    Not MONAI's `PrepareBatchDefault`, which only moves the batch. In a plain PyTorch loop it takes a batch of the
    loader and returns images and labels.

    Args:
        augment: the `RandAugmentd` among the transforms of the training data; None leaves batches as they are.
        prepare_batch: how the batch goes to the device; gives image and label first.
        label_dtype: what the label becomes on the device, for it travels fastest in the smallest type; None leaves it.
        then: called with the images `(B, C, H, W)` once they are augmented, such as `Standardized(...).batch`.

    Raises:
        ConfigError: samples for which nothing was drawn.
        DataError: see `augment_batch`.
    """

    def __init__(
        self,
        augment: RandAugmentd | None = None,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        label_dtype: torch.dtype | None = torch.int32,
        then: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if augment is not None and not isinstance(augment, RandAugmentd):
            raise ConfigError("AugmentBatch", "augment must be a RandAugmentd or None", f"got {type(augment).__name__}")
        self.augment = augment
        self.prepare_batch = prepare_batch
        self.label_dtype = label_dtype
        self.then = then

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> Any:
        """Return images and labels on the device, augmented, and whatever else `prepare_batch` returns."""
        images, labels, *more = self.prepare_batch(batchdata, device, non_blocking, **options)
        if self.augment is not None:
            if DRAWN not in batchdata:
                raise ConfigError(
                    "AugmentBatch",
                    f"the batch has no '{DRAWN}'",
                    "",
                    "Put the same RandAugmentd last among the transforms of the training data.",
                )
            draws = Draws.of(batchdata[DRAWN])
            images, labels = augment_batch(_plain(images), _plain(labels), draws, self.augment.contralaterals)
        if self.then is not None:
            images = self.then(_plain(images))
        if self.label_dtype is not None:
            labels = labels.to(self.label_dtype)
        return (images, labels, *more)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


@torch.no_grad()
def augment_batch(
    images: torch.Tensor, labels: torch.Tensor, draws: Draws, contralaterals: Pairs | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment each sample as was drawn for it, in the order of `RandAugmentd`.

    Args:
        images: `(B, C, H, W)`, floating point, finite; stay as they are.
        labels: `(B, 1, H, W)` class indices, or `(B, structures, H, W)`; stay as they are.
        draws: `(B,)` each.
        contralaterals: what each class becomes where left and right are swapped; None where nothing is paired.

    Returns:
        images and labels, shapes and types as they came.

    Raises:
        DataError: shapes that do not fit, images that are not floating point.
        LabelError: more channels in the label than the pairs are known for.
    """
    _check(images, labels, draws)
    drawn = [~np.isnan(values) for values in (draws.mirror_i, draws.mirror_j, draws.angle)]
    moved = np.flatnonzero(np.logical_or.reduce(drawn))
    if len(moved):
        images, labels = warp(images, labels, matrices(draws), moved)
        swapped = np.flatnonzero(drawn[0])
        if contralaterals is not None and len(swapped):
            labels = _swapped(labels, contralaterals, swapped)
    else:
        images = images.clone()
    _change(images, draws)
    return images, labels


def _check(images: torch.Tensor, labels: torch.Tensor, draws: Draws) -> None:
    if not isinstance(labels, torch.Tensor) or images.ndim != 4 or labels.ndim != 4:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape) if isinstance(labels, torch.Tensor) else labels}"
        raise DataError("batch", "images must be (B, C, H, W) and labels (B, L, H, W)", f"got {shapes}")
    if images.shape[2:] != labels.shape[2:] or not len(images) == len(labels) == len(draws.angle):
        shapes = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}, draws for {len(draws.angle)}"
        raise DataError("batch", "images, labels and draws do not fit", f"got {shapes}")
    if not images.is_floating_point():
        raise DataError("batch", "images must be of floating point", f"got {images.dtype}")


def _swapped(labels: torch.Tensor, contralaterals: Pairs, swapped: npt.NDArray[np.intp]) -> torch.Tensor:
    """Return the labels with the classes of paired structures exchanged in some samples."""
    if labels.shape[1] not in (1, len(contralaterals) - 1):
        raise LabelError("batch", f"labels must have 1 or {len(contralaterals) - 1} channels", f"got {labels.shape[1]}")
    which = torch.from_numpy(swapped).to(labels.device, non_blocking=True)
    table = torch.from_numpy(contralaterals).to(labels.device, non_blocking=True)
    some = labels[which]
    some = table[some.long()].to(labels.dtype) if labels.shape[1] == 1 else some[:, table[1:] - 1]
    return labels.index_copy(0, which, some)


def _change(images: torch.Tensor, draws: Draws) -> None:
    """Change intensities in place, of the images for which that was drawn."""
    numbers = draws._asdict()
    drawn_for = [~np.isnan(numbers[fields[0]]) for _, fields in _INTENSITIES]
    if images.device.type == "cpu":
        # one image after the other, while the cache still holds it
        for number, todo in enumerate(np.stack(drawn_for, axis=1).tolist()):
            sample = slice(number, number + 1)
            for (change, fields), drawn in zip(_INTENSITIES, todo, strict=True):
                if drawn:
                    images[sample].copy_(change(images[sample], *(numbers[field][sample] for field in fields)))
        return
    for (change, fields), drawn in zip(_INTENSITIES, drawn_for, strict=True):
        chosen = np.flatnonzero(drawn)
        if len(chosen):
            which = torch.from_numpy(chosen).to(images.device, non_blocking=True)
            images.index_copy_(0, which, change(images[which], *(numbers[field][chosen] for field in fields)))
