"""Whole volumes through a network in bounded memory: labels come out, never all logits at once.

Not MONAI's `SlidingWindowInferer` or `SliceInferer`: these keep the logits of every class for the whole volume,
which for 118 classes on 512x512x800 voxels are 99 GB, and twice that on the way back to the scan's grid. Here
windows run front to back; a layer that no later window touches is brought to the grid that is asked for and
decided at once, and only its labels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from tqdm import tqdm

from medseg.errors import ConfigError, DataError, GeometryError
from medseg.inference.head import split_head
from medseg.inference.kernels import Layer, best_of, interpolated, labels_between
from medseg.inference.network_call import NetworkCall
from medseg.inference.slab import Slab
from medseg.inference.way_back import WayBack
from medseg.inference.windows import Layers, Plan, cut

OUTPUTS = ("network", "source")


class StreamingInferer(Inferer):
    """Sliding windows through a volume, then the label of every voxel.

    `(1, C, I, J, K)` gives `(1, 1, I, J, K)`, class indices as uint8 (int16 above 256 classes); with
    `multilabel`, `(1, channels, I, J, K)`, uint8 0 or 1. Arguments named as in MONAI's `SlidingWindowInferer`
    mean what they mean there.

    Args:
        roi_size: of a window: `(h, w)` for a network of slices, three sizes for one of volumes. What is
            smaller than it is filled up, as in training.
        sw_batch_size: windows that go through the network at once.
        overlap: share of a window that overlaps its neighbour, 0 to below 1.
        mode: `gaussian` (the middle of a window counts more) or `constant`.
        sigma_scale: of the gaussian.
        cval: value of the input outside the volume.
        spatial_dim: for a network of slices, the axis along which they lie.
        context: for a network of slices, neighbours on each side that join as channels, see `RandSlicePatchd`.
        output: the grid of the labels: `network` for that of the input, `source` for the one it was read on:
            logits are interpolated linearly, where MONAI's `Invertd` would put them, before they are decided.
        multilabel: whether the channels are independent structures: probability above `threshold` is 1.
        threshold: used only with `multilabel`.
        logits: give the logits themselves, `(1, channels, I, J, K)`, float32; for small volumes.
        flips: axes (of the input's three) along which it is flipped for another look, `[[0], [1], [0, 1]]`;
            the logits of all looks are averaged.
        twins: for each channel the one that stands for the same structure on the other side; swapped where
            axis 0, left-right in RAS, is flipped.
        only: class indices that may come out; voxels of all others become background.
        precision: `fp32`, or `bf16` or `fp16` for the network; sums and logits stay float32.
        progress: whether to show a bar with the time left.

    Raises:
        ConfigError: arguments that cannot be.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 4,
        overlap: float = 0.25,
        mode: str = "gaussian",
        sigma_scale: float = 0.125,
        cval: float = 0.0,
        spatial_dim: int = 2,
        context: int = 0,
        output: str = "network",
        multilabel: bool = False,
        threshold: float = 0.5,
        logits: bool = False,
        flips: Sequence[Sequence[int]] = (),
        twins: Sequence[int] | None = None,
        only: Sequence[int] | None = None,
        precision: str = "fp32",
        progress: bool = False,
    ) -> None:
        super().__init__()
        if len(roi_size) not in (2, 3) or min(roi_size) < 1 or sw_batch_size < 1 or context < 0:
            raise ConfigError(
                "StreamingInferer",
                "needs two or three positive roi sizes, a batch above 0, context of 0 or more",
                f"roi_size={roi_size}, sw_batch_size={sw_batch_size}, context={context}",
            )
        if not 0 <= overlap < 1 or mode not in ("gaussian", "constant") or not 0 < threshold < 1:
            raise ConfigError(
                "StreamingInferer",
                "needs overlap in [0, 1), mode gaussian or constant, threshold in (0, 1)",
                f"overlap={overlap}, mode={mode}, threshold={threshold}",
            )
        if output not in OUTPUTS or spatial_dim not in (0, 1, 2):
            raise ConfigError(
                "StreamingInferer",
                f"needs output {' or '.join(OUTPUTS)} and spatial_dim 0, 1 or 2",
                f"output={output}, spatial_dim={spatial_dim}",
            )
        if len(roi_size) == 3 and context:
            raise ConfigError("StreamingInferer", "takes context with networks of slices only", f"roi_size={roi_size}")
        self.slices = len(roi_size) == 2
        self.axis = spatial_dim if self.slices else 0
        self.roi = (1, *map(int, roi_size)) if self.slices else tuple(map(int, roi_size))
        self.overlap, self.mode, self.sigma_scale, self.cval = overlap, mode, sigma_scale, cval
        self.context, self.output, self.multilabel, self.threshold = context, output, multilabel, threshold
        self.logits, self.only, self.progress, self.sw_batch_size = logits, only, progress, sw_batch_size
        self._call: dict[str, Any] = {
            "flips": flips,
            "twins": twins,
            "precision": precision,
            "axis": self.axis,
            "slices": self.slices,
        }
        NetworkCall(torch.nn.Identity(), **self._call)  # sees that these can be

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run `network` over `inputs`, `(B, C, I, J, K)`.

        Raises:
            GeometryError: the input is not 5-dimensional; with `output="source"`, see `WayBack.to_source`.
            DataError: the input holds NaN or infinite values.
            ConfigError: the network gives anything but one tensor of windows.
        """
        if inputs.ndim != 5 or not inputs.numel():
            raise GeometryError("StreamingInferer", "takes volumes (B, C, I, J, K)", f"shape {tuple(inputs.shape)}")
        found = [self._volume(one, network, *args, **kwargs) for one in inputs]
        whole = torch.stack([one for one, _ in found]) if len(found) > 1 else found[0][0][None]
        if not isinstance(inputs, MetaTensor):
            return whole
        back = found[0][1]
        if self.output == "network":
            result = MetaTensor(whole, meta=inputs.meta, applied_operations=inputs.applied_operations)
        else:
            result = MetaTensor(whole, affine=torch.as_tensor(back.affine), meta=_read_meta(inputs))
        return torch.as_tensor(result)

    def _volume(
        self, image: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, WayBack]:
        volume = image.as_tensor() if isinstance(image, MetaTensor) else image
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(volume)):
            name = image.meta.get("filename_or_obj", "the input") if isinstance(image, MetaTensor) else "the input"
            raise DataError(name, "needs finite values for the network", "NaN or infinite ones")
        if self.output == "network":
            back = WayBack.none(volume.shape[1:])
        elif isinstance(image, MetaTensor):
            back = WayBack.to_source(image)
        else:
            raise GeometryError("output='source'", "needs a MetaTensor that says where it comes from", "a plain tensor")
        others = [axis for axis in range(3) if axis != self.axis]
        depth, rows, columns = (back.axes[axis] for axis in (self.axis, *others))
        result: torch.Tensor | None = None
        made = torch.empty(0)
        due: dict[int, list[int]] = {}
        for at in range(len(depth.low)):
            if depth.inside[at]:
                due.setdefault(int(depth.low[at]) + int(depth.part[at] > 0), []).append(at)
        joined = {int(depth.low[at]) for at in range(len(depth.low)) if depth.inside[at] and depth.part[at]}
        below: Layer | None = None
        for k, layer in self._layers(volume.movedim(self.axis + 1, 1), network, *args, **kwargs):
            for at in due.get(k, []):
                part = float(depth.part[at])
                plane = self._decide(below if part and below is not None else layer, layer, part, rows, columns)
                if result is None:
                    # In memory it lies as it is made, layer by layer: across them, writing takes several times as long.
                    order = [back.order[axis] for axis in (self.axis, *others)]
                    made = torch.zeros((plane.shape[0], *(back.shape[axis] for axis in order)), dtype=plane.dtype)
                    result = made.permute(0, *(1 + order.index(axis) for axis in range(3)))
                made[:, at].copy_(plane)
            below = layer if k in joined else None
            del layer  # its memory is that of a whole batch
        if result is None:
            raise GeometryError("StreamingInferer", "needs a scan that overlaps the network's grid", "none of it there")
        return result, back

    def _decide(self, below: Layer, above: Layer, part: float, rows: Any, columns: Any) -> torch.Tensor:
        """One output layer, `(channels, rows, columns)`."""
        if not (self.logits or self.multilabel):
            labels = labels_between(below, above, part, rows, columns)
            return (labels if self.only is None else _only(labels, self.only))[None]
        mixed = interpolated(below, above, part, rows, columns).movedim(-1, 0)
        return mixed if self.logits else (torch.sigmoid(mixed) > self.threshold).to(torch.uint8)

    def _layers(
        self, volume: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> Iterator[tuple[int, Layer]]:
        """The finished layers of a volume `(C, K, I, J)`, front to back."""
        plan = Plan.of(volume.shape[1:], self.roi, [0.0 if size == 1 else self.overlap for size in self.roi])
        with split_head(network, wanted=not plan.single and not self._call["flips"]) as (body, head):
            call = NetworkCall(body, *args, **self._call, **kwargs)
            slab = Slab(plan, plan.importance(self.mode, self.sigma_scale, volume.device), head)
            windows, layers = list(plan), Layers(volume)
            with tqdm(total=len(windows), unit="window", disable=not self.progress, leave=False) as bar:
                for first in range(0, len(windows), self.sw_batch_size):
                    starts = windows[first : first + self.sw_batch_size]
                    tiles = call(torch.stack([self._cut(layers, start) for start in starts]))
                    for number, start in enumerate(starts):
                        slab.add(start, tiles[number])
                    del tiles
                    bar.update(len(starts))
                    following = first + len(starts)
                    until = windows[following][0] if following < len(windows) else plan.shape[0]
                    yield from ((k, self._layer(sums, weights)) for k, sums, weights in slab.finished(until))

    def _layer(self, sums: torch.Tensor, weights: torch.Tensor | None) -> Layer:
        return Layer(sums, weights, sums.new_empty(0) if self.multilabel or self.logits else best_of(sums))

    def _cut(self, layers: Layers, start: tuple[int, int, int]) -> torch.Tensor:
        """The network's input for one window: `(C, h, w)` or `(C, d, h, w)`."""
        if not self.slices:
            return cut(layers.volume, start, self.roi, self.cval)
        around = range(start[0] - self.context, start[0] + self.context + 1)
        parts = [cut(layers[k], (0, *start[1:]), self.roi, self.cval)[:, 0] for k in around]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _only(labels: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    return torch.where(torch.isin(labels, torch.tensor(list(wanted), device=labels.device)), labels, 0)


def _read_meta(inputs: MetaTensor) -> dict[str, Any]:
    """What is known of the scan as it was read: its metadata without what the transforms made of it."""
    return {key: value for key, value in inputs.meta.items() if key != "affine"}
