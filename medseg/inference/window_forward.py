"""Windows through a network: precision, layout, looks from several sides, and batches that fit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError
from medseg.inference.buffers import empty_apart
from medseg.inference.kernels import compiled

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class WindowForward:
    """A network as the slab wants it: windows in, logits with the channels last out.

    Args:
        network: `(B, C, h, w)` or `(B, C, d, h, w)` to `(B, classes, ...)`.
        args: further arguments of each call.
        flips: axes of the volume along which windows are flipped for another look.
        contralaterals: for each channel its contralateral on the other side.
        precision: `fp32`, `bf16` or `fp16`.
        axis: the axis of the volume along which layers lie.
        slices: whether windows are slices.
        kwargs: further arguments of each call.

    Raises:
        ConfigError: an axis or a precision that cannot be.
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
            raise ConfigError("precision", f"must be one of {', '.join(PRECISIONS)}", f"'{precision}'")
        if any(not set(one) <= {0, 1, 2} or (slices and axis in one) for one in flips):
            raise ConfigError("flips", "must name axes 0 to 2, not the one of the slices", str(flips))
        self.network, self.args, self.kwargs = network, args, kwargs
        self.contralaterals, self.precision, self.slices = contralaterals, PRECISIONS[precision], slices
        order = [axis, *(other for other in range(3) if other != axis)]  # the volume's axes as layers have them
        self.looks = [((), False)] + [
            (tuple(order.index(one) + 2 - int(slices) for one in flip), 0 in flip) for flip in flips
        ]
        if slices and isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # only the order in memory

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (or features) of windows, `(B, rk, ri, rj, C)`; the mean over all looks.

        They are float32, or what the network gives if the compiled kernels take it as it is.
        """
        total: torch.Tensor | None = None
        for dims, mirror_permutation in self.looks:
            found = self._run(windows.flip(dims) if dims else windows)
            found = found.flip(dims) if dims else found
            if mirror_permutation and self.contralaterals is not None:
                found = found[:, list(self.contralaterals)]
            total = found if total is None else total.float() + found
        if total is None:
            raise ConfigError("NetworkCall", "needs at least one look", "none")
        if len(self.looks) > 1:
            total = total / len(self.looks)
        last = total.movedim(1, -1)
        last = last if compiled(last) else last.float()
        last = last[:, None] if self.slices else last
        return last if last.is_contiguous() else empty_apart(last.shape, last.device, last.dtype).copy_(last)

    def _run(self, windows: torch.Tensor) -> torch.Tensor:
        """One look; a batch that does not fit into the GPU's memory is halved until it does."""
        try:
            return self._forward(windows)
        except torch.OutOfMemoryError:
            if len(windows) == 1:
                raise
            half = len(windows) // 2
            logger.warning("%d windows do not fit into the GPU's memory, going on with %d", len(windows), half)
            torch.cuda.empty_cache()
        return torch.cat([self._run(windows[:half]), self._run(windows[half:])])

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        device = windows.device.type
        if self.slices:
            windows = windows.contiguous(memory_format=torch.channels_last)
        lower = self.precision != torch.float32
        with torch.autocast(device, dtype=self.precision) if lower else contextlib.nullcontext():
            found = self.network(windows, *self.args, **self.kwargs)
        if not isinstance(found, torch.Tensor) or found.ndim != windows.ndim or found.shape[2:] != windows.shape[2:]:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigError(
                "StreamingInferer", "takes networks with one output of the size of their input", f"{shape}"
            )
        return found
