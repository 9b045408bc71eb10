"""Run the windows of one volume through a network, front to back, and decode the layers as they are finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from medseg import resources
from medseg.inference import memory
from medseg.inference.accumulator import WindowAccumulator
from medseg.inference.final_conv import split_final_conv
from medseg.inference.kernels import AxisMap, Layer
from medseg.inference.label_decoder import Confidence, LabelDecoder
from medseg.inference.window_forward import WindowForward
from medseg.inference.windows import Layers, WindowPlan, crop

if TYPE_CHECKING:
    from medseg.inference.streaming import InferenceOptions, StreamingInferer

logger = logging.getLogger(__name__)

# More windows at once make no CPU faster; few GPUs are filled by less than their memory.
_CPU_BATCH, _GPU_BATCH = 2, 64
_SHARE = 0.6  # of free memory that windows may take


class Stream:
    """Take the windows of one volume and yield layers.

    Args:
        inferer: with the settings of all calls.
        volume: `(C, K, I, J)`, layers along the first spatial axis.
        network: windows to logits.
        forward: wraps the network, or its part before the final convolution.
        options: of this call.

    Attributes:
        channels: of the network's output, once it has run.
    """

    def __init__(
        self,
        inferer: StreamingInferer,
        volume: torch.Tensor,
        network: Callable[..., Any],
        forward: Callable[..., WindowForward],
        options: InferenceOptions,
    ) -> None:
        self.inferer = inferer
        self.volume = volume
        self.network = network
        self.forward = forward
        self.progress = options.progress
        device = options.sw_device or inferer.sw_device
        self.sw_device = volume.device if device is None else torch.device(device)
        self.device = inferer.device or self.sw_device
        channels = volume.shape[0] * (2 * inferer.context + 1)
        self.batch = inferer.batch_for(network, channels, self.sw_device, options.sw_batch_size)
        self.channels = 0
        self._layers = Layers(volume)

    def run(
        self, plan: WindowPlan, decoder: LabelDecoder, live: int = 2, title: str | None = None
    ) -> Iterator[tuple[int, Layer]]:
        """Yield the finished layers that windows of the plan touch, front to back; the last `live` stay valid."""
        importance = plan.importance(self.inferer.mode, self.inferer.sigma_scale, self.sw_device)
        # With one window a layer there is nothing to save, and flipped views are averaged as logits.
        split = not plan.single and not self.inferer.flips
        with split_final_conv(self.network, enabled=split) as (body, final_conv):
            forward = self.forward(body)
            accumulator = WindowAccumulator(plan, importance, final_conv, self.device, live)
            starts = list(plan)
            with tqdm(
                total=len(starts), unit="window", desc=title, disable=None if self.progress else True, leave=False
            ) as bar:
                for first in range(0, len(starts), self.batch):
                    batch = starts[first : first + self.batch]
                    tiles = _forward_or_make_room(forward, accumulator, self._windows(batch, plan))
                    for number, start in enumerate(batch):
                        accumulator.add(start, tiles[number])
                    del tiles  # the next batch needs their memory
                    bar.update(len(batch))
                    following = first + len(batch)
                    end = starts[following][0] if following < len(starts) else plan.shape[0]
                    for k, sums, weights in accumulator.finished(end):
                        self.channels = sums.shape[-1]
                        yield k, with_ram_fallback(decoder.layer, sums, weights)

    def _windows(self, starts: Sequence[tuple[int, int, int]], plan: WindowPlan) -> torch.Tensor:
        """Return the network's input for these windows, where it runs: `(B, C, h, w)` or `(B, C, d, h, w)`."""
        windows = torch.stack([self._window(start, plan) for start in starts])
        if windows.device == self.sw_device:
            return windows
        if self.sw_device.type == "cuda":
            windows = windows.pin_memory()  # so that copying does not wait for the kernels that run there
        return windows.to(self.sw_device, non_blocking=True)

    def _window(self, start: tuple[int, int, int], plan: WindowPlan) -> torch.Tensor:
        context, fill = self.inferer.context, self.inferer.cval
        if not self.inferer.slices:
            return crop(self.volume, start, plan.roi, fill)
        neighbors = range(start[0] - context, start[0] + context + 1)
        slices = [crop(self._layers[k], (0, *start[1:]), plan.roi, fill)[:, 0] for k in neighbors]
        return slices[0] if len(slices) == 1 else torch.cat(slices)


