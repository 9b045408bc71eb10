"""What is made of the logits of a layer: the largest class, channels of their own, or the logits themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import ConfigError
from medseg.inference.kernels import Axis, Layer, Painting, best_of, interpolated, labels_between, painted

PACKINGS = ("channels", "bits", "labels")


class LabelDecoder:
    """From logits to what comes out, one layer at a time.

    Args:
        multilabel: whether channels are independent structures; each is there where its probability (sigmoid) is
            above its threshold. Otherwise the largest channel is the label.
        threshold: one for all channels, or one for each.
        packing: for `multilabel`: `channels`, one volume of 0 and 1 for each; `bits`, channel `c` is bit `c % 8` of
            byte `c // 8`, as `numpy.unpackbits(..., bitorder="little")` undoes it; `labels`, one label map in which
            channel `c` is label `c + 1`, and of several the last in `overlap_priority` stays.
        overlap_priority: labels, the first painted first; by default in their order.
        logits: give the logits themselves, float32.
        only: labels that may come out.
        confidence: whether `seen` is to gather how sure the network was.

    Raises:
        ConfigError: arguments that cannot be.
    """

    def __init__(
        self,
        multilabel: bool = False,
        threshold: float | Sequence[float] = 0.5,
        packing: str = "channels",
        overlap_priority: Sequence[int] | None = None,
        logits: bool = False,
        only: Sequence[int] | None = None,
        confidence: bool = False,
    ) -> None:
        thresholds = list(threshold) if isinstance(threshold, Sequence) else [threshold]
        if not thresholds or not all(0 < one < 1 for one in thresholds):
            raise ConfigError("threshold", "must lie between 0 and 1", str(threshold))
        if packing not in PACKINGS:
            raise ConfigError("packing", f"must be one of {', '.join(PACKINGS)}", f"'{packing}'")
        if packing != "channels" and not multilabel:
            raise ConfigError("packing", "is for multilabel networks", f"'{packing}' and multilabel=False")
        if logits and (confidence or only is not None):
            raise ConfigError("logits", "come as they are", "confidence or only beside them")
        self.multilabel, self.packing, self.logits = multilabel, packing, logits
        self.only = None if only is None else [int(label) for label in only]
        self.confidence = confidence
        self._cuts = [math.log(one / (1 - one)) for one in thresholds]
        self._order = None if overlap_priority is None else [int(label) for label in overlap_priority]
        self._painting: Painting | None = None

    def layer(self, sums: torch.Tensor, weights: torch.Tensor | None) -> Layer:
        """A finished layer, with what each of its own voxels is decided to be where that is of use.

        Args:
            sums: `(I, J, C)`.
            weights: `(I, J)`, or None where they are 1.
        """
        if self.logits or (self.multilabel and self.packing != "labels"):
            return Layer(sums, weights, sums.new_empty(0))
        if self.multilabel:
            return Layer(sums, weights, painted(sums, weights, self.painting(sums.shape[-1])))
        return Layer(sums, weights, best_of(sums))

    def plane(self, below: Layer, above: Layer, part: float, rows: Axis, columns: Axis) -> torch.Tensor:
        """One layer of the output, `(channels, rows, columns)`."""
        if self.logits:
            return interpolated(below, above, part, rows, columns).movedim(-1, 0)
        channels = below.sums.shape[-1]
        if not self.multilabel:
            labels = labels_between(below, above, part, rows, columns)
            return (labels if self.only is None else _only(labels, self.only))[None]
        if self.packing == "labels":
            return labels_between(below, above, part, rows, columns, self.painting(channels))[None]
        mixed = interpolated(below, above, part, rows, columns)
        inside = torch.from_numpy(rows.inside[:, None] & columns.inside).to(mixed.device)
        there = (mixed > torch.tensor(self.cuts(channels), device=mixed.device)) & inside[..., None]
        if self.only is not None:
            there &= torch.isin(torch.arange(channels) + 1, torch.tensor(self.only)).to(mixed.device)
        return (_bits(there) if self.packing == "bits" else there.to(torch.uint8)).movedim(-1, 0)

    def nothing(self, channels: int, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """The output where nothing is, `(channels, *shape)`, for a network of so many channels."""
        if not self.multilabel or self.packing == "labels":
            kind = torch.uint8 if channels + int(self.multilabel) <= 256 else torch.int16
            return torch.zeros((1, *shape), dtype=kind, device=device)
        many = channels if self.packing == "channels" else -(-channels // 8)
        return torch.zeros((many, *shape), dtype=torch.uint8, device=device)

    def cuts(self, channels: int) -> list[float]:
        """The logit above which each channel is there.

        Raises:
            ConfigError: there are thresholds for another number of channels.
        """
        if len(self._cuts) not in (1, channels):
            raise ConfigError("threshold", f"must be one, or one for each of the {channels} channels", f"{self._cuts}")
        return self._cuts if len(self._cuts) == channels else self._cuts * channels

    def painting(self, channels: int) -> Painting:
        """In which order the channels are asked, the uppermost first."""
        if self._painting is None or len(self._painting.cuts) != channels:
            order = list(range(1, channels + 1)) if self._order is None else self._order
            if len(set(order)) < len(order) or not set(order) <= set(range(1, channels + 1)):
                raise ConfigError(
                    "overlap_priority", f"must name labels from 1 to {channels}, none of them twice", str(order)
                )
            upper = [label - 1 for label in reversed(order) if self.only is None or label in self.only]
            self._painting = Painting(np.array(upper, np.int64), np.array(self.cuts(channels), np.float32))
        return self._painting


class Confidence:
    """How sure a network is of what it says: the mean probability of each label over the voxels that got it.

    On the network's grid, where probabilities are the network's own: softmax, or sigmoid with `multilabel`.

    Args:
        decision: how labels are decided.
        box: the part `(K, I, J)` of the network's grid that counts.
    """

    def __init__(self, decision: LabelDecoder, box: Sequence[tuple[int, int]]) -> None:
        self.decision = decision
        self.span, self.rows, self.columns = (slice(*span) for span in box)
        self._sums: npt.NDArray[np.float64] = np.zeros(0)
        self._counts: npt.NDArray[np.float64] = np.zeros(0)

    def add(self, k: int, layer: Layer) -> None:
        """Count layer `k`, which is finished."""
        if not self.span.start <= k < self.span.stop:
            return
        logits = layer.sums[self.rows, self.columns].float()
        if layer.weights is not None:
            logits = logits / layer.weights[self.rows, self.columns, None]
        channels = logits.shape[-1]
        if self.decision.multilabel:
            cuts = torch.tensor(self.decision.cuts(channels), device=logits.device)
            there = logits > cuts
            sums = (torch.sigmoid(logits) * there).sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
            counts = there.sum(dim=(0, 1)).cpu().numpy().astype(np.float64)
            sums, counts = np.insert(sums, 0, 0.0), np.insert(counts, 0, 0.0)
        else:
            sure, label = torch.softmax(logits, dim=-1).max(dim=-1)
            flat = label.cpu().numpy().ravel()
            sums = np.bincount(flat, weights=sure.cpu().numpy().ravel(), minlength=channels).astype(np.float64)
            counts = np.bincount(flat, minlength=channels).astype(np.float64)
        self._sums = sums if not self._sums.size else self._sums + sums
        self._counts = counts if not self._counts.size else self._counts + counts

    def means(self) -> list[float]:
        """By label, NaN where no voxel got it (and for the background of a multilabel network)."""
        with np.errstate(invalid="ignore"):
            return [float(value) for value in np.divide(self._sums, self._counts)]


def _only(labels: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    return torch.where(torch.isin(labels, torch.tensor(list(wanted), device=labels.device)), labels, 0)


def _bits(there: torch.Tensor) -> torch.Tensor:
    """`(..., C)` of True and False as `(..., ceil(C / 8))` bytes, the first channel in the lowest bit."""
    missing = -there.shape[-1] % 8
    whole = torch.nn.functional.pad(there.to(torch.uint8), (0, missing))
    bytewise = whole.reshape(*there.shape[:-1], -1, 8) << torch.arange(8, dtype=torch.uint8, device=there.device)
    return bytewise.sum(dim=-1, dtype=torch.uint8)
