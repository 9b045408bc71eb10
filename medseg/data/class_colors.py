"""Read the classes of 2D masks from `classes.json`, `label_map.json`, or nothing but the masks themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist

from medseg.data.masks import OPTION
from medseg.errors import DataError, LabelError
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d
from medseg.labels import BACKGROUND, LabelMap

CLASSES, NAMES = "classes.json", "label_map.json"
SMOOTHING_DISTANCE = 32.0  # a color no further than this from a class's is that class's, however large the area
_BETWEEN = 2.0  # a class's color no further than this from the line between two others can come from smoothing
_COLORS, _GREYS = '{"background": [0, 0, 0], "liver": [255, 0, 0]}', '{"background": 0, "liver": 255}'
_EXAMPLE, _GREY_EXAMPLE = (f"Write {CLASSES}, for example: {text}" for text in (_COLORS, _GREYS))
_NAME_THEM = f"Name them in {CLASSES}, or correct the mask."
_LOSSY = "JPEG changes the values of pixels: export the masks again as PNG."
_TIES = 32  # pixels; farther away, of several equally near ones any is taken
_RIM = 10  # pixels of a line that may be smoothing
Codes = dict[tuple[int, ...], int]  # pixels by color or value


@dataclass(frozen=True, eq=False)
class DecodedMask:
    """Hold a mask as classes.

    Args:
        label: `(rows, columns)`, uint8: indices of the class names.
        smoothed: by class, the pixels of no class's color that went to it.
        rims: by class, its pixels in lines between lower and higher values, as smoothing of indices leaves them.
    """

    label: npt.NDArray[np.uint8]
    smoothed: dict[str, int] = field(default_factory=dict)
    rims: dict[str, int] = field(default_factory=dict)


def read_class_colors(root: Path) -> ClassColors | None:
    """Read the classes from `classes.json` or `label_map.json` in a folder; None if neither exists.

    `classes.json` gives each name a color `[r, g, b]`, or each a grey value; what is not named is black background.

    Raises:
        DataError: the file cannot be read.
        LabelError: repeated names or colors, or values that are no colors.
    """
    path = root / CLASSES
    if not path.is_file():
        return ClassColors.indexed(LabelMap.load(root / NAMES).names) if (root / NAMES).is_file() else None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(path, "the classes cannot be read as JSON", str(error)) from error
    if not isinstance(content, dict) or not content:
        came = "nothing" if content in ({}, []) else json.dumps(content)[:60]
        raise LabelError(path, "it must give each class its color", f"got {came}", f"For example: {_COLORS}")
    colored = isinstance(next(iter(content.values())), list)
    codes = {str(name): _code(path, str(name), value, colored) for name, value in content.items()}
    background = next((name for name in codes if name.strip("_ ").lower() == BACKGROUND), None)
    structures = {name: code for name, code in codes.items() if name != background}
    if not structures:
        raise LabelError(path, "it names no structure beside the background", "", f"For example: {_COLORS}")
    try:
        LabelMap(list(structures))
    except LabelError as error:
        raise LabelError(path, error.problem, error.came, error.fix) from None
    black = (0, 0, 0) if colored else (0,)
    every = (codes[background] if background else black, *structures.values())
    for code in every:
        if every.count(code) > 1:
            names = [name for name in codes if codes[name] == code]
            names += [f"the {BACKGROUND}"] if code == black and not background else []
            kind, value = ("color", list(code)) if colored else ("value", code[0])
            problem = f"{' and '.join(names)} have the same {kind}, {value}"
            raise LabelError(path, problem, "", f"Give each class a {kind} of its own.")
    if len(every) > 256:
        raise LabelError(path, f"at most 255 classes can be named, and it names {len(structures)}")
    return ClassColors((BACKGROUND, *structures), every, colored)


def _code(path: Path, name: str, value: Any, colored: bool) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    valid = all(isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= 255 for number in values)
    if isinstance(value, list) != colored or not valid or len(values) != (3 if colored else 1):
        needed = "three numbers from 0 to 255" if colored else "a whole number from 0 to 255, or a color of three"
        fix = f"For example: {_COLORS if colored else _GREYS}"
        if isinstance(value, str) and name.isdigit():
            fix = f"Names of indices are read from {NAMES}: rename the file."
        problem = f"the class '{name}' needs {needed}"
        raise LabelError(path, problem, f"got {json.dumps(value)[:60]}", fix)
    return tuple(values)


def infer_class_colors(masks: Iterable[Path]) -> ClassColors:
    """Make up names for masks without: `class_1` to the greatest value, or one class if they are 0 and 255.

    Every mask is read; there must be at least one.

    Raises:
        DataError: a mask that cannot be read.
        LabelError: colored masks, or values that are no classes.
    """
    occurs = np.zeros(256, dtype=bool)
    folder = Path()
    for path in masks:
        folder = path.parent
        image = read_image_2d(path)
        values = image.values
        if values.ndim == 3:
            problem = f"the mask is colored, and no {CLASSES} names its colors"
            raise LabelError(path, problem, format_codes(_count_colors(values)), _EXAMPLE)
        if values.max() > 255:
            raise LabelError(path, "the values of a mask must not exceed 255", f"got {values.max()}")
        if image.lossy and values.max() > 1 and not np.isin(values, (0, 255)).all():
            raise LabelError(path, "its values are no class indices", format_codes(_count_values(values)), _LOSSY)
        occurs[np.unique(values)] = True
    present = np.flatnonzero(occurs)
    if present[-1] == 255 and len(present) <= 2:
        return ClassColors((BACKGROUND, "class_1"), ((0,), (255,)))
    if present[-1] == 0:
        raise LabelError(folder, "every mask is black, so there is nothing to learn or to compare")
    if present[-1] > 64:
        listed = ", ".join(str(value) for value in present[:8]) + (", ..." if len(present) > 8 else "")
        problem = f"masks whose classes no {CLASSES} names must hold class indices, or 0 and 255"
        raise LabelError(folder, problem, f"got the values {listed}", _GREY_EXAMPLE)
    names = (BACKGROUND, *(f"class_{index}" for index in range(1, present[-1] + 1)))
    return ClassColors.indexed(names)


def decode_mask(image: Image2D, colors: ClassColors, location: object = "mask") -> DecodedMask:
    """Decode a mask to classes, whether it holds values, colors, or values with a palette.

    Pixels of no class's color, as smoothing leaves them between two areas, go to the class of the nearest pixel
    that has a class's own color, and are counted: halfway from yellow to black lies the green of a third class.
    An area of one such color, 3 pixels wide and high, is no smoothing: it is refused, as is an image of
    mostly such colors. A palette decides if one of its used colors is a class's; else the values do.

    Raises:
        LabelError: an area of a color, or a value, that no class has; says how many pixels and which.
    """
    values = image.values
    if image.palette is not None:
        if colors.colored and _uses_class_colors(values, image.palette, colors):
            return _decode_colors(image.palette[values], colors, location)
    elif values.ndim == 3:
        if colors.colored:
            return _decode_colors(values, colors, location, image.lossy)
        if not (values == values[..., :1]).all():
            problem = f"the mask is colored, and {CLASSES} or {NAMES} gives values, no colors"
            fix = _LOSSY if image.lossy else _EXAMPLE
            raise LabelError(location, problem, format_codes(_count_colors(values)), fix)
        values = values[..., 0]
    elif colors.colored and any(code[0] == code[1] == code[2] for code in colors.codes[1:]):
        return _decode_colors(np.repeat(_grey_of_8_bits(image)[..., None], 3, axis=2), colors, location, image.lossy)
    return _decode_values(values, colors, location, image.lossy)


def _grey_of_8_bits(image: Image2D) -> npt.NDArray[np.uint8]:
    """Scale a grey mask of fewer bits so that white is 255, as colors count."""
    white = image.white or 255
    scaled = image.values.astype(np.int64) * (255 // white) if white < 255 else image.values
    return np.asarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _uses_class_colors(values: npt.NDArray[Any], palette: npt.NDArray[np.uint8], colors: ClassColors) -> bool:
    used = {tuple(int(part) for part in palette[value]) for value in np.unique(values)}
    return bool(used & set(colors.codes[1:]))


def _decode_values(values: npt.NDArray[Any], colors: ClassColors, location: object, lossy: bool) -> DecodedMask:
    codes = list(range(len(colors.codes))) if colors.colored else [code[0] for code in colors.codes]
    black_and_white = values.max(initial=0) == 255 and not ((values > 0) & (values < 255)).any()
    if codes == [0, 1] and black_and_white:
        codes = [0, 255]
    valid = np.isin(values, codes)
    if not valid.all():
        raise _unknown(location, "value", _count_values(values[~valid]), codes, lossy)
    lookup = np.zeros(max(codes) + 1, dtype=np.uint8)
    lookup[codes] = np.arange(len(codes))
    label = lookup[values]
    return DecodedMask(label, rims=_rims(values, label, colors.names))


def _rims(values: npt.NDArray[Any], label: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, int]:
    """Return how many pixels of a class are lines, one pixel wide, from a lower to a higher value; few do not count."""
    sizes = np.bincount(label.ravel(), minlength=len(names))
    if np.count_nonzero(sizes) < 3:
        return {}
    between = (ndimage.minimum_filter(values, 3) < values) & (values < ndimage.maximum_filter(values, 3))
    counts = np.bincount(label[between & ~_areas(values, 2)], minlength=len(names))
    doubtful = (counts >= _RIM) & (counts > 0.01 * sizes)
    return {name: int(count) for name, count, doubt in zip(names, counts, doubtful, strict=True) if doubt}


def _unknown(location: object, kind: str, pixels: Codes, codes: Sequence[Any], lossy: bool) -> LabelError:
    count = sum(pixels.values())
    problem = (
        f"{count} pixels have {kind}s that no class has" if count > 1 else f"a pixel has a {kind} that no class has"
    )
    classes = ", ".join(map(str, codes[:8])) + (", ..." if len(codes) > 8 else "")
    came = f"{format_codes(pixels)}; the classes have {classes}"
    return LabelError(location, problem, came, _LOSSY if lossy else _NAME_THEM)


def _decode_colors(
    pixels: npt.NDArray[np.uint8], colors: ClassColors, location: object, lossy: bool = False
) -> DecodedMask:
    """Assign each pixel to its color's class, and those of no class's color to that of the nearest pixel with one."""
    # A color as one integer 0xRRGGBB compares in one pass instead of three.
    keys = np.left_shift(pixels[..., 0], 16, dtype=np.int32)
    keys |= np.left_shift(pixels[..., 1], 8, dtype=np.int32)
    keys |= pixels[..., 2]
    label = np.zeros(keys.shape, dtype=np.uint8)
    pure = np.zeros(keys.shape, dtype=bool)
    for index, (red, green, blue) in enumerate(colors.codes):
        same = keys == (red << 16 | green << 8 | blue)
        label[same] = index
        pure |= same
    if pure.all():
        return DecodedMask(label)
    unknown, inverse, counts = np.unique(keys[~pure], return_inverse=True, return_counts=True)
    rgb = np.stack([unknown >> 16, (unknown >> 8) & 255, unknown & 255], axis=1)
    codes = np.array(colors.codes)
    distances = cdist(rgb, codes)
    doubtful = {tuple(color): int(count) for color, count in zip(rgb.tolist(), counts, strict=True)}
    far = (distances.min(axis=1) > SMOOTHING_DISTANCE) & np.isin(unknown, keys[~pure & _areas(keys, 3)])
    wrong = {code: count for code, count, refused in zip(doubtful, counts.tolist(), far, strict=True) if refused}
    # An area of almost a class's color is that class: JPEG leaves such, and filters that swing beyond an edge.
    near = label.copy()
    near[~pure] = distances.argmin(axis=1)[inverse]
    close = pure.copy()
    close[~pure] = (distances.min(axis=1) <= min(SMOOTHING_DISTANCE, pdist(codes).min() / 4))[inverse]
    clear = close & _areas(np.where(close, near, -1), 3)
    if not wrong and (_looks_like_indices(pixels, colors) or (~pure & ~clear).sum() > pure.size / 2):
        wrong = doubtful
    if wrong:
        raise _unknown(location, "color", wrong, [list(code) for code in colors.codes], lossy)
    pure &= ~_blends(label, pure, codes)
    label = np.where(pure, label, near)
    known = pure | clear if _contradicts(label, pure, clear) else pure
    result = _nearest_classes(label, known, clear, pixels, codes)
    amounts = np.bincount(result[~pure], minlength=len(codes)).tolist()
    return DecodedMask(result, {name: count for name, count in zip(colors.names, amounts, strict=True) if count})


def _areas(label: npt.NDArray[Any], side: int) -> npt.NDArray[np.bool_]:
    """Return the pixels in a square of `side` pixels of one class; beyond the border the image goes on."""
    lowest, highest = (function(label, side) for function in (ndimage.minimum_filter, ndimage.maximum_filter))
    return np.asarray(ndimage.maximum_filter(lowest == highest, side, origin=-1 if side % 2 == 0 else 0))


def _blends(label: npt.NDArray[np.uint8], pure: npt.NDArray[np.bool_], codes: npt.NDArray[Any]) -> Any:
    """Return the pixels of a line, one pixel wide, in a class's color that lies halfway between those of two others.

    In a smoothed mask the edge of (128, 0, 0) to black holds (64, 0, 0), whichever class that is.
    """
    blends = np.zeros(label.shape, dtype=bool)
    thin = pure & ~_areas(np.where(pure, label, -1), 2)
    present = np.unique(label[pure])
    for index in np.unique(label[thin]):
        others = codes[present[present != index]]
        parts = cdist(others, codes[[index]])
        # Both parts are together as long as the line if the color lies on it.
        if (parts + parts.T - cdist(others, others)).min(initial=np.inf) < _BETWEEN:
            blends |= thin & (label == index)
    return blends


def _contradicts(label: npt.NDArray[np.uint8], pure: npt.NDArray[np.bool_], clear: npt.NDArray[np.bool_]) -> bool:
    """Return whether a clear pixel is nearer to a pure one of another class than to any of its own."""
    if not pure.any():
        return True
    distance, nearest = ndimage.distance_transform_edt(~pure, return_indices=True)
    suspects = clear & (label[tuple(nearest)] != label)
    return any(
        (ndimage.distance_transform_edt(~(pure & (label == index))) > distance)[suspects & (label == index)].any()
        for index in np.unique(label[suspects])
    )


def _nearest_classes(
    label: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    clear: npt.NDArray[np.bool_],
    pixels: npt.NDArray[np.uint8],
    codes: npt.NDArray[Any],
) -> npt.NDArray[np.uint8]:
    """Give each unclear pixel the class of the nearest known one; of several equally near, that of the likest color."""
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    unclear = ~(known | clear)
    result = np.where(unclear, label[tuple(nearest)], label)
    positions = np.argwhere(unclear)
    squares = ((nearest[:, unclear].T - positions) ** 2).sum(axis=1)
    for square in np.unique(squares[squares <= _TIES**2]):
        reach = np.arange(-_TIES, _TIES + 1)
        steps = np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2)
        steps = steps[(steps**2).sum(axis=1) == square]
        centers = positions[squares == square]
        around = centers[:, None] + steps[None]
        inside = ((around >= 0) & (around < label.shape)).all(axis=2)
        rows, columns = np.moveaxis(np.where(inside[..., None], around, centers[:, None]), 2, 0)
        classes = label[rows, columns]
        unlike = np.linalg.norm(pixels[tuple(centers.T)][:, None].astype(np.float64) - codes[classes], axis=2)
        unlike[~known[rows, columns]] = np.inf  # the pixel itself stands for those beyond the border
        result[tuple(centers.T)] = np.take_along_axis(classes, unlike.argmin(axis=1)[:, None], 1)[:, 0]
    return np.asarray(result)


def _looks_like_indices(pixels: npt.NDArray[np.uint8], colors: ClassColors) -> bool:
    """Return whether a grey mask holds only small numbers, as class indices are, and no class has them as colors."""
    greatest = int(pixels.max())
    grey = bool((pixels == pixels[..., :1]).all())
    return grey and 0 < greatest < len(colors.codes) and (greatest,) * 3 not in colors.codes


def _count_colors(pixels: npt.NDArray[Any]) -> Codes:
    unique, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(part) for part in color): int(count) for color, count in zip(unique, counts, strict=True)}


def _count_values(values: npt.NDArray[Any]) -> Codes:
    unique, counts = np.unique(values, return_counts=True)
    return {(int(value),): int(count) for value, count in zip(unique, counts, strict=True)}


def format_codes(pixels: Codes, limit: int = 4) -> str:
    """List the most frequent codes with their pixels.

    Example:
        >>> format_codes({(7,): 12, (0, 255, 0): 40})
        '[0, 255, 0] in 40 pixels, 7 in 12'
    """
    ranked = sorted(pixels, key=lambda code: -pixels[code])
    listed = [f"{list(code) if len(code) > 1 else code[0]} in {pixels[code]}" for code in ranked[:limit]]
    listed[:1] = [f"{text} {'pixel' if pixels[ranked[0]] == 1 else 'pixels'}" for text in listed[:1]]
    return ", ".join(listed) + (f" and {len(ranked) - limit} more" if len(ranked) > limit else "")


def decode_binary(image: Image2D, location: object, binarize: float | None = None) -> tuple[npt.NDArray[np.bool_], int]:
    """Return a mask of one structure, `(rows, columns)`, and how many of its pixels were neither black nor white.

    Pixels between are smoothing if they are less than half of the structure: they go to the nearer side. With
    `binarize`, however many they are, those above this share of white belong to the structure.

    Raises:
        LabelError: a colored image, or one that is no mask.
    """
    values = image.values
    if image.palette is not None and values.max(initial=0) > 1:
        values = image.palette[values]
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            problem = "a mask of one structure must be black and white, but it is colored"
            raise LabelError(location, problem, format_codes(_count_colors(values)))
        values = values[..., 0]
    highest = values.max(initial=0)
    if highest <= 1:
        return np.asarray(values == 1), 0
    white = 255 if highest <= 255 else 65535
    between = (values > 0) & (values < white)
    count, mask = int(between.sum()), np.asarray(values > (0.5 if binarize is None else binarize) * white)
    if binarize is None and count and count >= max(1, int(mask.sum())) / 2:
        problem = f"{count} pixels are neither black nor white; a mask of one structure holds 0 and 1, or 0 and {white}"
        fix = _LOSSY if image.lossy else OPTION.format(full=white)
        raise LabelError(location, problem, format_codes(_count_values(values[between])), fix)
    return mask, count
