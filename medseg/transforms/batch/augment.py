"""Augmentation of whole batches, on the GPU where there is one: what `RandAugmentd` drew is done here."""

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

Twins = npt.NDArray[np.int64]
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
    """A trainer's `prepare_batch` that augments: the batch goes to the device, and there what was drawn is done.

    Not MONAI's `PrepareBatchDefault`, which only moves the batch; it is what does that here, too.

    Args:
        augment: what drew for the samples, among the transforms of the training data; None leaves batches as they are.
        prepare_batch: how the batch goes to the device; gives image and label first.
        label_dtype: what the label becomes on the device, for it travels fastest in the smallest type; None leaves it.
        then: what is done to the images `(B, C, H, W)` once they are augmented, such as `Standardize(...).batch`.

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
            raise ConfigError("AugmentBatch", "needs the RandAugmentd that draws, or None", type(augment).__name__)
        self.augment, self.prepare_batch, self.label_dtype, self.then = augment, prepare_batch, label_dtype, then

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> Any:
        """Image and label of the batch on the device, augmented; what else `prepare_batch` gives stays."""
        images, labels, *rest = self.prepare_batch(batchdata, device, non_blocking, **options)
        if self.augment is not None:
            if DRAWN not in batchdata:
                raise ConfigError(
                    "AugmentBatch",
                    f"needs '{DRAWN}' in the batch",
                    "none",
                    "Put the same RandAugmentd last among the transforms of the training data.",
                )
            draws = Draws.of(batchdata[DRAWN])
            images, labels = augment_batch(_plain(images), _plain(labels), draws, self.augment.contralaterals)
        if self.then is not None:
            images = self.then(_plain(images))
        if self.label_dtype is not None:
            labels = labels.to(self.label_dtype)
        return (images, labels, *rest)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


@torch.no_grad()
def augment_batch(
    images: torch.Tensor, labels: torch.Tensor, draws: Draws, contralaterals: Twins | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do to each sample what was drawn for it, in the order of `RandAugmentd`.

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
        found = f"{tuple(images.shape)} and {tuple(labels.shape) if isinstance(labels, torch.Tensor) else labels}"
        raise DataError("A batch to augment", "needs 2D images (B, C, H, W) and labels (B, L, H, W)", found)
    if images.shape[2:] != labels.shape[2:] or not len(images) == len(labels) == len(draws.angle):
        found = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}, draws for {len(draws.angle)}"
        raise DataError("A batch to augment", "needs images, labels and draws that fit", found)
    if not images.is_floating_point():
        raise DataError("A batch to augment", "needs images of floating point", str(images.dtype))


def _swapped(labels: torch.Tensor, contralaterals: Twins, swapped: npt.NDArray[np.intp]) -> torch.Tensor:
    """The labels with the classes of paired structures exchanged in some samples."""
    if labels.shape[1] not in (1, len(contralaterals) - 1):
        raise LabelError(
            "A batch to augment", f"needs 1 or {len(contralaterals) - 1} channels of labels", str(labels.shape[1])
        )
    which = torch.from_numpy(swapped).to(labels.device, non_blocking=True)
    table = torch.from_numpy(contralaterals).to(labels.device, non_blocking=True)
    some = labels[which]
    some = table[some.long()].to(labels.dtype) if labels.shape[1] == 1 else some[:, table[1:] - 1]
    return labels.index_copy(0, which, some)


def _change(images: torch.Tensor, draws: Draws) -> None:
    """Change the intensities of the images for which it was drawn, in place."""
    numbers = draws._asdict()
    wanted = [~np.isnan(numbers[fields[0]]) for _, fields in _INTENSITIES]
    if images.device.type == "cpu":
        # one image after the other, while the cache still holds it
        for number, todo in enumerate(np.stack(wanted, axis=1).tolist()):
            one = slice(number, number + 1)
            for (deed, fields), drawn in zip(_INTENSITIES, todo, strict=True):
                if drawn:
                    images[one].copy_(deed(images[one], *(numbers[field][one] for field in fields)))
        return
    for (deed, fields), drawn in zip(_INTENSITIES, wanted, strict=True):
        chosen = np.flatnonzero(drawn)
        if len(chosen):
            which = torch.from_numpy(chosen).to(images.device, non_blocking=True)
            images.index_copy_(0, which, deed(images[which], *(numbers[field][chosen] for field in fields)))
