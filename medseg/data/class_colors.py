"""What the values and colours of masks mean: `classes.json`, `label_map.json`, or nothing but the masks themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, LabelError
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d
from medseg.labels import BACKGROUND, LabelMap

CLASSES, NAMES = "classes.json", "label_map.json"
NEAR = 32.0  # a colour no further than this from a class's is that class's, however large the area
_EXAMPLE = f'Write {CLASSES}, for example: {{"{BACKGROUND}": [0, 0, 0], "liver": [255, 0, 0]}}'


@dataclass(frozen=True, eq=False)
class Decoded:
    """A mask as classes.

    Args:
        label: `(rows, columns)`, uint8: indices of the palette's names.
        doubtful: pixels by colour (or value) that no class has and that went to the nearest.
    """

    label: npt.NDArray[np.uint8]
    doubtful: dict[tuple[int, ...], int] = field(default_factory=dict)


def read_palette(root: Path) -> ClassColors | None:
    """What `classes.json` or `label_map.json` in a folder says; None where neither is there.

    `classes.json` gives each name a colour `[r, g, b]`, or all of them a grey value; what is not named is black.

    Raises:
        LabelError: names or colours twice, colours that are none.
    """
    path = root / CLASSES
    if not path.is_file():
        if not (root / NAMES).is_file():
            return None
        names = LabelMap.load(root / NAMES).names
        return ClassColors(names, tuple((index,) for index in range(len(names))))
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(path, "must be a readable JSON file", str(error)) from error
    if not isinstance(content, dict) or not content:
        raise LabelError(path, "must give each class its colour", repr(content)[:60], _EXAMPLE)
    coloured = isinstance(next(iter(content.values())), list)
    codes = {str(name): _code(path, str(name), said, coloured) for name, said in content.items()}
    ground = next((name for name in codes if name.strip("_ ").lower() == BACKGROUND), None)
    black = (0, 0, 0) if coloured else (0,)
    rest = {name: code for name, code in codes.items() if name != ground}
    found = (codes[ground] if ground else black, *rest.values())
    LabelMap(list(rest))  # sees that the names will do
    twice = sorted({code for code in found if found.count(code) > 1})
    if twice:
        who = [name for name, code in codes.items() if code == twice[0]] + ([] if ground else [BACKGROUND])
        raise LabelError(path, "must give every class a code of its own", f"{list(twice[0])} for {' and '.join(who)}")
    if len(found) > 256:
        raise LabelError(path, "may name up to 255 classes", str(len(rest)))
    return ClassColors((BACKGROUND, *rest), found, coloured)


def _code(path: Path, name: str, said: Any, coloured: bool) -> tuple[int, ...]:
    values = said if isinstance(said, list) else [said]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= 255 for one in values)
    if isinstance(said, list) != coloured or not whole or len(values) != (3 if coloured else 1):
        rule = "three numbers from 0 to 255, as the others have" if coloured else "a value from 0 to 255"
        raise LabelError(f"{path}, class '{name}'", f"needs {rule}", json.dumps(said)[:60], _EXAMPLE)
    return tuple(values)


def generic_palette(masks: Iterable[Path]) -> ClassColors:
    """Names for masks that come without: `class_1` to the greatest value, or one class where they are 0 and 255.

    Every mask is read.

    Raises:
        DataError: a mask that cannot be read; LabelError: coloured masks, or values that are no classes.
    """
    values = np.zeros(256, dtype=bool)
    for path in masks:
        picture = read_image_2d(path)
        if picture.values.ndim == 3:
            seen = sorted({tuple(int(v) for v in colour) for colour in np.unique(_flat(picture), axis=0)})
            printable = ", ".join(str(list(colour)) for colour in seen[:6]) + (" ..." if len(seen) > 6 else "")
            raise LabelError(path, f"is coloured and needs {CLASSES} to say what colours mean", printable, _EXAMPLE)
        if picture.values.max() > 255:
            raise LabelError(path, "must hold values up to 255", f"{picture.values.max()}")
        values[np.unique(picture.values)] = True
    found = np.flatnonzero(values)
    if found[-1] == 255 and len(found) <= 2:
        return ClassColors((BACKGROUND, "class_1"), ((0,), (255,)), generic=True)
    if found[-1] > 64 or found[-1] == 0:
        few = ", ".join(str(value) for value in found[:8])
        raise LabelError("masks without names", "must hold class indices, or 0 and 255", f"the values {few}", _EXAMPLE)
    names = [f"class_{index}" for index in range(1, found[-1] + 1)]
    return ClassColors((BACKGROUND, *names), tuple((index,) for index in range(len(names) + 1)), generic=True)


def _flat(picture: Image2D) -> npt.NDArray[Any]:
    return picture.values.reshape(-1, 3)


def decode_mask(picture: Image2D, palette: ClassColors, location: object = "mask") -> Decoded:
    """A mask as classes, whether it holds values, colours, or values with colours (a palette).

    Colours that no class has, as smoothing leaves them between two areas, go to the nearest class and are
    counted. An area of one such colour, 3 pixels wide and high, is no smoothing: it is refused. Values with
    colours go by these where one of them is a class's, else by the values.

    Raises:
        LabelError: an area of a colour, or a value, that no class has; says how many pixels and which.
    """
    values = picture.values
    if picture.palette is not None:
        if palette.coloured and _is_coloured(picture, palette):
            return _by_colour(picture.palette[values], palette, location)
    elif values.ndim == 3:
        if not palette.coloured:
            if (values == values[..., :1]).all():
                return _by_value(values[..., 0], palette, location)
            raise LabelError(
                location, f"is coloured, and {CLASSES} gives no colours", _shown(_counts(values)), _EXAMPLE
            )
        return _by_colour(values, palette, location)
    elif palette.coloured and any(code[0] == code[1] == code[2] for code in palette.codes[1:]):
        return _by_colour(np.repeat(_eight(picture)[..., None], 3, axis=2), palette, location)
    return _by_value(values, palette, location)


def _eight(picture: Image2D) -> npt.NDArray[np.uint8]:
    """A grey mask as colours count: one of fewer bits holds white as less than 255."""
    full = picture.full or 255
    scaled = picture.values.astype(np.int64) * (255 // full) if full < 255 else picture.values
    return np.asarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _is_coloured(picture: Image2D, palette: ClassColors) -> bool:
    used = np.unique(picture.values)
    colours = (
        {tuple(int(one) for one in picture.palette[value]) for value in used} if picture.palette is not None else {}
    )
    return bool(set(colours) & set(palette.codes[1:]))


def _by_value(values: npt.NDArray[Any], palette: ClassColors, location: object) -> Decoded:
    codes = [code[0] for code in palette.codes] if not palette.coloured else list(range(len(palette.codes)))
    if (
        len(codes) == 2
        and codes == [0, 1]
        and values.max(initial=0) == 255
        and not ((values > 0) & (values < 255)).any()
    ):
        codes = [0, 255]
    known = np.isin(values, codes)
    if not known.all():
        table = _values(values[~known])
        raise LabelError(
            location,
            f"must hold the values of its classes: {', '.join(str(code) for code in codes[:12])}",
            f"{int((~known).sum())} pixels of other values: {_shown(table)}",
            f"Name them in {CLASSES}, or mend the mask.",
        )
    lookup = np.zeros(max(codes) + 1, dtype=np.uint8)
    lookup[codes] = np.arange(len(codes))
    return Decoded(lookup[values])


def _by_colour(colours: npt.NDArray[np.uint8], palette: ClassColors, location: object) -> Decoded:
    """Each pixel to the class whose colour is nearest; what has a class's own colour is not looked at twice."""
    keys = np.left_shift(colours[..., 0], 16, dtype=np.int32)
    keys |= np.left_shift(colours[..., 1], 8, dtype=np.int32)
    keys |= colours[..., 2]
    label = np.zeros(keys.shape, dtype=np.uint8)
    known = np.zeros(keys.shape, dtype=bool)
    for index, (red, green, blue) in enumerate(palette.codes):
        same = keys == (red << 16 | green << 8 | blue)
        label[same] = index
        known |= same
    if known.all():
        return Decoded(label)
    found, where, counts = np.unique(keys[~known], return_inverse=True, return_counts=True)
    rgb = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1)
    apart = np.linalg.norm(rgb[:, None, :] - np.array(palette.codes)[None], axis=2)
    label[~known] = apart.argmin(axis=1)[where]
    doubtful = {tuple(colour): int(count) for colour, count in zip(rgb.tolist(), counts, strict=True)}
    far = {int(key) for key in found[apart.min(axis=1) > NEAR]}
    areas = _areas(keys, far) if far else set()
    wrong = {code: count for code, count in doubtful.items() if code[0] << 16 | code[1] << 8 | code[2] in areas}
    if not wrong and _looks_like_indices(colours, palette):
        wrong = doubtful
    if wrong:
        raise LabelError(
            location,
            f"must have the colours of its classes: {', '.join(str(list(code)) for code in palette.codes[:8])}",
            f"{sum(wrong.values())} pixels of other colours: {_shown(wrong)}",
            f"Name them in {CLASSES}, or mend the mask.",
        )
    return Decoded(label, doubtful)


