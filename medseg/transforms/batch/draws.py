"""Draw how each sample of a batch is augmented, one row of numbers a sample; `augment` applies them.

Not MONAI's random transforms, which draw and apply at once: there each sample is processed alone, by a loader process,
with metadata recorded for every step. Here the loader only draws, so that the random state of a sample stays a function
of (seed, epoch, case, draw), and the whole batch is augmented at once, on the GPU where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import RandomizableTransform

from medseg.catalogue import contralateral_name
from medseg.errors import ConfigError, DataError, LabelError, did_you_mean
from medseg.labels import LabelMap

DRAWN = "augment"
Numbers = npt.NDArray[np.float64]
Range = float | Sequence[float]
_AFFINE = ("rotate_range", "translate_range", "scale_range")
_OTHERS = {
    "gamma": "gamma",
    "scale_intensity": "factors",
    "shift_intensity": "offsets",
    "contrast": "factors",
    "noise": "std",
    "smooth": "sigma",
    "low_resolution": "zoom_range",
}


class Draws(NamedTuple):
    """Hold what was drawn for the samples of a batch, each field `(B,)`; NaN where it does not apply to a sample.

    Args:
        mirror_i: 1 where the first axis is flipped.
        mirror_j: 1 where the second axis is flipped.
        angle: of the rotation, radians.
        shift_i: pixels along the first axis.
        shift_j: pixels along the second.
        scale_i: factor along the first axis.
        scale_j: factor along the second.
        gamma: exponent.
        factor: intensities times `1 + factor`.
        offset: added to the intensities.
        contrast: distance to the mean times `1 + contrast`.
        std: of the noise.
        noise_seed: of the noise, a whole number.
        sigma_i: of the blur along the first axis, pixels.
        sigma_j: along the second.
        zoom: share of the pixels that low resolution leaves, along each axis.
    """

    mirror_i: Numbers
    mirror_j: Numbers
    angle: Numbers
    shift_i: Numbers
    shift_j: Numbers
    scale_i: Numbers
    scale_j: Numbers
    gamma: Numbers
    factor: Numbers
    offset: Numbers
    contrast: Numbers
    std: Numbers
    noise_seed: Numbers
    sigma_i: Numbers
    sigma_j: Numbers
    zoom: Numbers

    @classmethod
    def of(cls, rows: Any) -> Draws:
        """Return the draws of a batch from the rows of its samples, `(B, fields)`.

        Raises:
            DataError: another shape, or infinity.
        """
        table = np.asarray(rows, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != len(cls._fields) or np.isinf(table).any():
            raise DataError(
                f"'{DRAWN}' of the batch",
                f"it must have a row of {len(cls._fields)} finite numbers or NaN for each sample",
                f"got shape {table.shape}",
                "Take it from RandAugmentd.",
            )
        return cls(*table.T)


class RandAugmentd(RandomizableTransform):
    """Draw how a 2D sample is augmented; `AugmentBatch` then augments the batch.

    Adds a row of numbers (`Draws`, float64) to the item as `augment`. Each argument is None, for never, or a mapping
    with a probability `prob` and the range of MONAI's transform; each is drawn for itself, evenly from its range.
    A range is a pair, or a number r for -r to r. They are applied in the order of the arguments.

    Args:
        mirror: MONAI's `RandFlipd`: `{"prob", "axes"}`, for each of the axes alike. Axis 0, left and right in RAS,
            swaps the labels of paired structures, and is refused where one of a pair is not in `labels`.
        affine: MONAI's `RandAffined` with zeros outside, bilinear for the image and nearest for the label:
            `{"prob", "rotate_range", "translate_range", "scale_range"}`, radians, pixels, factor less 1: a number
            r for -r to r, for both axes alike (MONAI's means the first axis alone), or one for each axis.
        gamma: MONAI's `RandAdjustContrastd`: `{"prob", "gamma"}`, a pair above 0.
        scale_intensity: MONAI's `RandScaleIntensityd`: `{"prob", "factors"}`.
        shift_intensity: MONAI's `RandShiftIntensityd`: `{"prob", "offsets"}`.
        contrast: MONAI's `RandScaleIntensityFixedMeand`: `{"prob", "factors"}`.
        noise: MONAI's `RandGaussianNoised`: `{"prob", "std"}`, drawn from 0 to `std`.
        smooth: MONAI's `RandGaussianSmoothd`: `{"prob", "sigma"}`, a pair in pixels, drawn for each axis.
        low_resolution: MONAI's `RandSimulateLowResolutiond` (nearest, then bilinear): `{"prob", "zoom_range"}`, a
            pair above 0 up to 1.
        labels: the label map, which knows what is paired.
        image_key: the image, `(C, H, W)`, floating point and finite.
        label_key: the label, `(1, H, W)` class indices or `(structures, H, W)`.

    Raises:
        ConfigError: a probability outside 0..1, a range that is not valid, an unknown key.
        LabelError: left and right are mirrored, and it is not known what is paired.
        DataError: an item whose image and label do not fit, are not 2D, or hold NaN; names the case.

    >>> augment = RandAugmentd(noise={"prob": 1.0, "std": 0.1}).set_random_state(0)
    >>> row = augment({"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 4, 4)})["augment"]
    >>> bool(0 < Draws.of(row[None]).std[0] < 0.1)
    True
    """

    def __init__(
        self,
        mirror: Mapping[str, Any] | None = None,
        affine: Mapping[str, Any] | None = None,
        gamma: Mapping[str, Any] | None = None,
        scale_intensity: Mapping[str, Any] | None = None,
        shift_intensity: Mapping[str, Any] | None = None,
        contrast: Mapping[str, Any] | None = None,
        noise: Mapping[str, Any] | None = None,
        smooth: Mapping[str, Any] | None = None,
        low_resolution: Mapping[str, Any] | None = None,
        labels: LabelMap | None = None,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        super().__init__(prob=1.0)
        self.image_key, self.label_key = image_key, label_key
        self._prob = np.zeros(len(Draws._fields))
        self._low, self._high = np.zeros(len(Draws._fields)), np.ones(len(Draws._fields))
        # Which probability decides on which field: those of one transform apply together or not at all.
        self._group = np.array([0, 1, 2, 2, 2, 2, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9])
        axes = self._mirror(mirror or {"prob": 0.0})
        self._affine(affine or {"prob": 0.0})
        settings = (gamma, scale_intensity, shift_intensity, contrast, noise, smooth, low_resolution)
        fields = (("gamma",), ("factor",), ("offset",), ("contrast",), ("std", "noise_seed"), ("sigma_i", "sigma_j"))
        for (name, word), setting, places in zip(_OTHERS.items(), settings, (*fields, ("zoom",)), strict=True):
            if setting is not None:
                prob = _prob(name, setting, (word,))
                low, high = _range(name, word, setting.get(word))
                for location in places:
                    self._set(location, prob, low, high)
        self._set("noise_seed", float(self._prob[Draws._fields.index("std")]), 0.0, 2.0**31)
        self.contralaterals = _contralaterals(labels, bool(self._prob[0]) and 0 in axes)
        self._row = self._low

    def _set(self, field: str, prob: float, low: float, high: float) -> None:
        at = Draws._fields.index(field)
        self._prob[at], self._low[at], self._high[at] = prob, low, high

    def _mirror(self, setting: Mapping[str, Any]) -> list[int]:
        prob = _prob("mirror", setting, ("axes",))
        axes = list(setting.get("axes", [0, 1]))
        if not set(axes) <= {0, 1}:
            raise ConfigError("mirror#axes", "it must be 0, 1 or both, the axes of a slice", f"got {axes!r}")
        for axis in axes:
            self._set(Draws._fields[axis], prob, 1.0, 1.0)
        return axes

    def _affine(self, setting: Mapping[str, Any]) -> None:
        prob = _prob("affine", setting, _AFFINE)
        for word, places in zip(_AFFINE, (("angle",), ("shift_i", "shift_j"), ("scale_i", "scale_j")), strict=True):
            value = setting.get(word, 0.0)
            each = [value] * len(places) if isinstance(value, int | float) else list(value)
            if len(each) != len(places) or not all(_finite(number) and number >= 0 for number in each):
                raise ConfigError(
                    f"affine#{word}", f"it must be a number of 0 or more, or {len(places)} of them", f"got {value!r}"
                )
            center = 1.0 if word == "scale_range" else 0.0
            if center and max(each) >= 1:
                raise ConfigError(f"affine#{word}", "it must be below 1, or the image vanishes", f"got {value!r}")
            for field, reach in zip(places, each, strict=True):
                self._set(field, prob, center - reach, center + reach)

    def randomize(self, data: Any = None) -> None:
        """Draw one row."""
        groups = int(self._group[-1]) + 1
        drawn = self.R.random_sample(groups + len(self._low))
        row = self._low + (self._high - self._low) * drawn[groups:]
        seed = Draws._fields.index("noise_seed")
        row[seed] = np.floor(row[seed])
        row[drawn[:groups][self._group] >= self._prob] = np.nan
        self._row = row

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the sample, and add the row."""
        item = dict(data)
        self._check(item)
        self.randomize()
        item[DRAWN] = torch.from_numpy(self._row)
        return item

    def _check(self, item: Mapping[Hashable, Any]) -> None:
        case = f"case {item.get('case', '?')}"
        image, label = item[self.image_key], item[self.label_key]
        if image.ndim != 3 or label.ndim != 3:
            problem = "image and label must be 2D, (C, H, W)"
            raise DataError(case, problem, f"got {tuple(image.shape)} and {tuple(label.shape)}")
        if image.shape[1:] != label.shape[1:]:
            problem = "image and label must have one size"
            raise DataError(case, problem, f"got {tuple(image.shape[1:])} and {tuple(label.shape[1:])}")
        image = torch.as_tensor(image)
        # A sum is several times faster than a test of each value, and finite only if all values are.
        if not math.isfinite(float(image.sum(dtype=torch.float32))) and not bool(torch.isfinite(image).all()):
            raise DataError(case, "its image holds NaN or infinity", "", "Check it with medseg data check.")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _prob(name: str, setting: Mapping[str, Any], words: Sequence[str]) -> float:
    """Return the probability of a transform, and check its keys."""
    if not isinstance(setting, Mapping):
        raise ConfigError(name, f"it must be a mapping with prob, {', '.join(words)}", f"got {setting!r}")
    for key in setting:
        if key not in ("prob", *words):
            raise ConfigError(
                f"{name}#{key}",
                f"{name} has the keys prob, {', '.join(words)}",
                "",
                did_you_mean(key, ("prob", *words)),
            )
    prob = setting.get("prob")
    if not _finite(prob) or not 0 <= prob <= 1:  # type: ignore[operator]
        raise ConfigError(f"{name}#prob", "it must be a probability from 0 to 1", f"got {prob!r}")
    return float(prob)  # type: ignore[arg-type]


def _range(name: str, word: str, value: Any) -> tuple[float, float]:
    """Return the lowest and highest value of a range."""
    lowest = 0.0 if word == "std" else -value if isinstance(value, int | float) else None
    pair = list(value or ()) if lowest is None else [lowest, value]
    if len(pair) != 2 or not all(_finite(number) for number in pair) or (word == "std" and pair[1] < 0):
        kind = "a number of 0 or more" if word == "std" else "a number or a pair of them"
        raise ConfigError(f"{name}#{word}", f"it must be {kind}", f"got {value!r}")
    low, high = float(min(pair)), float(max(pair))
    if word in ("gamma", "sigma", "zoom_range") and (low <= 0 or (word == "zoom_range" and high > 1)):
        limit = "above 0 and at most 1" if word == "zoom_range" else "above 0"
        raise ConfigError(f"{name}#{word}", f"it must be a pair {limit}", f"got {value!r}")
    return low, high


def _contralaterals(labels: LabelMap | None, needed: bool) -> npt.NDArray[np.int64] | None:
    """Return for each label the label it becomes where left and right are swapped; None where they never are."""
    if not needed:
        return None
    if labels is None:
        raise LabelError("mirror", "it is not known which structures are paired", "", "Give labels, or axes: [1].")
    alone = [
        name
        for index, name in enumerate(labels.names)
        if contralateral_name(name) is not None and labels.contralateral(index) is None
    ]
    if alone:
        raise LabelError(
            "mirror",
            f"left and right cannot be mirrored: {', '.join(alone[:3])} has no contralateral among the labels",
            "",
            "Add it to structures, or mirror axes: [1] alone.",
        )
    table = [index if (pair := labels.contralateral(index)) is None else pair for index in range(len(labels))]
    return np.array(table, dtype=np.int64)
