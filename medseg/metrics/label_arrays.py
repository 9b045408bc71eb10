"""Check label maps and bring them to the form that the compiled loops take."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, LabelError, MissingExtraError


@functools.cache
def loops() -> Any | None:
    """Return `medseg.metrics.count_loops`, or None without numba: NumPy and SciPy then do everything."""
    try:
        return importlib.import_module("medseg.metrics.count_loops")
    except MissingExtraError:
        return None


def on_gpu(values: Any) -> bool:
    """Return whether the values are a tensor in memory that NumPy cannot read."""
    return getattr(getattr(values, "device", None), "type", "cpu") != "cpu"


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return an array, or a tensor on any device, as a NumPy array; without a copy where possible."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def case_name(case: str) -> str:
    """Return how errors name a case."""
    return f"case {case}" if case else "a prediction"


def class_indices(values: Any, num_classes: int, side: str, case: str = "") -> npt.NDArray[Any]:
    """Return a label map as uint8, or as uint16 above 256 classes.

    Args:
        values: class indices, any shape; floats are accepted if they are whole numbers.
        num_classes: classes, background included.
        side: `prediction` or `truth`, for errors.
        case: its id, for errors.

    Raises:
        LabelError: NaN, a fraction, an index below 0 or not below `num_classes`.
    """
    array = as_array(values)
    thing = f"{case_name(case)}, {side}"
    if array.dtype.kind not in "biuf":
        raise LabelError(thing, "must hold class indices", f"got {array.dtype} values")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise LabelError(thing, "must hold class indices, but some values are NaN or infinite")
    if not 0 <= low <= high < num_classes:
        raise LabelError(thing, f"must hold labels from 0 to {num_classes - 1}", f"got {low:g} to {high:g}")
    indices = array.astype(np.uint8 if num_classes <= 256 else np.uint16, copy=False)
    if array.dtype.kind == "f" and not np.array_equal(indices, array):
        fix = "If it was resampled with interpolation, resample it with nearest neighbor instead."
        raise LabelError(thing, "must hold whole numbers, but some values lie between them", fix=fix)
    return indices


def require_same_shape(prediction: Any, truth: Any, case: str = "") -> None:
    """Raise an error unless two label maps have the same shape.

    Raises:
        GeometryError: they have not.
    """
    shape, expected = tuple(prediction.shape), tuple(truth.shape)
    if shape != expected:
        raise GeometryError(case_name(case), f"must have the truth's shape {expected}", f"got {shape}")
