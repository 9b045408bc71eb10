"""Find the box that holds some structures by a coarse first pass; windows elsewhere need not be run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch

from medseg.inference.kernels import AxisMap, Layer
from medseg.inference.label_decoder import LabelDecoder
from medseg.inference.stream import Stream
from medseg.inference.windows import WindowPlan

logger = logging.getLogger(__name__)

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

STEP_MM = 8.0  # from one layer of the coarse pass to the next, for a 2D network
STEP = 4  # the same in layers, where their distance is unknown
_MARGIN = 16  # voxels around the structures, in the plane of the layers


def coarse_box(stream: Stream, full: WindowPlan, decoder: LabelDecoder, spacing: float | None) -> Box | None:
    """Return the box in which a coarse pass finds structures; the full volume where the pass would cost as much.

    Args:
        stream: of the volume.
        full: all windows.
        decoder: to labels, of the structures alone.
        spacing: from layer to layer, mm; None where it is unknown.
    """
    step = STEP if spacing is None else max(1, round(STEP_MM / spacing))
    plan = coarse_plan(full.shape, full.roi, step)
    if len(plan) == len(full):
        return full.box
    layers = stream.run(plan, decoder, title="coarse pass")
    box = bounding_box(layers, decoder.structures or (), plan, step)
    if box is None:
        logger.info("The coarse pass found none of the structures")
    else:
        logger.info("The coarse pass found structures within %s of %s", box, full.shape)
    return box


def coarse_plan(shape: Sequence[int], roi: Sequence[int], step: int) -> WindowPlan:
    """Return windows without overlap; for a 2D network, on every `step`-th slice only."""
    plan = WindowPlan.of(shape, roi, [0.0, 0.0, 0.0])
    return plan.every(step) if roi[0] == 1 else plan


def bounding_box(
    layers: Iterable[tuple[int, Layer]], structures: Sequence[int], plan: WindowPlan, step: int
) -> Box | None:
    """Return the box around structures, with a margin, in a volume `(K, I, J)`; None where they are absent.

    Args:
        layers: of the coarse pass, with their labels.
        structures: label values.
        plan: of the coarse pass.
        step: from one of its layers to the next.
    """
    box: list[tuple[int, int]] = []
    for k, layer in layers:
        mask = torch.isin(layer.labels, torch.tensor(list(structures), device=layer.labels.device))
        if not mask.any():
            continue
        rows, columns = (torch.nonzero(mask.any(dim=dim)).flatten().tolist() for dim in (1, 0))
        spans = [(k, k + 1), (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)]
        if box:
            spans = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(box, spans, strict=True)]
        box = spans
    if not box:
        return None
    # A structure may begin anywhere between two slices of the pass, or just beyond what a window without overlap
    # showed of it.
    margins = (step if plan.roi[0] == 1 else _MARGIN, _MARGIN, _MARGIN)
    depth, rows_span, columns_span = (
        (max(0, low - margin), min(size, high + margin))
        for (low, high), margin, size in zip(box, margins, plan.shape, strict=True)
    )
    return depth, rows_span, columns_span


def restrict(axis: AxisMap, span: tuple[int, int]) -> AxisMap:
    """Return the same axis, with only those voxels inside that lie between layers of the span."""
    above = axis.low + (axis.fraction > 0)
    return axis._replace(inside=axis.inside & (axis.low >= span[0]) & (above < span[1]))
