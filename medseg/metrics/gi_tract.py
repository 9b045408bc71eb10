"""Compute the score of the UW-Madison GI tract competition: 0.4 Dice + 0.6 (1 - 3D Hausdorff distance).

What its page says (https://www.kaggle.com/competitions/uw-madison-gi-tract-image-segmentation, Evaluation): Dice for
each image, that is each slice and class, and its mean over all of them; the Hausdorff distance in 3D between the
pixels of volumes made of the slices, at a slice depth of 1, "normalized by image size to create a bounded 0-1 score".
Distances are thus in voxels, whatever the spacing (1.5 x 1.5 x 3 mm in most scans).

What the page leaves open follows public solutions and public scoring code: a volume is one class of one scan (a case
on a day); where truth and prediction are both empty there is no value, and it is in no mean (the page calls that
Dice 0, the hosts wrote later that such images are skipped); where one is empty the distance is 1, the largest.
"Image size" is the diagonal of the volume in voxels (`normalized="diagonal"`), or each axis is divided by its
own length, and the distance by sqrt(3) (`normalized="axes"`): then the fewer slices there are, the deeper each one is.
The competition's code is not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.errors import ConfigError, DataError, GeometryError
from medseg.metrics.label_arrays import as_array, case_name, class_indices, require_same_shape

Masks = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
DICE_SHARE, HAUSDORFF_SHARE = 0.4, 0.6


@dataclass(frozen=True)
class GITractScores:
    """The part of one scan in the score; NaN where prediction and truth are both empty.

    Args:
        dice: of each structure in each slice, `(structures, slices)`.
        hausdorff: normalized 3D Hausdorff distance of each structure, `(structures,)`, from 0 to 1.
    """

    dice: Values
    hausdorff: Values


def gi_tract_score(scans: Iterable[GITractScores]) -> float:
    """Return 0.4 Dice + 0.6 (1 - Hausdorff) of all scans together; 1 is perfect.

    Dice is averaged over all slices and structures of all scans, the Hausdorff distance over all structures of all
    scans; structures that are empty in truth and prediction are in neither mean. NaN if all are.

    Raises:
        DataError: there is no scan.

    >>> perfect, missed = np.array([[1.0, 1.0]]), np.array([[0.0, np.nan]])
    >>> scans = GITractScores(perfect, np.array([0.0])), GITractScores(missed, np.array([1.0]))
    >>> round(gi_tract_score(scans), 4)
    0.5667
    """
    scores = list(scans)
    if not scores:
        raise DataError("the score of the GI tract competition", "needs at least one scan")
    dice = np.concatenate([scan.dice.ravel() for scan in scores])
    hausdorff = np.concatenate([scan.hausdorff.ravel() for scan in scores])
    dice, hausdorff = dice[~np.isnan(dice)], hausdorff[~np.isnan(hausdorff)]
    if not dice.size:
        return float("nan")
    return float(DICE_SHARE * dice.mean() + HAUSDORFF_SHARE * (1 - hausdorff.mean()))


def gi_tract_scores(
    prediction: Any,
    truth: Any,
    num_classes: int | None = None,
    normalized: str = "diagonal",
    case: str = "",
) -> GITractScores:
    """Return the Dice of every slice and the Hausdorff distance of every structure of one scan.

    Args:
        prediction: masks `(structures, I, J, slices)`, above 0 where a structure is, which may overlap; or with
            `num_classes` class indices `(I, J, slices)`.
        truth: the same shape.
        num_classes: classes of a label map, background included.
        normalized: what distances are divided by: `diagonal` or `axes`, see above.
        case: its id, for errors.

    Raises:
        ConfigError: `normalized` is neither of them.
        GeometryError: the shapes differ or have another number of axes.
        LabelError: a label map does not hold class indices.

    >>> truth, prediction = np.zeros((2, 1, 4, 4, 7), bool)
    >>> truth[0, 1, 1, :2], prediction[0, 1, 1, 0] = True, True
    >>> scores = gi_tract_scores(prediction, truth)
    >>> scores.dice[0, :3].tolist(), round(float(scores.hausdorff[0]), 4)  # 1 / sqrt(16 + 16 + 49)
    ([1.0, 0.0, nan], 0.1111)
    """
    if normalized not in ("diagonal", "axes"):
        raise ConfigError("normalized", "must be diagonal or axes", f"got {normalized!r}")
    require_same_shape(prediction, truth, case)
    axes = 4 if num_classes is None else 3
    if len(truth.shape) != axes or 0 in truth.shape:
        expected = "(structures, I, J, slices)" if num_classes is None else "(I, J, slices)"
        raise GeometryError(case_name(case), f"must have the shape {expected}", f"got {tuple(truth.shape)}")
    if num_classes is None:
        pairs = [(as_array(mask) > 0, as_array(true) > 0) for mask, true in zip(prediction, truth, strict=True)]
    else:
        predicted = class_indices(prediction, num_classes, "prediction", case)
        expected_map = class_indices(truth, num_classes, "truth", case)
        pairs = [(predicted == label, expected_map == label) for label in range(1, num_classes)]
    return GITractScores(
        np.array([_dice_by_slice(*pair) for pair in pairs]),
        np.array([normalized_hausdorff(*pair, normalized) for pair in pairs]),
    )


def normalized_hausdorff(prediction: Masks, truth: Masks, normalized: str = "diagonal") -> float:
    """Return the Hausdorff distance of all voxels of two masks `(I, J, slices)`, as a share of the largest possible.

    Not `Surfaces.hausdorff`, which is in mm and between surfaces: a hole inside is nearer to all voxels than to the
    surface. It equals `scipy.spatial.distance.directed_hausdorff` in both directions on the voxels' indices.

    0 for masks that agree, 1 where one is empty, NaN where both are.
    """
    if not prediction.any() or not truth.any():
        return float("nan") if prediction.any() == truth.any() else 1.0
    shape = np.array(truth.shape, np.float64)
    steps = np.ones(3) if normalized == "diagonal" else 1 / shape
    largest = np.linalg.norm(shape * steps)
    box = ndimage.find_objects((prediction | truth).astype(np.uint8))[0]  # the nearest voxel lies within
    predicted, true = prediction[box], truth[box]
    return float(max(_directed(predicted, true, steps), _directed(true, predicted, steps)) / largest)


def _directed(start: Masks, goal: Masks, steps: Sequence[float] | Values) -> float:
    """Return the longest distance from a voxel of one mask to the nearest of the other."""
    outside = start & ~goal
    if not outside.any():
        return 0.0
    return float(ndimage.distance_transform_edt(~goal, sampling=steps)[outside].max())


def _dice_by_slice(prediction: Masks, truth: Masks) -> Values:
    intersection = np.count_nonzero(prediction & truth, axis=(0, 1))
    total = np.count_nonzero(prediction, axis=(0, 1)) + np.count_nonzero(truth, axis=(0, 1))
    return np.asarray(np.divide(2 * intersection, total, out=np.full(len(total), np.nan), where=total > 0))
