"""Prepare 2D slices for training: every image read and checked once, one label image each, cached by scan."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from medseg.atomic import move, write_json
from medseg.cases import Case, DatasetIndex
from medseg.data.case_jobs import source_key
from medseg.data.class_colors import decode_binary, decode_mask
from medseg.data.layouts.kaggle import decode_runs
from medseg.data.masks import join_combinations
from medseg.errors import DataError, GeometryError, MedsegError, OutputError
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

VERSION = 3  # part of the cache key: raise it whenever the same files would give other labels
RECORD = "scan.json"
_LISTED = 5


@dataclass(frozen=True, eq=False)
class SliceContent:
    """Hold image and masks of a slice.

    Args:
        image: the image.
        masks: of each annotated structure, `(rows, columns)`; they may overlap.
        doubts: what had to be guessed in a file: `(file, sentence)`.
        smoothed: by class, the pixels of no class's color that went to it.
    """

    image: Image2D
    masks: dict[str, npt.NDArray[np.bool_]]
    doubts: tuple[tuple[Path, str], ...] = ()
    smoothed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scan:
    """Describe the cached labels of one scan."""

    folder: Path
    limits: tuple[float, float] | None
    combinations: tuple[tuple[int, ...], ...] | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    overlaps: int = 0


def read_slice(case: Case, colors: ClassColors) -> SliceContent:
    """Read the image of a slice and its masks, in whichever form they are stored.

    Raises:
        DataError: a file that cannot be read, runs that end beyond the image.
        GeometryError: a mask of another size than the image.
        LabelError: values or colors that no class has.
    """
    image = read_image_2d(case.image)
    shape = (image.values.shape[0], image.values.shape[1])
    doubts = [(case.image, f"this part of the file is not read: {image.loss}")] if image.loss else []
    masks, mask_doubts, smoothed = read_masks(case, colors, shape, image.orientation)
    return SliceContent(image, masks, (*doubts, *mask_doubts), smoothed)


def read_masks(
    case: Case, colors: ClassColors, shape: tuple[int, int], orientation: int | None = None
) -> tuple[dict[str, npt.NDArray[np.bool_]], list[tuple[Path, str]], Mapping[str, int]]:
    """Read the masks of a slice of that shape; returns them, and doubts and smoothed pixels, see `SliceContent`.

    Args:
        case: its files.
        colors: what values or colors mean.
        shape: rows and columns of the image.
        orientation: that of its EXIF data, which must be the masks'; None for any.

    Raises:
        DataError, GeometryError, LabelError: see `read_slice`.
    """
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    doubts: list[tuple[Path, str]] = []
    smoothed: Mapping[str, int] = {}
    if case.slice is not None and case.slice.runs is not None:
        for name, runs in case.slice.runs.items():
            masks[name] = decode_runs(runs, shape, f"{case.label}, {case.id}, {name}")
    elif case.masks:
        files = [(structure, path) for structure in case.masks for path in case.files_of(structure)]
        for name, path in files:
            mask, between = decode_binary(_read_mask(path, case.image, shape, orientation), path, case.binarize)
            masks[name] = masks[name] | mask if name in masks else mask
            if between:
                doubts.append((path, f"{between} pixels between black and white went to the nearer"))
    elif case.label is not None:
        decoded = decode_mask(_read_mask(case.label, case.image, shape, orientation), colors, case.label)
        masks = {name: decoded.label == index for index, name in enumerate(colors.names) if index}
        smoothed = decoded.smoothed
        if smoothed:
            count, listed = sum(smoothed.values()), ", ".join(f"{name} {smoothed[name]}" for name in smoothed)
            text = f"{count} pixels of no class's color went to the class of the nearest pixel with one: {listed}"
            doubts.append((case.label, text))
        for name, count in decoded.rims.items():
            text = f"{count} pixels of {name} are lines between a lower and a higher class, as smoothing of indices"
            doubts.append((case.label, f"{text} leaves them; resize masks by nearest neighbor"))
    return masks, doubts, smoothed


def _read_mask(path: Path, image: Path, shape: tuple[int, int], orientation: int | None) -> Image2D:
    mask = read_image_2d(path)
    if orientation not in (None, mask.orientation):
        problem = f"its EXIF orientation is not that of {image.name}, so one of them may be turned against the other"
        fix = "Save both without EXIF data, as they are shown."
        raise GeometryError(path, problem, f"{mask.orientation} and {orientation}", fix)
    rows, columns = mask.values.shape[:2]
    if (rows, columns) != shape:
        problem = f"it has {rows} rows and {columns} columns, but {image.name} has {shape[0]} and {shape[1]}"
        raise GeometryError(path, problem, "", "Export both from the same scan.")
    return mask


def open_slices(dataset: DatasetIndex, labels: LabelMap, cache: Path, keep_overlaps: bool = False) -> DatasetIndex:
    """Return the slices of a set with label images numbered as `labels`; every file is read and checked.

    Labels are made once and cached scan by scan, under a name that changes with the files and the
    classes. In the returned cases `label` is a PNG of indices (of codes if overlaps are kept), and `limits` of
    the slice are those of its scan if its images have more than 8 bits.

    Args:
        dataset: 2D slices, with the split decided.
        labels: the classes of the network.
        cache: the folder for labels.
        keep_overlaps: whether overlaps are kept as combinations; else the structure that is smaller in an adult wins.

    Raises:
        DataError: files that cannot be used; names the first and the number of them.
        OutputError: the cache cannot be written.
    """
    scans: dict[str, list[Case]] = {}
    for case in dataset.cases:
        if case.slice is not None:
            scans.setdefault(case.slice.scan or case.patient_id, []).append(case)
    colors = dataset.class_colors or ClassColors.indexed(("background", *dataset.structures))

    def prepare_scan(name: str) -> _Scan | list[MedsegError]:
        return _prepare_scan(name, scans[name], colors, labels, cache, keep_overlaps)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(
            pool.map(prepare_scan, scans), total=len(scans), desc="Slices", unit="scan", disable=None, leave=False
        )
        results = list(bar)
    _raise_first([error for result in results if isinstance(result, list) for error in result])
    prepared = {name: result for name, result in zip(scans, results, strict=True) if isinstance(result, _Scan)}
    _warn(dataset, prepared.values(), keep_overlaps)
    cases = []
    for case in dataset.cases:
        if case.slice is not None:
            scan = prepared[case.slice.scan or case.patient_id]
            labeled = bool(case.masks) or case.label is not None
            info = replace(case.slice, limits=scan.limits if case.slice.scan else None, runs=None)
            label = scan.folder / f"{case.id}.png" if labeled else None
            case = replace(case, label=label, combinations=scan.combinations if labeled else None, slice=info)
        cases.append(case)
    return replace(dataset, cases=tuple(cases))


def _raise_first(errors: Sequence[MedsegError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        listed = " ".join(str(error) for error in errors[:_LISTED])
        fix = "See all of them with medseg data check, and leave them out with --write-exclude."
        raise DataError(f"{len(errors)} slices", f"they cannot be used: {listed.rstrip('.')}", "", fix) from errors[0]


def _warn(dataset: DatasetIndex, scans: Iterable[_Scan], keep_overlaps: bool) -> None:
    """Log what had to be guessed, sizes that differ, and overlaps that are lost."""
    doubts: list[str] = []
    sizes, overlaps = Counter[str](), 0
    for scan in scans:
        doubts += scan.doubts
        sizes.update(scan.sizes)
        overlaps += scan.overlaps
    for text in doubts[:_LISTED]:
        logger.warning("%s", text)
    if len(doubts) > _LISTED:
        logger.warning("%s: there are %d more files like these", dataset.root, len(doubts) - _LISTED)
    if len(sizes) > 1:
        listed = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(4))
        logger.warning("%s: its slices have %d sizes (rows x columns): %s", dataset.root, len(sizes), listed)
    if overlaps and not keep_overlaps:
        logger.warning(
            "%s: %d pixels belong to several structures; the one smaller in an adult wins, multilabel keeps all",
            dataset.root,
            overlaps,
        )


def _prepare_scan(
    name: str, cases: Sequence[Case], colors: ClassColors, labels: LabelMap, cache: Path, keep_overlaps: bool
) -> _Scan | list[MedsegError]:
    """Return the cached labels of one scan, made if they do not exist yet; or everything that is wrong with it."""
    try:
        folder = cache / f"{name}-{_scan_key(cases, colors, labels, keep_overlaps)}"
        if (folder / RECORD).is_file():
            return _read_record(folder, keep_overlaps)
    except OSError as error:
        return [DataError(error.filename or name, "the file cannot be read", str(error))]
    except DataError as error:
        return [error]
    errors: list[MedsegError] = []
    encoder = _SliceEncoder(labels, keep_overlaps)
    partial = cache / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        for case in cases:
            try:
                label = encoder.encode(read_slice(case, colors), case.image)
            except MedsegError as error:
                errors.append(error)
                continue
            _save_png(partial / f"{case.id}.png", label)
        if errors:
            return errors
        write_json(partial / RECORD, encoder.record())
        if not (folder / RECORD).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # a folder without its record is not complete
            move(partial, folder)
    except OSError as error:
        if not (folder / RECORD).is_file():  # else another process was faster
            return [
                OutputError(folder, "the folder cannot be written", str(error), "Free space or choose another path.")
            ]
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _read_record(folder, keep_overlaps)


def _read_record(folder: Path, keep_overlaps: bool) -> _Scan:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    combinations = tuple(map(tuple, record["combinations"])) if keep_overlaps else None
    limits = tuple(record["limits"]) if record["limits"] else None
    return _Scan(folder, limits, combinations, record["sizes"], tuple(record["doubts"]), record["overlaps"])


class _SliceEncoder:
    """Encode the masks of a scan's slices as label images, and collect what is known of the scan."""

    def __init__(self, labels: LabelMap, keep_overlaps: bool) -> None:
        self.labels = labels
        self.keep_overlaps = keep_overlaps
        self.order = labels.structures if keep_overlaps else labels.overlap_priority()
        self.codes: dict[tuple[int, ...], int] = {(): 0}
        self.limits: tuple[float, float] | None = None
        self.flat: Path | None = None  # an image of 8 bits
        self.sizes: Counter[str] = Counter()
        self.doubts: list[str] = []
        self.overlaps = 0

    def encode(self, content: SliceContent, path: Path) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the label of one slice: indices, or codes of combinations; `(rows, columns)`."""
        rows, columns = content.image.values.shape[:2]
        if content.image.deep:
            low, high = content.image.limits
            self.limits = (min(low, self.limits[0]), max(high, self.limits[1])) if self.limits else (low, high)
        else:
            self.flat = self.flat or path
        self.sizes[f"{rows}x{columns}"] += 1
        self.doubts += [f"{path}: {text}" for path, text in content.doubts]
        masks = {name: content.masks[name] for name in self.order if name in content.masks}
        if self.keep_overlaps:
            return self._encode_combinations(masks, (rows, columns))
        label = np.zeros((rows, columns), dtype=np.uint8 if len(self.labels) <= 256 else np.uint16)
        count = np.zeros((rows, columns), dtype=np.uint8)
        for name, mask in masks.items():
            label[mask] = self.labels.index(name)
            count += mask
        self.overlaps += int((count > 1).sum())
        return label

    def _encode_combinations(
        self, masks: Mapping[str, npt.NDArray[np.bool_]], shape: tuple[int, int]
    ) -> npt.NDArray[Any]:
        codes = np.zeros(shape, dtype=np.uint16)
        members: list[tuple[int, ...]] = [()]
        for name, mask in masks.items():
            codes[mask] = join_combinations(codes[mask], members, self.labels.index(name) - 1, "slice")
        # The slices of a scan share one table of codes.
        scan_codes = np.zeros(len(members), dtype=np.int64)
        for code in np.unique(codes):
            scan_codes[code] = self.codes.setdefault(members[code], len(self.codes))
        return scan_codes[codes].astype(np.uint8 if len(self.codes) <= 256 else np.uint16)

    def record(self) -> dict[str, Any]:
        """Return the content of the scan's record."""
        mixed = [f"{self.flat}: it has 8 bits, and others of its scan more"] if self.flat and self.limits else []
        return {
            "limits": self.limits,
            "combinations": list(self.codes),
            "sizes": dict(self.sizes),
            "doubts": [*mixed, *self.doubts],
            "overlaps": self.overlaps,
        }


def _save_png(path: Path, label: npt.NDArray[Any]) -> None:
    """Write a label as PNG, fast; the folder becomes visible only when it is complete."""
    from PIL import Image

    Image.fromarray(label).save(path, format="PNG", compress_level=1)


def _scan_key(cases: Sequence[Case], colors: ClassColors, labels: LabelMap, keep_overlaps: bool) -> str:
    digest = hashlib.sha256()
    for case in cases:
        runs = case.slice.runs if case.slice else None
        # The table of all runs changes with any slice; the runs themselves stand for it.
        key_case = case if runs is None else replace(case, label=None)
        digest.update(source_key(key_case, runs, sorted(case.masks)).encode())
    rules = [
        VERSION,
        colors.names,
        colors.codes,
        colors.colored,
        labels.names,
        labels.overlap_priority(),
        keep_overlaps,
    ]
    digest.update(json.dumps(rules).encode())
    return digest.hexdigest()[:12]
