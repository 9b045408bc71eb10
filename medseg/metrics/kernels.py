"""The compiled loops where numba is installed (the extra `fast`), else None, and label maps as they take them."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, LabelError, MissingExtraError


@functools.cache
def kernels() -> Any | None:
    """`medseg.metrics.compiled`, or None without numba: everything is then done by NumPy and SciPy."""
    try:
        return importlib.import_module("medseg.metrics.compiled")
    except MissingExtraError:
        return None


def on_gpu(values: Any) -> bool:
    """Whether these are a tensor that NumPy cannot see where it lies."""
    return getattr(getattr(values, "device", None), "type", "cpu") != "cpu"


def as_array(values: Any) -> npt.NDArray[Any]:
    """An array, or a tensor on any device, as a NumPy array; without a copy where that can be."""
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)


def name_of(case: str) -> str:
    """How errors call a case."""
    return f"case {case}" if case else "a prediction"


def class_indices(values: Any, num_classes: int, side: str, case: str = "") -> npt.NDArray[Any]:
    """A label map as uint8, or uint16 where there are more than 256 classes.

    Args:
        values: class indices, any shape; floats are taken where they are whole numbers.
        num_classes: classes, background included.
        side: `prediction` or `truth`, for errors.
        case: its id, for errors.

    Raises:
        LabelError: NaN, a broken number, an index below 0 or not below `num_classes`.
    """
    array = as_array(values)
    thing = f"{name_of(case)}, {side}"
    if array.dtype.kind not in "biuf":
        raise LabelError(thing, "must hold class indices", f"{array.dtype} values")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise LabelError(thing, "must hold class indices", "values that are no numbers (NaN or infinite)")
    if not 0 <= low <= high < num_classes:
        raise LabelError(thing, f"must hold labels from 0 to {num_classes - 1}", f"{low:g} to {high:g}")
    whole = array.astype(np.uint8 if num_classes <= 256 else np.uint16, copy=False)
    if array.dtype.kind == "f" and not np.array_equal(whole, array):
        fix = "It may have been resampled with interpolation; label maps need the nearest neighbour."
        raise LabelError(thing, "must hold whole numbers", "values between them", fix)
    return whole


def same_shape(prediction: Any, truth: Any, case: str = "") -> None:
    """See that two label maps have one shape.

    Raises:
        GeometryError: they have not.
    """
    one, other = tuple(prediction.shape), tuple(truth.shape)
    if one != other:
        raise GeometryError(name_of(case), f"must have the truth's shape, {other}", f"{one}")
