"""The windows of one volume through a network, front to back; finished layers come out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from medseg import resources
from medseg.inference import memory
from medseg.inference.accumulator import WindowAccumulator
from medseg.inference.final_conv import split_head
from medseg.inference.kernels import Layer
from medseg.inference.label_decoder import LabelDecoder
from medseg.inference.window_forward import WindowForward
from medseg.inference.windows import Layers, Plan, cut

logger = logging.getLogger(__name__)

_CPU_BATCH, _GPU_BATCH = 2, 64  # windows at once: more serve no CPU; few GPUs are filled by less than their memory
_SHARE = 0.6  # of free memory that windows may take


class Stream:
    """Windows in, layers out.

    Args:
        volume: `(C, K, I, J)`, layers along the first axis of space.
        network: windows to logits.
        args: further arguments of each call of the network.
        decision: what is made of finished layers.
        call: keyword arguments of `NetworkCall`.
        batch: windows at once.
        context: for a network of slices, neighbours on each side that join as channels.
        mode: `gaussian` or `constant`.
        sigma_scale: of the gaussian.
        cval: value of the input outside the volume.
        sw_device: where windows and network run.
        device: where windows are added up, as long as it fits there.
        progress: whether to show a bar.
        kwargs: further arguments of each call of the network.
    """

    def __init__(
        self,
        volume: torch.Tensor,
        network: Callable[..., Any],
        *args: Any,
        decision: LabelDecoder,
        call: dict[str, Any],
        batch: int,
        context: int,
        mode: str,
        sigma_scale: float,
        cval: float,
        sw_device: torch.device,
        device: torch.device,
        progress: bool,
        **kwargs: Any,
    ) -> None:
        self.volume, self.layers = volume, Layers(volume)
        self.network, self.args, self.kwargs, self.call = network, args, kwargs, call
        self.decision, self.batch, self.context, self.cval = decision, batch, context, cval
        self.mode, self.sigma_scale, self.progress = mode, sigma_scale, progress
        self.sw_device, self.device = sw_device, device
        self.channels = 0  # of the network's output, once it was seen

    def run(self, plan: Plan, held: int = 2, title: str | None = None) -> Iterator[tuple[int, Layer]]:
        """The finished layers that windows of the plan touch, front to back; the last `held` stay what they are."""
        batch = self.batch
        importance = plan.importance(self.mode, self.sigma_scale, self.sw_device)
        with split_head(self.network, wanted=not plan.single and not self.call["flips"]) as (body, head):
            call = WindowForward(body, *self.args, **self.call, **self.kwargs)
            slab = WindowAccumulator(plan, importance, head, self.device, held)
            windows = list(plan)
            with tqdm(
                total=len(windows), unit="window", desc=title, disable=None if self.progress else True, leave=False
            ) as bar:
                for first in range(0, len(windows), batch):
                    starts = windows[first : first + batch]
                    tiles = self._called(call, slab, self._windows(starts, plan))
                    for number, start in enumerate(starts):
                        slab.add(start, tiles[number])
                    del tiles
                    bar.update(len(starts))
                    following = first + len(starts)
                    until = windows[following][0] if following < len(windows) else plan.shape[0]
                    for k, sums, weights in slab.finished(until):
                        self.channels = sums.shape[-1]
                        yield k, in_memory_there_is(self.decision.layer, sums, weights)

    def _called(self, call: WindowForward, slab: WindowAccumulator, tiles: torch.Tensor) -> torch.Tensor:
        try:
            return call(tiles)
        except torch.OutOfMemoryError:
            slab.to_ram()  # not even one window fits beside the slab
            return call(tiles)

    def _windows(self, starts: Sequence[tuple[int, int, int]], plan: Plan) -> torch.Tensor:
        """The network's input for these windows, where it runs: `(B, C, h, w)` or `(B, C, d, h, w)`."""
        tiles = torch.stack([self._cut(start, plan) for start in starts])
        if tiles.device == self.sw_device:
            return tiles
        if self.sw_device.type == "cuda":
            tiles = tiles.pin_memory()  # so that copying does not wait for what runs there
        return tiles.to(self.sw_device, non_blocking=True)

    def _cut(self, start: tuple[int, int, int], plan: Plan) -> torch.Tensor:
        if not self.call["slices"]:
            return cut(self.volume, start, plan.roi, self.cval)
        around = range(start[0] - self.context, start[0] + self.context + 1)
        parts = [cut(self.layers[k], (0, *start[1:]), plan.roi, self.cval)[:, 0] for k in around]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def in_memory_there_is(deed: Callable[..., Any], *what: Any) -> Any:
    """`deed(*what)`, with all tensors and layers in RAM where the memory of the GPU is full."""
    try:
        return deed(*what)
    except torch.OutOfMemoryError:
        logger.warning("The memory of the GPU is full: a layer is decided in RAM")
        ram = torch.device("cpu")
        return deed(*(one.to(ram) if isinstance(one, (torch.Tensor, Layer)) else one for one in what))


def serving_batch(
    network: Callable[..., Any], channels: int, roi: Sequence[int], slices: bool, device: torch.device
) -> int:
    """How many windows go through a network at once where nobody says: what fills a GPU, or serves a CPU.

    Args:
        network: to look through; of what is no module nothing is known.
        channels: of its input.
        roi: of a window, three sizes.
        slices: whether windows are slices.
        device: where it runs.
    """
    most = _GPU_BATCH if device.type == "cuda" else _CPU_BATCH
    free = resources.free_gpu_memory(device) if device.type == "cuda" else resources.ram().free
    if not isinstance(network, torch.nn.Module):
        return _CPU_BATCH
    size = tuple(roi[1:]) if slices else tuple(roi)
    width = memory.width_of(network, channels, size)
    return max(1, min(most, int(_SHARE * free / memory.window_bytes(channels, width, width, size))))
