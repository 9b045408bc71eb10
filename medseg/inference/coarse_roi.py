"""Where a cheap first pass saw something of what is wanted; windows elsewhere need not be run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from medseg.inference.kernels import Axis, Layer
from medseg.inference.windows import Plan

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

STEP_MM = 8.0  # from one layer of the first pass to the next, for a network of slices
STEP = 4  # the same in layers, where nobody says how far apart they are
_MARGIN = 16  # voxels around what was seen, in the plane of the layers


def first_pass(shape: Sequence[int], roi: Sequence[int], step: int) -> Plan:
    """Windows without overlap, and of slices only every so manieth."""
    plan = Plan.of(shape, roi, [0.0, 0.0, 0.0])
    return plan.every(step) if roi[0] == 1 else plan


def seen_in(layers: Iterable[tuple[int, Layer]], wanted: Sequence[int], plan: Plan, step: int) -> Box | None:
    """The box around what is wanted, with a margin, in a volume `(K, I, J)`; None where nothing of it was seen.

    Args:
        layers: those of the first pass, decided.
        wanted: labels.
        plan: of the first pass.
        step: from one of its layers to the next.
    """
    spans: list[tuple[int, int]] = []
    for k, layer in layers:
        found = torch.isin(layer.best, torch.tensor(list(wanted), device=layer.best.device))
        if found.any():
            rows, columns = (torch.nonzero(found.any(dim=dim)).flatten().tolist() for dim in (1, 0))
            here = [(k, k + 1), (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)]
            spans = here if not spans else [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(spans, here, strict=True)]
    if not spans:
        return None
    margins = (step if plan.roi[0] == 1 else _MARGIN, _MARGIN, _MARGIN)
    depth, rows_of, columns_of = (
        (max(0, low - margin), min(size, high + margin))
        for (low, high), margin, size in zip(spans, margins, plan.shape, strict=True)
    )
    return depth, rows_of, columns_of


def within(axis: Axis, span: tuple[int, int]) -> Axis:
    """The same axis, with nothing inside but what lies between layers of that span."""
    above = axis.low + (axis.part > 0)
    return axis._replace(inside=axis.inside & (axis.low >= span[0]) & (above < span[1]))
