"""Whole volumes through a network in bounded memory: labels come out, never all logits at once.

Not MONAI's `SlidingWindowInferer` or `SliceInferer`: these keep the logits of every class for the whole volume,
which for 118 classes on 512x512x800 voxels are 99 GB, and twice that on the way back to the scan's grid. Here
windows run front to back; a layer that no later window touches is brought to the grid that is asked for and
decided at once, and only its labels stay.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from medseg.errors import ConfigError, DataError, GeometryError
from medseg.inference import coarse_roi
from medseg.inference.grid_mapping import OutputGridMap
from medseg.inference.kernels import Axis, Layer
from medseg.inference.label_decoder import Confidence, LabelDecoder
from medseg.inference.stream import Stream, in_memory_there_is, serving_batch
from medseg.inference.window_forward import WindowForward
from medseg.inference.windows import Plan

logger = logging.getLogger(__name__)

OUTPUTS = ("network", "source")


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of one call of a `StreamingInferer`; None leaves what the inferer was built with.

    An inferer that a config built is shared: callers pass what they need with the call and never set its attributes.

    Args:
        sw_device: see `StreamingInferer`, as all that follow.
        sw_batch_size: windows that go through the network at once.
        only: labels that may come out.
        skip_empty: whether to search coarsely first, with `only`.
        confidence: whether to give the mean probability of each label.
        progress: whether to show a progress bar.

    Example:
        >>> inferer = StreamingInferer((2, 2))
        >>> labels = inferer(torch.ones(1, 1, 2, 2, 3), torch.nn.Identity(), options=InferenceOptions(sw_batch_size=1))
        >>> labels.shape, inferer.sw_batch_size
        (torch.Size([1, 1, 2, 2, 3]), 4)
    """

    sw_device: torch.device | str | None = None
    sw_batch_size: int | str | None = None
    only: Sequence[int] | None = None
    skip_empty: bool | None = None
    confidence: bool | None = None
    progress: bool | None = None