def _looks_like_indices(colours: npt.NDArray[np.uint8], palette: ClassColors) -> bool:
    """Whether a grey mask holds nothing but small numbers, as class indices are, and no class has them as colours."""
    greatest = int(colours.max())
    grey = bool((colours == colours[..., :1]).all())
    return grey and 0 < greatest < len(palette.codes) and (greatest,) * 3 not in palette.codes


def _areas(keys: npt.NDArray[np.int32], colours: set[int]) -> set[int]:
    """Those of the colours that fill 3 by 3 pixels somewhere."""
    if min(keys.shape) < 3:
        return set()
    middle, same = keys[1:-1, 1:-1], np.ones((keys.shape[0] - 2, keys.shape[1] - 2), dtype=bool)
    for i in range(3):
        for j in range(3):
            same &= keys[i : keys.shape[0] - 2 + i, j : keys.shape[1] - 2 + j] == middle
    return {int(key) for key in np.unique(middle[same])} & colours


def _counts(colours: npt.NDArray[Any]) -> dict[tuple[int, ...], int]:
    found, counts = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(v) for v in colour): int(n) for colour, n in zip(found, counts, strict=True)}


def _values(values: npt.NDArray[Any]) -> dict[tuple[int, ...], int]:
    found, counts = np.unique(values, return_counts=True)
    return {(int(value),): int(count) for value, count in zip(found, counts, strict=True)}


