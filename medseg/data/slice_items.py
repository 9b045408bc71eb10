"""Make items of 2D slices to segment."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from medseg.data.layouts import kaggle
from medseg.data.layouts.slices import compile_patient, masks_among, patient_of, slice_info
from medseg.errors import DataError
from medseg.file_names import UNREAD_PICTURES, has_suffix, name_key, stem, walk
from medseg.image_io_2d import SUFFIXES, SliceInfo, is_image_2d, read_image_2d, slice_neighbors

logger = logging.getLogger(__name__)


def slice_items(
    inputs: str | Path | Iterable[str | Path],
    context: int = 0,
    without: str | Path | None = None,
    structures: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return 2D images to segment as items: `[{"image": path, "case": id, ...}, ...]`; see `SliceInfo.item`.

    Names and folders of the images tell the scans. If an image of a scan has more than 8 bits, all of the scan
    is read for its range, within the given folders. An image that cannot be read is an item nevertheless. Masks in the
    layouts of training (`masks/` beside `images/`, `a_mask.png` or `a_liver.png` beside `a.png`) are no items.

    Args:
        inputs: images, and folders of images (with all below them).
        context: how many neighbors on each side an item names.
        without: a folder whose images are left out, such as that of the output.
        structures: names that tell masks of single structures.

    Raises:
        DataError: a path that does not exist or is a picture in a format that is not read, no image, nothing but masks,
            or two images of one name.
    """
    files: list[Path] = []
    unread: list[Path] = []
    for path in map(Path, [inputs] if isinstance(inputs, (str, Path)) else inputs):
        if not path.exists():
            raise DataError(path, "there is no such image or folder of images")
        require_known_format(path)
        listed = walk(path) if path.is_dir() else [path]
        files += filter(is_image_2d, listed) if path.is_dir() else [path]
        unread += [file for file in listed if has_suffix(file, UNREAD_PICTURES)]
    if without is not None:
        files = [file for file in files if Path(without).resolve() not in file.resolve().parents]
    folder = ", ".join(map(str, [inputs] if isinstance(inputs, (str, Path)) else inputs))
    names = ", ".join(path.name for path in unread[:4]) + (f" and {len(unread) - 4} more" if len(unread) > 4 else "")
    if not files:
        fix = "Convert them to PNG." if unread else ""
        raise DataError(folder, f"it holds no 2D images that are read ({', '.join(SUFFIXES)})", names, fix)
    if unread:
        logger.warning("%s: not segmented, because the format is not read: %s. Convert them to PNG", folder, names)
    masks = masks_among(files, structures)
    if masks:
        logger.info("%s: %d of %d pictures are masks, which are not segmented", folder, len(masks), len(files))
    files = [file for file in files if file not in masks]
    if not files:
        raise DataError(folder, "it holds masks alone, and no images", f"{len(masks)} files", "Give the images.")
    slices: dict[str, tuple[Path, SliceInfo]] = {}
    file_of: dict[str, Path] = {}
    for file in files:
        resolved = file.resolve()  # the folders above tell more than a relative path
        named = kaggle.slice_at(resolved) if resolved.parent.name == kaggle.SCANS else None
        id, info = named or (stem(file), slice_info(stem(file)))
        namesake = file_of.setdefault(name_key(id), file)
        if namesake.resolve() != resolved:
            problem = f"{namesake} has the same name, and masks are named after the images"
            raise DataError(file, problem, "", "Give folders of images alone (DATA/train/images), or one at a time.")
        # Scans of one name in two folders are two scans.
        slices[id] = file, replace(info, scan=f"{resolved.parent}/{info.scan}" if info.scan else "")
    limits = _limits_of_scans(slices.values())
    infos = {id: info for id, (_, info) in slices.items()}
    neighbors = slice_neighbors(infos, context)
    if context:
        _warn_of_gaps(infos)
    items, pattern = [], compile_patient(None)
    for id, (file, info) in slices.items():
        shown = replace(info, scan=info.scan.rpartition("/")[2], limits=limits.get(info.scan))
        item = shown.item([slices[neighbor][0] for neighbor in neighbors[id]])
        items.append({"image": str(file), "case": id, "patient": patient_of(id, pattern) or id, **item})
    return items


def require_known_format(path: Path) -> None:
    """Refuse a picture in a format that is not read.

    Raises:
        DataError: it is one.
    """
    if has_suffix(path, UNREAD_PICTURES) and not path.is_dir():
        raise DataError(path, "pictures in this format are not read", path.suffix, "Convert it to PNG.")


def _warn_of_gaps(slices: Mapping[str, SliceInfo]) -> None:
    """Warn if the slices of a scan are not numbered one by one: their neighbors may be missing."""
    numbers_of: dict[str, list[int]] = {}
    for info in slices.values():
        if info.scan and info.number is not None:
            numbers_of.setdefault(info.scan, []).append(info.number)
    for scan, numbers in numbers_of.items():
        steps = {after - before for before, after in pairwise(sorted(numbers))}
        if len(numbers) == 1 or steps != {1}:
            logger.warning(
                "%s: slices are missing (%d of numbers %d to %d exist); neighbors differ from those in training",
                scan,
                len(numbers),
                min(numbers),
                max(numbers),
            )
            return


def _limits_of_scans(slices: Iterable[tuple[Path, SliceInfo]]) -> dict[str, tuple[float, float]]:
    """Return the range of each scan with images of more than 8 bits; files that cannot be read are ignored."""
    files_of: dict[str, list[Path]] = {}
    for file, info in slices:
        if info.scan:
            files_of.setdefault(info.scan, []).append(file)
    limits = {}
    for scan, files in files_of.items():
        ranges, flat = [], None
        for file in files:
            try:
                image = read_image_2d(file)
            except DataError:
                continue  # reported when its own item is read
            if image.deep:
                ranges.append(image.limits)
            else:
                flat = flat or file
        if ranges and flat:
            logger.warning("%s: it has 8 bits and others of its scan more, so that black and white mean another", flat)
        if ranges:
            limits[scan] = (min(low for low, _ in ranges), max(high for _, high in ranges))
        if len(ranges) == 1:
            logger.warning("%s: a single slice of a scan is scaled by its own range, not by that of the scan", files[0])
    return limits