class StreamingInferer(Inferer):
    """Sliding windows through a volume, then the label of every voxel.

    `(1, C, I, J, K)` gives `(1, 1, I, J, K)`, class indices as uint8 (int16 above 256 classes); with
    `multilabel`, `(1, channels, I, J, K)`, uint8 0 or 1. Arguments named as in MONAI's `SlidingWindowInferer`
    mean what they mean there.

    Args:
        roi_size: of a window: `(h, w)` for a network of slices, three sizes for one of volumes. What is
            smaller than it is filled up, as in training.
        sw_batch_size: windows that go through the network at once; `auto` for as many as fill the GPU's free
            memory, or serve a CPU.
        overlap: share of a window that overlaps its neighbour, 0 to below 1.
        mode: `gaussian` (the middle of a window counts more) or `constant`.
        sigma_scale: of the gaussian.
        cval: value of the input outside the volume.
        sw_device: where windows and network run; by default where the input is.
        device: where what the network says is added up; by default where it runs. Where memory runs out there,
            it goes on in RAM. The labels come where the input is.
        spatial_dim: for a network of slices, the axis along which they lie.
        context: for a network of slices, neighbours on each side that join as channels, see `RandSlicePatchd`.
        output: the grid of the labels: `network` for that of the input, `source` for the one it was read on:
            logits are interpolated linearly, where MONAI's `Invertd` would put them, before they are decided.
        multilabel: whether the channels are independent structures: probability above `threshold` is 1.
        threshold: used only with `multilabel`; one, or one for each channel.
        packing: used only with `multilabel`: `channels`, `bits` or `labels`, see `Decision`. The last two spare
            the memory of 0 and 1 for each channel.
        overlap_priority: for `packing="labels"`, the labels, the one that covers all others last.
        logits: give the logits themselves, `(1, channels, I, J, K)`, float32; for small volumes.
        confidence: give, as `meta["confidence"]` of the MetaTensor that comes out, the mean probability of each
            label over the voxels (of the network's grid) that got it; NaN where there are none.
        flips: axes (of the input's three) along which it is flipped for another look, `[[0], [1], [0, 1]]`;
            the logits of all looks are averaged.
        contralaterals: for each channel the one that stands for the same structure on the other side; swapped where
            axis 0, left-right in RAS, is flipped.
        only: labels that may come out; voxels of all others become background.
        skip_empty: with `only`, look at windows without overlap first (of slices, at one every 8 mm), and then
            run only those windows that touch the box around what was seen there. What lies in the box is the same
            as without; what the first look misses, and what lies outside, is background.
        precision: `fp32`, or `bf16` or `fp16` for the network; sums and logits stay float32.
        progress: whether to show a bar with the time left.

    Raises:
        ConfigError: arguments that cannot be.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int | str = 4,
        overlap: float = 0.25,
        mode: str = "gaussian",
        sigma_scale: float = 0.125,
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        spatial_dim: int = 2,
        context: int = 0,
        output: str = "network",
        multilabel: bool = False,
        threshold: float | Sequence[float] = 0.5,
        packing: str = "channels",
        overlap_priority: Sequence[int] | None = None,
        logits: bool = False,
        confidence: bool = False,
        flips: Sequence[Sequence[int]] = (),
        contralaterals: Sequence[int] | None = None,
        only: Sequence[int] | None = None,
        skip_empty: bool = False,
        precision: str = "fp32",
        progress: bool = False,
    ) -> None:
        super().__init__()
        whole = sw_batch_size == "auto" or (isinstance(sw_batch_size, int) and sw_batch_size > 0)
        if len(roi_size) not in (2, 3) or min(roi_size) < 1 or not whole or context < 0:
            raise ConfigError(
                "StreamingInferer",
                "needs two or three positive roi sizes, a batch above 0 or auto, context of 0 or more",
                f"roi_size={roi_size}, sw_batch_size={sw_batch_size}, context={context}",
            )
        if not 0 <= overlap < 1 or mode not in ("gaussian", "constant"):
            raise ConfigError(
                "StreamingInferer",
                "needs overlap in [0, 1) and mode gaussian or constant",
                f"overlap={overlap}, mode={mode}",
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
        self.sw_device, self.device = sw_device, device
        self.context, self.output, self.multilabel, self.threshold = context, output, multilabel, threshold
        self.packing, self.overlap_priority, self.logits, self.confidence = (
            packing,
            overlap_priority,
            logits,
            confidence,
        )
        self.only, self.skip_empty = only, skip_empty
        self.progress, self.sw_batch_size = progress, sw_batch_size
        self._call: dict[str, Any] = {
            "flips": flips,
            "contralaterals": contralaterals,
            "precision": precision,
            "axis": self.axis,
            "slices": self.slices,
        }
        WindowForward(torch.nn.Identity(), **self._call)  # sees that these can be
        self._decision()

    def _decision(self, packing: str | None = None) -> LabelDecoder:
        return LabelDecoder(
            self.multilabel,
            self.threshold,
            packing or self.packing,
            self.overlap_priority,
            self.logits,
            self.only,
            self.confidence,
        )

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        options: InferenceOptions | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run `network` over `inputs`, `(B, C, I, J, K)`, or for a network of slices images `(B, C, I, J)`.

        Args:
            inputs: the batch.
            network: gives logits for windows.
            *args: go to the network after the windows.
            options: settings of this call alone.
            **kwargs: go to the network, too.

        Raises:
            GeometryError: the input is not 5-dimensional; with `output="source"`, see `OutputGridMap.to_source`.
            DataError: the input holds NaN or infinite values.
            ConfigError: the network gives anything but one tensor of windows.
        """
        if options is not None:
            return self.with_options(options)(inputs, network, *args, **kwargs)
        if inputs.ndim == 4 and self.slices and inputs.numel():
            return self._images(inputs, network, *args, **kwargs)
        if inputs.ndim != 5 or not inputs.numel():
            raise GeometryError("StreamingInferer", "takes volumes (B, C, I, J, K)", f"shape {tuple(inputs.shape)}")
        found = [self._volume(one, network, *args, **kwargs) for one in inputs]
        whole = torch.stack([one for one, _, _ in found]) if len(found) > 1 else found[0][0][None]
        sure = [one for _, _, one in found]
        if not isinstance(inputs, MetaTensor):
            return torch.as_tensor(MetaTensor(whole, meta={"confidence": sure})) if self.confidence else whole
        if self.output == "network":
            result = MetaTensor(whole, meta=dict(inputs.meta), applied_operations=inputs.applied_operations)
        else:
            places = np.stack([back.affine for _, back, _ in found if back.affine is not None])
            affine = torch.as_tensor(places if inputs.is_batch else places[0])
            result = MetaTensor(whole, affine=affine, meta=_read_meta(inputs))
        result.is_batch = inputs.is_batch  # of a loader's batch each scan has its own place
        if self.confidence:
            result.meta["confidence"] = sure
        return torch.as_tensor(result)

    def _images(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Images `(B, C, I, J)` as the slices of one volume, for they have nothing to do with each other otherwise.

        Back on the grids that they came on they may differ in size: then it takes one image alone.
        """
        if self.context or self.axis != 2 or self.confidence or (self.output == "source" and len(inputs) > 1):
            found = f"{tuple(inputs.shape)}, context={self.context}, axis {self.axis}, output={self.output}"
            raise GeometryError(
                "StreamingInferer", "takes images without context, and with output='source' one at a time", found
            )
        if self.output == "source":
            image = inputs[0]  # of a batch that was collated, too, this one has what is known of it alone
            volume = image[..., None]
            if isinstance(image, MetaTensor):
                shape = (*np.asarray(image.meta.get("spatial_shape", image.shape[1:])).ravel()[:2], 1)
                meta = {**_read_meta(image), "spatial_shape": shape}
                volume = MetaTensor(image.as_tensor()[..., None], affine=image.affine, meta=meta)
            return torch.as_tensor(self(volume[None], network, *args, **kwargs)[..., 0])
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        labels = self(plain.movedim(0, -1)[None], network, *args, **kwargs)[0].movedim(-1, 0)
        if not isinstance(inputs, MetaTensor) or inputs.is_batch:
            return labels  # what is known of many images at once, collated, is no metadata of any
        return torch.as_tensor(MetaTensor(labels, meta=dict(inputs.meta), applied_operations=inputs.applied_operations))

    def _volume(
        self, image: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, OutputGridMap, list[float]]:
        """The labels of one image, `(channels, I, J, K)`, where they lie, and how sure the network is of them."""
        volume = image.as_tensor() if isinstance(image, MetaTensor) else image
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(volume)):
            name = image.meta.get("filename_or_obj", "the input") if isinstance(image, MetaTensor) else "the input"
            raise DataError(name, "needs finite values for the network", "NaN or infinite ones")
        if self.output == "network":
            back = OutputGridMap.none(volume.shape[1:])
        elif isinstance(image, MetaTensor):
            back = OutputGridMap.to_source(image)
        else:
            raise GeometryError("output='source'", "needs a MetaTensor that says where it comes from", "a plain tensor")
        others = [axis for axis in range(3) if axis != self.axis]
        axes = [back.axes[axis] for axis in (self.axis, *others)]
        decision = self._decision()
        stream = self._stream(volume.movedim(self.axis + 1, 1), network, decision, *args, **kwargs)
        plan = Plan.of(stream.volume.shape[1:], self.roi, [0.0 if size == 1 else self.overlap for size in self.roi])
        box: coarse_roi.Box | None = ((0, plan.shape[0]), (0, plan.shape[1]), (0, plan.shape[2]))
        if self.skip_empty and self.only is not None:
            box = self._look(stream, plan, _spacing(image, self.axis))
            axes = [coarse_roi.within(axis, span) for axis, span in zip(axes, box or [(0, 0)] * 3, strict=True)]
        elif not all(axis.inside.any() for axis in axes):
            raise GeometryError("StreamingInferer", "needs a scan that overlaps the network's grid", "none of it there")
        sure = Confidence(decision, box) if self.confidence and box is not None else None
        held = 2 if axes[0].part.any() else 1  # layers of the output lie between two of the network's, or on one
        layers = stream.run(plan.narrowed(box), held) if box is not None else ()
        # In memory it lies as it is made, layer by layer: across them, writing takes several times as long.
        order = [back.order[axis] for axis in (self.axis, *others)]
        shape = [back.shape[axis] for axis in order]
        made = _decided(layers, decision, axes, shape, sure, volume.device)
        if made is None:
            made = decision.nothing(stream.channels, shape, volume.device)
        return made.permute(0, *(1 + order.index(axis) for axis in range(3))), back, sure.means() if sure else []

    def with_options(self, options: InferenceOptions) -> StreamingInferer:
        """Return an inferer like this one with those options that are set; this one stays as it is."""
        changed = copy.copy(self)
        for option in fields(options):
            value = getattr(options, option.name)
            if value is not None:
                setattr(changed, option.name, value)
        return changed

    def batch_for(self, network: Callable[..., Any], channels: int, device: torch.device) -> int:
        """How many windows go through the network at once on a device; `channels` of its input."""
        if isinstance(self.sw_batch_size, int):
            return self.sw_batch_size
        return serving_batch(network, channels, self.roi, self.slices, device)

    def _stream(
        self,
        volume: torch.Tensor,
        network: Callable[..., torch.Tensor],
        decision: LabelDecoder,
        *args: Any,
        **kwargs: Any,
    ) -> Stream:
        there = torch.device(self.sw_device) if self.sw_device is not None else volume.device
        return Stream(
            volume, network, *args, decision=decision, call=self._call,
            batch=self.batch_for(network, volume.shape[0] * (2 * self.context + 1), there),
            context=self.context, mode=self.mode, sigma_scale=self.sigma_scale, cval=self.cval, sw_device=there,
            device=torch.device(self.device) if self.device is not None else there, progress=self.progress, **kwargs,
        )  # fmt: skip

    def _look(self, stream: Stream, whole: Plan, spacing: float | None) -> coarse_roi.Box | None:
        """Where a first pass sees something of what is wanted; the whole volume where it would cost as much."""
        step = coarse_roi.STEP if spacing is None else max(1, round(coarse_roi.STEP_MM / spacing))
        shape = whole.shape
        plan = coarse_roi.first_pass(shape, self.roi, step)
        if len(plan) == len(whole):
            return (0, shape[0]), (0, shape[1]), (0, shape[2])
        final, stream.decision = stream.decision, self._decision("labels" if self.multilabel else None)
        try:
            box = coarse_roi.seen_in(stream.run(plan, title="looking"), self.only or (), plan, step)
        finally:
            stream.decision = final
        logger.info("%s", "Nothing of what is wanted was seen" if box is None else f"Seen within {box} of {shape}")
        return box


def _decided(
    layers: Iterable[tuple[int, Layer]],
    decision: LabelDecoder,
    axes: Sequence[Axis],
    shape: Sequence[int],
    sure: Confidence | None,
    device: torch.device,
) -> torch.Tensor | None:
    """All layers of the output, `(channels, *shape)`, as the network's become finished; None where none is due."""
    depth, rows, columns = axes
    made: torch.Tensor | None = None
    due: dict[int, list[int]] = {}
    inside: list[int] = np.flatnonzero(depth.inside).tolist()
    for at in inside:
        due.setdefault(int(depth.low[at]) + int(depth.part[at] > 0), []).append(at)
    joined = {int(depth.low[at]) for at in inside if depth.part[at]}
    below: Layer | None = None
    pinned = False
    for k, layer in layers:
        if sure is not None:
            in_memory_there_is(sure.add, k, layer)
        for at in due.get(k, []):
            part = float(depth.part[at])
            under = below.to(layer.sums.device) if part and below is not None else layer
            plane = in_memory_there_is(decision.plane, under, layer, part, rows, columns)
            del under
            if made is None:
                pinned = plane.device.type == "cuda" and device.type == "cpu"
                made = torch.zeros((plane.shape[0], *shape), dtype=plane.dtype, device=device, pin_memory=pinned)
            made[:, at].copy_(plane, non_blocking=True)
        below = layer if k in joined else None
        del layer  # its memory is that of a whole batch
    if pinned:
        torch.cuda.synchronize()  # what was copied is there
    return made


def _spacing(image: torch.Tensor, axis: int) -> float | None:
    """From layer to layer, mm; None where nobody says."""
    if not isinstance(image, MetaTensor):
        return None
    return float(np.linalg.norm(np.asarray(image.affine, dtype=np.float64)[:3, axis])) or None


def _read_meta(inputs: MetaTensor) -> dict[str, Any]:
    """What is known of the scan as it was read: its metadata without what the transforms made of it."""
    return {key: value for key, value in inputs.meta.items() if key != "affine"}