def _shown(table: dict[tuple[int, ...], int], most: int = 4) -> str:
    """The commonest codes with their pixels.

    >>> _shown({(7,): 12, (0, 255, 0): 40})
    '[0, 255, 0] (40), 7 (12)'
    """
    ranked = sorted(table, key=lambda code: -table[code])
    printable = [f"{list(code) if len(code) > 1 else code[0]} ({table[code]})" for code in ranked[:most]]
    return ", ".join(printable) + (f" and {len(ranked) - most} more" if len(ranked) > most else "")


def doubt(doubtful: dict[tuple[int, ...], int]) -> str:
    """A sentence without its end on pixels whose colour no class has; empty where there are none."""
    if not doubtful:
        return ""
    return f"{sum(doubtful.values())} pixels of no class's colour went to the nearest: {_shown(doubtful)}"


def binary(picture: Image2D, location: object) -> tuple[npt.NDArray[np.bool_], int]:
    """A mask of one structure, `(rows, columns)`, and how many of its pixels were neither black nor white.

    What is not black and white is smoothing if it is less than half of the structure: it goes to the nearer side.

    Raises:
        LabelError: a coloured picture, or one that is no mask.
    """
    values = picture.values
    if picture.palette is not None:
        values = values if picture.values.max(initial=0) <= 1 else picture.palette[values]
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise LabelError(location, "must be a mask of one structure, black and white", _shown(_counts(values)))
        values = values[..., 0]
    most = values.max(initial=0)
    if most <= 1:
        return np.asarray(values == 1), 0
    white = 255 if most <= 255 else 65535
    between = int(((values > 0) & (values < white)).sum())
    mask = np.asarray(values > white // 2)
    if between and between >= max(1, int(mask.sum())) / 2:
        table = _values(values[(values > 0) & (values < white)])
        rule = f"must be a mask of one structure: 0 and 1, or 0 and {white}"
        raise LabelError(location, rule, f"{between} pixels of other values: {_shown(table)}", "See what was exported.")
    return mask, between
