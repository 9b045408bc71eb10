"""Masks as run lengths, the way Kaggle writes them: `start length start length ...`, along the rows, from 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError


def decode_runs(runs: str, shape: tuple[int, int], location: object = "runs") -> npt.NDArray[np.bool_]:
    """A mask `(rows, columns)` from its runs; an empty text is an empty mask.

    Args:
        runs: pairs of the first pixel of a run (1 is the upper left one, along the rows) and its length.
        shape: rows and columns of the image.
        location: the name in messages.

    Raises:
        DataError: no pairs of whole positive numbers, or a run that ends beyond the image.

    >>> decode_runs("2 2 6 1", (2, 3)).astype(int).tolist()
    [[0, 1, 1], [0, 0, 1]]
    """
    try:
        numbers = np.array(runs.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(location, "must hold runs as whole numbers: start length ...", repr(runs[:40])) from error
    if len(numbers) % 2:
        raise DataError(location, "must hold runs as pairs: start length ...", f"{len(numbers)} numbers")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    size = shape[0] * shape[1]
    if len(numbers) and (starts.min() < 0 or lengths.min() < 1):
        raise DataError(location, "must hold runs that begin at 1 or later, of 1 pixel or more", repr(runs[:40]))
    if len(numbers) and int((starts + lengths).max()) > size:
        worst = int((starts + lengths).argmax())
        raise DataError(
            location,
            f"must stay within its image of {shape[0]} rows and {shape[1]} columns, {size} pixels",
            f"the run '{starts[worst] + 1} {lengths[worst]}', which ends at pixel {starts[worst] + lengths[worst]}",
            "See that image and table belong together.",
        )
    edges = np.zeros(size + 1, dtype=np.int32)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + lengths, -1)
    return (np.cumsum(edges[:-1]) > 0).reshape(shape)


def encode_runs(mask: npt.NDArray[np.bool_]) -> str:
    """The runs of a mask `(rows, columns)`; `decode_runs` gives it back.

    >>> encode_runs(np.array([[0, 1, 1], [0, 0, 1]], dtype=bool))
    '2 2 6 1'
    """
    flat = np.concatenate([[0], mask.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{start} {stop - start}" for start, stop in zip(edges[::2], edges[1::2], strict=True))