def _forward_or_make_room(
    forward: WindowForward, accumulator: WindowAccumulator, windows: torch.Tensor
) -> torch.Tensor:
    try:
        return forward(windows)
    except torch.OutOfMemoryError:
        accumulator.to_ram()  # not even one window fits beside the sums
        return forward(windows)


def decode_layers(
    layers: Iterable[tuple[int, Layer]],
    decoder: LabelDecoder,
    axes: Sequence[AxisMap],
    shape: Sequence[int],
    confidence: Confidence | None,
    device: torch.device,
) -> torch.Tensor | None:
    """Write each output layer, `(channels, *shape)`, as soon as the network's layers around it are finished.

    Args:
        layers: of the network's grid with their index, front to back.
        decoder: turns them into labels.
        axes: where the output's voxels lie on the network's axes, that of the layers first.
        shape: of the output, in the order of `axes`.
        confidence: is told of every layer; None where it is not asked for.
        device: of the output.

    Returns:
        The output; None where no layer of it lies inside the network's grid.
    """
    depth, rows, columns = axes
    output: torch.Tensor | None = None
    # Output layers by the last network layer that they need.
    due: dict[int, list[int]] = {}
    inside: list[int] = np.flatnonzero(depth.inside).tolist()
    for index in inside:
        due.setdefault(int(depth.low[index]) + int(depth.fraction[index] > 0), []).append(index)
    below_interpolated = {int(depth.low[index]) for index in inside if depth.fraction[index]}
    below: Layer | None = None
    pinned = False
    for k, layer in layers:
        if confidence is not None:
            with_ram_fallback(confidence.add, k, layer)
        for index in due.get(k, []):
            fraction = float(depth.fraction[index])
            lower = below.to(layer.sums.device) if fraction and below is not None else layer
            plane = with_ram_fallback(decoder.plane, lower, layer, fraction, rows, columns)
            del lower
            if output is None:
                pinned = plane.device.type == "cuda" and device.type == "cpu"
                output = torch.zeros((plane.shape[0], *shape), dtype=plane.dtype, device=device, pin_memory=pinned)
            output[:, index].copy_(plane, non_blocking=True)
        below = layer if k in below_interpolated else None
        del layer  # else the memory of a full batch of layers would live until the next one is finished
    if pinned:
        torch.cuda.synchronize()  # the copies above were asynchronous
    return output


def with_ram_fallback(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(*args)`; when the GPU's memory is full, again with all tensors and layers in RAM."""
    try:
        return function(*args)
    except torch.OutOfMemoryError:
        logger.warning("The memory of the GPU is full: a layer is decoded in RAM")
        ram = torch.device("cpu")
        return function(*(value.to(ram) if isinstance(value, (torch.Tensor, Layer)) else value for value in args))


def auto_batch(
    network: Callable[..., Any], channels: int, roi: Sequence[int], slices: bool, device: torch.device
) -> int:
    """Return how many windows to run at once with `sw_batch_size="auto"`: as many as fill a GPU, or suit a CPU.

    Args:
        network: is tried once to measure its layers; only a module can be.
        channels: of its input.
        roi: of a window, three sizes.
        slices: whether windows are 2D.
        device: where it runs.
    """
    limit = _GPU_BATCH if device.type == "cuda" else _CPU_BATCH
    free = resources.free_gpu_memory(device)
    if free is None:
        free = resources.ram().free
    if not isinstance(network, torch.nn.Module):
        return _CPU_BATCH
    size = tuple(roi[1:]) if slices else tuple(roi)
    width = memory.width_of(network, channels, size)
    return max(1, min(limit, int(_SHARE * free / memory.window_bytes(channels, width, width, size))))
