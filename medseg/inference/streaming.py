"""Whole volumes through a 2D network in bounded memory: labels come out, never all logits at once.

Not MONAI's `SliceInferer`: that one keeps the logits of every class for the whole volume, which for 118
classes on 300x300x300 voxels are 12.7 GB. Here a few slices go through MONAI's sliding window at a time and
only their labels are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, sliding_window_inference

from medseg.errors import ConfigError, GeometryError


class StreamingInferer(Inferer):
    """Sliding windows within each slice along the last axis, then the label of every voxel.

    `(B, C, I, J, K)` gives `(B, 1, I, J, K)`, class indices as uint8 (uint16 above 256 classes); with
    `multilabel`, `(B, channels, I, J, K)`, uint8 0 or 1. The grid is that of the input.

    Args:
        roi_size: size `(h, w)` of a window; slices smaller than it are filled up, as in training.
        sw_batch_size: windows that go through the network at once.
        overlap: share of a window that overlaps its neighbour, 0 to below 1.
        mode: `gaussian` (the middle of a window counts more) or `constant`.
        context: neighbouring slices on each side that join as channels, see `RandSlicePatchd`.
        slices: slices that are held at once, as logits.
        multilabel: whether the channels are independent structures: probability above `threshold` is 1.
        threshold: used only with `multilabel`.
        fill: value of the input outside the volume.

    Raises:
        ConfigError: arguments that cannot be.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 8,
        overlap: float = 0.25,
        mode: str = "gaussian",
        context: int = 0,
        slices: int = 8,
        multilabel: bool = False,
        threshold: float = 0.5,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        if len(roi_size) != 2 or min(roi_size) < 1 or min(sw_batch_size, slices) < 1 or context < 0:
            raise ConfigError(
                "StreamingInferer",
                "needs two positive roi sizes, batch and slices above 0, context of 0 or more",
                f"roi_size={roi_size}, sw_batch_size={sw_batch_size}, slices={slices}, context={context}",
            )
        if not 0 <= overlap < 1 or mode not in ("gaussian", "constant") or not 0 < threshold < 1:
            raise ConfigError(
                "StreamingInferer",
                "needs overlap in [0, 1), mode gaussian or constant, threshold in (0, 1)",
                f"overlap={overlap}, mode={mode}, threshold={threshold}",
            )
        self.roi_size = tuple(int(size) for size in roi_size)
        self.sw_batch_size, self.overlap, self.mode, self.context = sw_batch_size, overlap, mode, context
        self.slices, self.multilabel, self.threshold, self.fill = slices, multilabel, threshold, fill

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run `network` over every slice of `inputs`, `(B, C, I, J, K)`.

        Raises:
            GeometryError: the input is not 5-dimensional.
        """
        if inputs.ndim != 5:
            raise GeometryError("StreamingInferer", "takes volumes (B, C, I, J, K)", f"shape {tuple(inputs.shape)}")
        volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        labels = torch.stack([self._volume(volume, network, *args, **kwargs) for volume in volumes])
        if isinstance(inputs, MetaTensor):
            labels = MetaTensor(labels, meta=inputs.meta, applied_operations=inputs.applied_operations)
        return labels

    def _volume(
        self, volume: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        labels: torch.Tensor | None = None
        depth = volume.shape[-1]
        for low in range(0, depth, self.slices):
            high = min(low + self.slices, depth)
            logits = self._logits(volume, low, high, network, *args, **kwargs)
            part = self._decide(logits).movedim(0, -1)  # (C, I, J, slices)
            if labels is None:
                labels = part.new_empty((part.shape[0], *volume.shape[1:]))
            labels[..., low:high] = part
        if labels is None:
            raise GeometryError("StreamingInferer", "needs at least one slice", f"shape {tuple(volume.shape)}")
        return labels

    def _logits(
        self, volume: torch.Tensor, low: int, high: int, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Logits `(slices, classes, I, J)` of the slices from `low` up to `high`."""
        last = volume.shape[-1] - 1
        around = range(-self.context, self.context + 1)
        stacks = [torch.cat([volume[..., min(max(k + step, 0), last)] for step in around]) for k in range(low, high)]
        logits = sliding_window_inference(
            torch.stack(stacks),
            roi_size=self.roi_size,
            sw_batch_size=self.sw_batch_size,
            predictor=lambda windows: network(windows, *args, **kwargs),
            overlap=self.overlap,
            mode=self.mode,
            cval=self.fill,
        )
        if not isinstance(logits, torch.Tensor):
            raise ConfigError("StreamingInferer", "takes networks with one output", type(logits).__name__)
        return logits

    def _decide(self, logits: torch.Tensor) -> torch.Tensor:
        if self.multilabel:
            return (torch.sigmoid(logits) > self.threshold).to(torch.uint8)
        kind = torch.uint8 if logits.shape[1] <= 256 else torch.int32
        return logits.argmax(dim=1, keepdim=True).to(kind)
