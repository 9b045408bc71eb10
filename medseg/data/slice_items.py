"""Make items of 2D slices to segment."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from medseg.data.layouts import kaggle
from medseg.data.layouts.slices import compile_patient, patient_of, slice_info
from medseg.errors import DataError
from medseg.file_names import name_key, stem, walk
from medseg.image_io_2d import SliceInfo, is_image_2d, read_image_2d, slice_neighbors

logger = logging.getLogger(__name__)


def slice_items(
    inputs: str | Path | Iterable[str | Path], context: int = 0, without: str | Path | None = None
) -> list[dict[str, Any]]:
    """Return 2D images to segment as items: `[{"image": path, "case": id, ...}, ...]`; see `SliceInfo.item`.

    Names and folders of the images tell the scans. If an image of a scan has more than 8 bits, all of the scan
    is read for its range, within the given folders. An image that cannot be read is an item nevertheless.

    Args:
        inputs: images, and folders of images (with all below them).
        context: how many neighbors on each side an item names.
        without: a folder whose images are left out, such as that of the output.

    Raises:
        DataError: a path that does not exist, no image, or two images of one name.
    """
    files: list[Path] = []
    for path in map(Path, [inputs] if isinstance(inputs, (str, Path)) else inputs):
        if not path.exists():
            raise DataError(path, "there is no such image or folder of images")
        files += list(filter(is_image_2d, walk(path))) if path.is_dir() else [path]
    if without is not None:
        files = [file for file in files if Path(without).resolve() not in file.resolve().parents]
    if not files:
        raise DataError(str(inputs), "it holds no 2D images (.png and the like)")
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
        ranges = []
        for file in files:
            try:
                image = read_image_2d(file)
            except DataError:
                continue  # reported when its own item is read
            if image.deep:
                ranges.append(image.limits)
        if ranges:
            limits[scan] = (min(low for low, _ in ranges), max(high for _, high in ranges))
        if len(ranges) == 1:
            logger.warning("%s: a single slice of a scan is scaled by its own range, not by that of the scan", files[0])
    return limits
