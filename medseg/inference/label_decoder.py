"""Decode the logits of a layer: to the largest class, to independent channels, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import ConfigError
from medseg.inference.kernels import (
    AxisMap,
    ChannelPriority,
    Layer,
    argmax_channels,
    flatten_channels,
    interpolate_labels,
    interpolate_logits,
)

DECODINGS = ("labels", "channels", "bits", "logits")


class LabelDecoder:
    """Turn finished layers into what the inferer returns.

    Args:
        multilabel: whether channels are independent structures, each present where its probability (sigmoid) is
            above its threshold. Otherwise the largest channel is the label.
        threshold: one for all channels, or one for each.
        decode: `labels`: one label map; with `multilabel`, channel `c` is label `c + 1`, and of overlapping ones
            the last in `overlap_priority` stays. `channels`: a volume of 0 and 1 for each channel. `bits`: channel
            `c` is bit `c % 8` of byte `c // 8`, as `numpy.unpackbits(..., bitorder="little")` reads it. `logits`:
            float32. By default `channels` with `multilabel`, else `labels`.
        overlap_priority: labels, the one that covers all others last; by default in their order.
        structures: labels that may come out; None for all.
        channels: of the network's output, where it is known beforehand.

    Raises:
        ConfigError: an argument is out of its range, or contradicts another one.
    """

    def __init__(
        self,
        multilabel: bool = False,
        threshold: float | Sequence[float] = 0.5,
        decode: str | None = None,
        overlap_priority: Sequence[int] | None = None,
        structures: Sequence[int] | None = None,
        channels: int | None = None,
    ) -> None:
        thresholds = list(threshold) if isinstance(threshold, Sequence) else [threshold]
        if not thresholds or not all(0 < value < 1 for value in thresholds):
            raise ConfigError("threshold", "must lie between 0 and 1", f"got {threshold}")
        decode = decode or ("channels" if multilabel else "labels")
        if decode not in DECODINGS:
            raise ConfigError("decode", f"must be one of {', '.join(DECODINGS)}", f"got '{decode}'")
        if decode in ("channels", "bits") and not multilabel:
            raise ConfigError("decode", f"'{decode}' is for multilabel networks", "multilabel=False")
        if decode == "logits" and structures is not None:
            raise ConfigError("structures", "logits cannot be restricted to structures", "decode='logits'")
        self.multilabel = multilabel
        self.decode = decode
        self.structures = None if structures is None else [int(label) for label in structures]
        self.channels = channels
        self._thresholds = [math.log(value / (1 - value)) for value in thresholds]
        self._order = None if overlap_priority is None else [int(label) for label in overlap_priority]
        self._priority: ChannelPriority | None = None

    def layer(self, sums: torch.Tensor, weights: torch.Tensor | None) -> Layer:
        """Return a finished layer, with the labels of its own voxels where they are of use.

        Args:
            sums: `(I, J, C)`.
            weights: `(I, J)`, or None where they are 1.

        Raises:
            ConfigError: the network has another number of channels than its labels.
        """
        channels = sums.shape[-1]
        if self.channels is not None and channels != self.channels:
            problem = f"the network returns {channels} channels, but its label map needs {self.channels}"
            raise ConfigError("StreamingInferer, labels", problem)
        if self.decode != "labels":
            return Layer(sums, weights, sums.new_empty(0))
        if self.multilabel:
            return Layer(sums, weights, flatten_channels(sums, weights, self.priority(channels)))
        return Layer(sums, weights, argmax_channels(sums))

    def plane(self, below: Layer, above: Layer, fraction: float, rows: AxisMap, columns: AxisMap) -> torch.Tensor:
        """Return one layer of the output, `(channels, rows, columns)`, `fraction` of the way from below to above."""
        if self.decode == "logits":
            return interpolate_logits(below, above, fraction, rows, columns).movedim(-1, 0)
        channels = below.sums.shape[-1]
        if not self.multilabel:
            labels = interpolate_labels(below, above, fraction, rows, columns)
            return (labels if self.structures is None else _keep(labels, self.structures))[None]
        if self.decode == "labels":
            return interpolate_labels(below, above, fraction, rows, columns, self.priority(channels))[None]
        logits = interpolate_logits(below, above, fraction, rows, columns)
        inside = torch.from_numpy(rows.inside[:, None] & columns.inside).to(logits.device)
        present = (logits > torch.tensor(self.logit_thresholds(channels), device=logits.device)) & inside[..., None]
        if self.structures is not None:
            present &= torch.isin(torch.arange(channels) + 1, torch.tensor(self.structures)).to(logits.device)
        return (_pack_bits(present) if self.decode == "bits" else present.to(torch.uint8)).movedim(-1, 0)

    def background(self, channels: int, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """Return the output without any structure, `(channels, *shape)`, for a network of so many channels."""
        if not self.multilabel or self.decode == "labels":
            dtype = torch.uint8 if channels + int(self.multilabel) <= 256 else torch.int16
            return torch.zeros((1, *shape), dtype=dtype, device=device)
        planes = channels if self.decode == "channels" else -(-channels // 8)
        return torch.zeros((planes, *shape), dtype=torch.uint8, device=device)

    def logit_thresholds(self, channels: int) -> list[float]:
        """Return the logit above which each channel is present.

        Raises:
            ConfigError: there are thresholds for another number of channels.
        """
        count = len(self._thresholds)
        if count not in (1, channels):
            raise ConfigError("threshold", f"must be one, or one for each of the {channels} channels", f"got {count}")
        return self._thresholds if count == channels else self._thresholds * channels

    def priority(self, channels: int) -> ChannelPriority:
        """Return in which order channels are asked whether they are present, the one that covers all others first.

        Raises:
            ConfigError: `overlap_priority` names a label twice, or one that the network does not have.
        """
        if self._priority is None or len(self._priority.thresholds) != channels:
            order = list(range(1, channels + 1)) if self._order is None else self._order
            if len(set(order)) < len(order) or not set(order) <= set(range(1, channels + 1)):
                problem = f"must name labels from 1 to {channels}, each at most once"
                raise ConfigError("overlap_priority", problem, f"got {order}")
            asked = [label - 1 for label in reversed(order) if self.structures is None or label in self.structures]
            thresholds = np.array(self.logit_thresholds(channels), np.float32)
            self._priority = ChannelPriority(np.array(asked, np.int64), thresholds)
        return self._priority


class Confidence:
    """Average the probability of each label over the voxels that got it.

    On the network's grid, where probabilities are the network's own: softmax, or sigmoid with `multilabel`.

    Args:
        decoder: how labels are decoded.
        box: the part `(K, I, J)` of the network's grid that counts.
    """

    def __init__(self, decoder: LabelDecoder, box: Sequence[tuple[int, int]]) -> None:
        self.decoder = decoder
        self.layers, self.rows, self.columns = (slice(*span) for span in box)
        self._sums: npt.NDArray[np.float64] = np.zeros(0)
        self._counts: npt.NDArray[np.float64] = np.zeros(0)

    def add(self, k: int, layer: Layer) -> None:
        """Count the finished layer `k`."""
        if not self.layers.start <= k < self.layers.stop:
            return
        logits = layer.sums[self.rows, self.columns].float()
        if layer.weights is not None:
            logits = logits / layer.weights[self.rows, self.columns, None]
        channels = logits.shape[-1]
        if self.decoder.multilabel:
            thresholds = torch.tensor(self.decoder.logit_thresholds(channels), device=logits.device)
            present = logits > thresholds
            sums = (torch.sigmoid(logits) * present).sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
            counts = present.sum(dim=(0, 1)).cpu().numpy().astype(np.float64)
            sums, counts = np.insert(sums, 0, 0.0), np.insert(counts, 0, 0.0)
        else:
            probability, label = torch.softmax(logits, dim=-1).max(dim=-1)
            flat = label.cpu().numpy().ravel()
            weights = probability.cpu().numpy().ravel()
            sums = np.bincount(flat, weights=weights, minlength=channels).astype(np.float64)
            counts = np.bincount(flat, minlength=channels).astype(np.float64)
        self._sums = sums if not self._sums.size else self._sums + sums
        self._counts = counts if not self._counts.size else self._counts + counts

    def means(self) -> list[float]:
        """Return the mean by label; NaN where no voxel got it, and for the background of a multilabel network."""
        with np.errstate(invalid="ignore"):
            return [float(value) for value in np.divide(self._sums, self._counts)]


def _keep(labels: torch.Tensor, structures: Sequence[int]) -> torch.Tensor:
    return torch.where(torch.isin(labels, torch.tensor(list(structures), device=labels.device)), labels, 0)


def _pack_bits(present: torch.Tensor) -> torch.Tensor:
    """Pack `(..., C)` of True and False into `(..., ceil(C / 8))` bytes, the first channel in the lowest bit."""
    padded = torch.nn.functional.pad(present.to(torch.uint8), (0, -present.shape[-1] % 8))
    bits = padded.reshape(*present.shape[:-1], -1, 8) << torch.arange(8, dtype=torch.uint8, device=present.device)
    return bits.sum(dim=-1, dtype=torch.uint8)
