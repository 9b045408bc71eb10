"""Read and check what a loss is told about a batch: shapes, and which classes are annotated in which case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError, DataError, GeometryError, LabelError

Annotated = torch.Tensor | Sequence[Sequence[int]]


def unpack_labels(
    labels: torch.Tensor | Mapping[str, Any], annotated: Annotated | None, cases: Sequence[str] | None
) -> tuple[torch.Tensor, Annotated | None, Sequence[str] | None]:
    """Return labels, annotated classes and case ids, from a mapping where `labels` is one."""
    if isinstance(labels, torch.Tensor):
        return labels, annotated, cases
    return labels["label"], labels.get("annotated", annotated), labels.get("case", cases)


def without_metadata(tensor: Any) -> torch.Tensor:
    """Return a tensor without MONAI's metadata, which slows every operation down."""
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain


def require_class_indices(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise an error unless labels are class indices `(B, 1, *spatial)` that fit logits `(B, C, *spatial)`.

    Raises:
        GeometryError: the shapes do not fit.
        ConfigError: the logits are no floats.
        LabelError: the labels are no integers.
    """
    if logits.ndim < 3 or logits.shape[1] < 2:
        problem = "must be (B, C, *spatial) with a background and at least one structure"
        raise GeometryError("logits", problem, f"got shape {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise ConfigError("logits", "must be floats", f"got {logits.dtype}")
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(labels.shape) != expected:
        problem = f"must have the shape {expected} for these logits"
        raise GeometryError("labels", problem, f"got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        fix = "Cast them in the transforms."
        raise LabelError("labels", "must be class indices of an integer type", f"got {labels.dtype}", fix)


def case_names(cases: Sequence[str] | None, count: int) -> list[str]:
    """Return how errors name the cases of a batch."""
    return [f"case {case}" for case in cases] if cases else [f"case {b} of the batch" for b in range(count)]


def annotated_rows(
    annotated: Annotated | None, count: int, classes: int, cases: Sequence[str] | None = None
) -> torch.Tensor:
    """Return which classes are annotated in which case, `(B, C)`, bool; the background always is.

    Args:
        annotated: bool `(B, C)`, or for each case the indices of its annotated classes; None for all.
        count: of cases.
        classes: the background included.
        cases: their ids, for errors.

    Raises:
        GeometryError: the shape does not fit.
        LabelError: an index is out of range.
        DataError: a case has no annotated structure.
    """
    if annotated is None:
        return torch.ones(count, classes, dtype=torch.bool)
    names = case_names(cases, count)
    if not isinstance(annotated, torch.Tensor):
        rows = torch.zeros(count, classes, dtype=torch.bool)
        if len(annotated) != count:
            raise GeometryError("annotated", f"must have an entry for each of {count} cases", f"got {len(annotated)}")
        for row, name, indices in zip(rows, names, annotated, strict=True):
            if len(indices) and not 0 <= min(indices) <= max(indices) < classes:
                problem = f"annotated classes must lie between 0 and {classes - 1}"
                raise LabelError(name, problem, f"got {list(indices)}")
            row[list(indices)] = True
        annotated = rows
    if tuple(annotated.shape) != (count, classes):
        problem = f"must have the shape {(count, classes)}"
        raise GeometryError("annotated", problem, f"got shape {tuple(annotated.shape)}")
    mask = annotated.bool().clone()
    for name, row in zip(names, mask, strict=True):
        if not bool(row[1:].any()):
            fix = "Exclude the case."
            raise DataError(
                name, "none of the network's structures is annotated, so there is nothing to learn", fix=fix
            )
    mask[:, 0] = True
    return mask
