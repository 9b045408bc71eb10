"""Segment whole volumes in bounded memory: labels come out, all logits never exist at once.

Not MONAI's `SlidingWindowInferer` or `SliceInferer`: these keep the logits of every class for the whole volume,
which for 118 classes on 512x512x800 voxels are 99 GB, and twice that when they are resampled to the scan's grid.
Here windows run front to back; a layer that no later window touches is resampled to the output grid and decoded at
once, and only its labels remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from medseg.errors import ConfigError, DataError, GeometryError
from medseg.inference.coarse_roi import Box, coarse_box, restrict
from medseg.inference.grid_mapping import OutputGridMap
from medseg.inference.label_decoder import Confidence, LabelDecoder
from medseg.inference.stream import Stream, auto_batch, decode_layers
from medseg.inference.window_forward import WindowForward
from medseg.inference.windows import WindowPlan
from medseg.labels import LabelMap

GRIDS = ("network", "source")
MODES = ("gaussian", "constant")


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of one call of a `StreamingInferer`: an inferer that a config built is shared, and never changed.

    Args:
        sw_device: where windows and network run; None for the inferer's own.
        sw_batch_size: windows in a batch; None for the inferer's own.
        structures: labels, or for an inferer with `labels` names, that may come out; all other voxels become
            background. None for all.
        coarse_first: with `structures`, run windows without overlap first (for a 2D network, on a slice every 8 mm),
            then only the windows that touch the box around what they showed. Inside the box the result is the same
            as without; outside it is background.
        confidence: add `meta["confidence"]` to the MetaTensor that is returned: for each image the mean probability
            of each label over the voxels (of the network's grid) that got it, NaN for absent ones.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the batch is neither a whole number above 0 nor `auto`.

    Example:
        >>> inferer, network = StreamingInferer((2, 2)), torch.nn.Conv2d(1, 3, 1)
        >>> labels = inferer(torch.ones(1, 1, 2, 2, 4), network, options=InferenceOptions(structures=[2]))
        >>> labels.shape
        torch.Size([1, 1, 2, 2, 4])
    """

    sw_device: torch.device | str | None = None
    sw_batch_size: int | str | None = None
    structures: Sequence[int | str] | None = None
    coarse_first: bool = False
    confidence: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.sw_batch_size is not None:
            _require_batch_size(self.sw_batch_size)


class _Call(NamedTuple):
    """A network and the settings of one call of the inferer."""

    network: Callable[..., Any]
    forward: Callable[..., WindowForward]
    options: InferenceOptions
    structures: tuple[int, ...] | None


