"""Run windows through a network: precision, memory layout, test-time augmentation, and batches that fit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError
from medseg.inference.accumulator import empty_mapped
from medseg.inference.kernels import uses_numba

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class WindowForward:
    """Call a network as `WindowAccumulator` needs it: windows in, logits with the channels last out.

    Args:
        network: `(B, C, h, w)` or `(B, C, d, h, w)` to `(B, classes, ...)`.
        args: further arguments of each call.
        flips: for each further view of test-time augmentation, the axes of the volume along which it is flipped.
        contralaterals: for each channel the channel of the same structure on the other side.
        precision: `fp32`, `bf16` or `fp16`.
        axis: the axis of the volume along which layers lie.
        slices: whether windows are 2D.
        kwargs: further arguments of each call.

    Raises:
        ConfigError: an axis or a precision does not exist.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        *args: Any,
        flips: Sequence[Sequence[int]] = (),
        contralaterals: Sequence[int] | None = None,
        precision: str = "fp32",
        axis: int = 0,
        slices: bool = False,
        **kwargs: Any,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError("precision", f"must be one of {', '.join(PRECISIONS)}", f"got '{precision}'")
        if any(not set(axes) <= {0, 1, 2} or (slices and axis in axes) for axes in flips):
            raise ConfigError("flips", "must name axes 0 to 2, without the axis of the slices", f"got {flips}")
        self.network = network
        self.args = args
        self.kwargs = kwargs
        self.contralaterals = None if contralaterals is None else list(contralaterals)
        self.precision = PRECISIONS[precision]
        self.slices = slices
        # Each view: the dimensions of a batch of windows to flip, and whether that exchanges left and right.
        self.views: list[tuple[tuple[int, ...], bool]] = [((), False)]
        order = [axis, *(index for index in range(3) if index != axis)]  # the volume's axes in the order of layers
        for axes in flips:
            dims = tuple(order.index(index) + 2 - int(slices) for index in axes)
            self.views.append((dims, 0 in axes))
        if slices and isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # only the order in memory

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the mean logits (or features) of all views, `(B, rk, ri, rj, C)`.

        They are float32, or the network's own type where the compiled loops take it as it is.
        """
        total = self._halving(windows)
        for dims, exchanges_sides in self.views[1:]:
            logits = self._halving(windows.flip(dims)).flip(dims)
            if exchanges_sides and self.contralaterals is not None:
                logits = logits[:, self.contralaterals]
            total = total.float() + logits
        if len(self.views) > 1:
            total = total / len(self.views)
        logits = total.movedim(1, -1)
        logits = logits if uses_numba(logits) else logits.float()
        logits = logits[:, None] if self.slices else logits
        if logits.is_contiguous():
            return logits
        return empty_mapped(logits.shape, logits.device, logits.dtype).copy_(logits)

    def _halving(self, windows: torch.Tensor) -> torch.Tensor:
        """Run one view; a batch that does not fit into the GPU's memory is halved until it does."""
        try:
            return self._forward(windows)
        except torch.OutOfMemoryError:
            if len(windows) == 1:
                raise
            half = len(windows) // 2
            logger.warning("%d windows do not fit into the GPU's memory: trying %d at once", len(windows), half)
            torch.cuda.empty_cache()
        return torch.cat([self._halving(windows[:half]), self._halving(windows[half:])])

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        device = windows.device.type
        if self.slices:
            windows = windows.contiguous(memory_format=torch.channels_last)
        lower = self.precision != torch.float32
        with torch.autocast(device, dtype=self.precision) if lower else contextlib.nullcontext():
            logits = self.network(windows, *self.args, **self.kwargs)
        problem = f"the network must return one tensor of the size of its windows, {tuple(windows.shape[2:])}"
        if not isinstance(logits, torch.Tensor):
            raise ConfigError("StreamingInferer", problem, f"got {type(logits).__name__}")
        if logits.ndim != windows.ndim or logits.shape[2:] != windows.shape[2:]:
            raise ConfigError("StreamingInferer", problem, f"got shape {tuple(logits.shape)}")
        return logits