class StreamingInferer(Inferer):
    """Slide windows through a volume and return the label of every voxel.

    `(1, C, I, J, K)` gives `(1, 1, I, J, K)`, class indices as uint8 (int16 above 256 classes); with `multilabel`,
    `(1, channels, I, J, K)`, uint8 0 or 1. Arguments named as in MONAI's `SlidingWindowInferer` and `SliceInferer`
    mean what they mean there. What may change from call to call goes with the call, see `InferenceOptions`.

    Args:
        roi_size: of a window: `(h, w)` for a 2D network, three sizes for a 3D network. Images smaller than it are
            padded, as in training.
        sw_batch_size: windows in a batch; `auto` for as many as fill the GPU's free memory, or suit a CPU.
        overlap: share of a window that overlaps its neighbor, 0 to below 1.
        mode: `gaussian` (the center of a window counts more) or `constant`.
        sigma_scale: of the gaussian.
        cval: value of the input outside the volume.
        sw_device: where windows and network run; by default where the input is.
        device: where logits are added up; by default where the network runs. When memory runs out there, the sums
            move to RAM. The labels are returned where the input is.
        spatial_dim: for a 2D network, the axis along which the slices lie.
        context: for a 2D network, neighboring slices on each side that join as channels, see `RandSlicePatchd`.
        output_grid: `network` for the grid of the input, `source` for the grid of the file it was read from:
            logits are interpolated linearly, where MONAI's `Invertd` would put them, before they are decoded.
        multilabel: whether the channels are independent structures, present where the sigmoid is above `threshold`.
        threshold: for `multilabel`, a number or a number for each channel.
        decode: what to return: `labels`, one label map, in which of overlapping multilabel channels the last in
            `overlap_priority` stays; `channels` or `bits`, the multilabel channels one by one or eight in a byte,
            see `LabelDecoder`; `logits`, float32, for small volumes. By default `channels` with `multilabel`, else
            `labels`.
        labels: what the channels mean. Names can then be given as `structures`, a network with another number of
            channels is refused, and the next two arguments follow from it.
        overlap_priority: labels, the one that covers all others last; by default that of `labels`, or their order.
        flips: axes (of the input's three) to flip for test-time augmentation, `[[0], [1], [0, 1]]`; the logits of
            all views are averaged.
        contralaterals: for each channel the channel of the same structure on the other side; they are exchanged
            where axis 0, left-right in RAS, is flipped. By default those of `labels`.
        precision: `fp32`, or `bf16` or `fp16` for the network; sums and logits stay float32.

    Raises:
        ConfigError: an argument is out of its range.
        LabelError: `flips` contains axis 0, and `labels` has one of two contralateral structures only.

    Example:
        >>> inferer = StreamingInferer((32, 32), overlap=0.5)
        >>> inferer(torch.zeros(1, 1, 40, 40, 3), torch.nn.Conv2d(1, 5, 1)).shape
        torch.Size([1, 1, 40, 40, 3])
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
        output_grid: str = "network",
        multilabel: bool = False,
        threshold: float | Sequence[float] = 0.5,
        decode: str | None = None,
        labels: LabelMap | None = None,
        overlap_priority: Sequence[int] | None = None,
        flips: Sequence[Sequence[int]] = (),
        contralaterals: Sequence[int] | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        _require(len(roi_size) in (2, 3) and min(roi_size) > 0, "roi_size", "must be 2 or 3 sizes above 0", roi_size)
        _require(0 <= overlap < 1, "overlap", "must be at least 0 and below 1", overlap)
        _require(mode in MODES, "mode", f"must be one of {', '.join(MODES)}", mode)
        _require(spatial_dim in (0, 1, 2), "spatial_dim", "must be 0, 1 or 2", spatial_dim)
        _require(context >= 0, "context", "must be 0 or more", context)
        _require(len(roi_size) == 2 or not context, "context", "is for 2D networks only, with two roi sizes", context)
        _require(output_grid in GRIDS, "output_grid", f"must be one of {', '.join(GRIDS)}", output_grid)
        self.slices = len(roi_size) == 2
        self.axis = spatial_dim if self.slices else 0
        self.roi = (1, *map(int, roi_size)) if self.slices else tuple(map(int, roi_size))
        _require_batch_size(sw_batch_size)
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode = mode
        self.sigma_scale = sigma_scale
        self.cval = cval
        self.sw_device = None if sw_device is None else torch.device(sw_device)
        self.device = None if device is None else torch.device(device)
        self.context = context
        self.output_grid = output_grid
        self.multilabel = multilabel
        self.threshold = threshold
        self.decode = decode
        self.labels = labels
        if labels is not None and overlap_priority is None:
            overlap_priority = [labels.index(name) for name in labels.overlap_priority()]
        if labels is not None and contralaterals is None and any(0 in axes for axes in flips):
            contralaterals = labels.mirror_permutation(background=not multilabel)
        self.overlap_priority = overlap_priority
        self.flips = flips
        self._forward: dict[str, Any] = {
            "flips": flips,
            "contralaterals": contralaterals,
            "precision": precision,
            "axis": self.axis,
            "slices": self.slices,
        }
        # Both check their arguments: better here than in the first scan.
        WindowForward(torch.nn.Identity(), **self._forward)
        self._decoder(None)

    def _decoder(self, structures: Sequence[int] | None, decode: str | None = None) -> LabelDecoder:
        channels = None if self.labels is None else len(self.labels) - int(self.multilabel)
        return LabelDecoder(
            self.multilabel, self.threshold, decode or self.decode, self.overlap_priority, structures, channels
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
        """Run `network` over `inputs`, `(B, C, I, J, K)`, or for a 2D network also images `(B, C, I, J)`.

        Args:
            inputs: the images, float.
            network: windows `(B, C, h, w)` or `(B, C, d, h, w)` to logits `(B, channels, ...)` of the same size.
            args: further arguments of the network.
            options: settings of this call.
            kwargs: further arguments of the network.

        Raises:
            GeometryError: the input has another number of axes; with `output_grid="source"`, see
                `OutputGridMap.to_source`.
            DataError: the input holds NaN or infinite values.
            ConfigError: the network returns anything but one tensor of the size of its windows.
            LabelError: a structure that `labels` does not know.
        """
        options = options or InferenceOptions()
        if options.confidence and self.decode == "logits":
            raise ConfigError("confidence", "cannot be computed for logits", "decode='logits'")

        def forward(body: Callable[..., Any]) -> WindowForward:
            return WindowForward(body, *args, **self._forward, **kwargs)

        call = _Call(network, forward, options, self._label_values(options.structures))
        if inputs.ndim == 4 and self.slices and inputs.numel():
            return self._images(inputs, call)
        if inputs.ndim != 5 or not inputs.numel():
            shape = f"got shape {tuple(inputs.shape)}"
            raise GeometryError("StreamingInferer", "the input must have the shape (B, C, I, J, K)", shape)
        return self._volumes(inputs, call)

    def _label_values(self, structures: Sequence[int | str] | None) -> tuple[int, ...] | None:
        if structures is None:
            return None
        values: list[int] = []
        for structure in structures:
            if not isinstance(structure, str):
                values.append(int(structure))
            elif self.labels is not None:
                values.append(self.labels.index(structure))
            else:
                raise ConfigError("structures", "names need an inferer with labels", f"got '{structure}'")
        return tuple(values)

    def _volumes(self, inputs: torch.Tensor, call: _Call) -> torch.Tensor:
        """Run the network over `(B, C, I, J, K)`, one volume after the other."""
        results = [self._volume(image, call) for image in inputs]
        labels = torch.stack([result[0] for result in results]) if len(results) > 1 else results[0][0][None]
        means = [result[2] for result in results]
        if not isinstance(inputs, MetaTensor):
            with_confidence = MetaTensor(labels, meta={"confidence": means})
            return torch.as_tensor(with_confidence) if call.options.confidence else labels
        if self.output_grid == "network":
            output = MetaTensor(labels, meta=dict(inputs.meta), applied_operations=inputs.applied_operations)
        else:
            affines = np.stack([grid.affine for _, grid, _ in results if grid.affine is not None])
            affine = torch.as_tensor(affines if inputs.is_batch else affines[0])
            output = MetaTensor(labels, affine=affine, meta=_source_meta(inputs))
        output.is_batch = inputs.is_batch  # each scan of a loader's batch has an affine of its own
        if call.options.confidence:
            output.meta["confidence"] = means
        return torch.as_tensor(output)

    def _images(self, inputs: torch.Tensor, call: _Call) -> torch.Tensor:
        """Run the network over images `(B, C, I, J)` as the slices of one volume: they do not depend on each other.

        On their source grids images may differ in size, so then only one is taken.
        """
        one_grid = self.output_grid == "network" or len(inputs) == 1
        if self.context or self.axis != 2 or call.options.confidence or not one_grid:
            problem = "2D images need context=0, spatial_dim=2, confidence=False, and one image a call for source grids"
            settings = f"context={self.context}, spatial_dim={self.axis}, confidence={call.options.confidence}"
            came = f"got shape {tuple(inputs.shape)}, {settings}, output_grid='{self.output_grid}'"
            raise GeometryError("StreamingInferer", problem, came)
        if self.output_grid == "source":
            image = inputs[0]  # also of a collated batch, the metadata of this image alone
            volume = image[..., None]
            if isinstance(image, MetaTensor):
                shape = (*np.asarray(image.meta.get("spatial_shape", image.shape[1:])).ravel()[:2], 1)
                meta = {**_source_meta(image), "spatial_shape": shape}
                volume = MetaTensor(image.as_tensor()[..., None], affine=image.affine, meta=meta)
            return torch.as_tensor(self._volumes(volume[None], call)[..., 0])
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        labels = self._volumes(plain.movedim(0, -1)[None], call)[0].movedim(-1, 0)
        if not isinstance(inputs, MetaTensor) or inputs.is_batch:
            return labels  # the collated metadata of many images is the metadata of none of them
        return torch.as_tensor(MetaTensor(labels, meta=dict(inputs.meta), applied_operations=inputs.applied_operations))

    def _volume(self, image: torch.Tensor, call: _Call) -> tuple[torch.Tensor, OutputGridMap, list[float]]:
        """Return the labels of one image, `(channels, I, J, K)`, their grid, and the confidence of each label."""
        volume = image.as_tensor() if isinstance(image, MetaTensor) else image
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(volume)):
            name = image.meta.get("filename_or_obj", "input") if isinstance(image, MetaTensor) else "input"
            raise DataError(name, "the network needs finite values, but some are NaN or infinite")
        if self.output_grid == "network":
            grid = OutputGridMap.identity(volume.shape[1:])
        elif isinstance(image, MetaTensor):
            grid = OutputGridMap.to_source(image)
        else:
            raise GeometryError("output_grid='source'", "needs a MetaTensor with its source grid", "got a plain tensor")
        in_plane = [axis for axis in range(3) if axis != self.axis]
        axes = [grid.axes[axis] for axis in (self.axis, *in_plane)]
        decoder = self._decoder(call.structures)
        stream = Stream(self, volume.movedim(self.axis + 1, 1), call.network, call.forward, call.options)
        overlap = [0.0 if size == 1 else self.overlap for size in self.roi]
        plan = WindowPlan.of(stream.volume.shape[1:], self.roi, overlap)
        box: Box | None = plan.box
        if call.options.coarse_first and call.structures is not None:
            coarse_decoder = self._decoder(call.structures, "labels")
            box = coarse_box(stream, plan, coarse_decoder, _layer_spacing(image, self.axis))
            axes = [restrict(axis, span) for axis, span in zip(axes, box or [(0, 0)] * 3, strict=True)]
        elif not all(axis.inside.any() for axis in axes):
            raise GeometryError("StreamingInferer", "the scan's grid does not overlap the network's grid")
        confidence = Confidence(decoder, box) if call.options.confidence and box is not None else None
        live = 2 if axes[0].fraction.any() else 1  # an output layer lies between two network layers, or on one
        layers = stream.run(plan.narrowed(box), decoder, live) if box is not None else ()
        # In memory the output is laid out layer by layer, as it is written: across layers, writing takes several
        # times as long.
        order = [grid.order[axis] for axis in (self.axis, *in_plane)]
        shape = [grid.shape[axis] for axis in order]
        output = decode_layers(layers, decoder, axes, shape, confidence, volume.device)
        if output is None:
            output = decoder.background(stream.channels, shape, volume.device)
        labels = output.permute(0, *(1 + order.index(axis) for axis in range(3)))
        return labels, grid, confidence.means() if confidence else []

    def batch_for(
        self, network: Callable[..., Any], channels: int, device: torch.device, sw_batch_size: int | str | None = None
    ) -> int:
        """Return how many windows of `channels` channels go through the network at once on a device."""
        size = self.sw_batch_size if sw_batch_size is None else sw_batch_size
        return size if isinstance(size, int) else auto_batch(network, channels, self.roi, self.slices, device)


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"StreamingInferer, {name}", rule, f"got {value!r}")


def _require_batch_size(value: int | str) -> None:
    is_size = isinstance(value, int) and value > 0
    _require(is_size or value == "auto", "sw_batch_size", "must be a whole number above 0 or auto", value)


def _layer_spacing(image: torch.Tensor, axis: int) -> float | None:
    """Return the distance between layers, mm; None for an image without an affine."""
    if not isinstance(image, MetaTensor):
        return None
    return float(np.linalg.norm(np.asarray(image.affine, dtype=np.float64)[:3, axis])) or None


def _source_meta(inputs: MetaTensor) -> dict[str, Any]:
    """Return the metadata of the scan as it was read: without the affine, which the transforms changed."""
    return {key: value for key, value in inputs.meta.items() if key != "affine"}
