"""Slices made ready for training: every picture read and checked once, one label picture each, kept by scan."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from medseg.atomic import write_json
from medseg.cases import Case, DatasetIndex
from medseg.data.class_colors import binary, decode_mask, doubt
from medseg.data.rle import decode_runs
from medseg.errors import DataError, GeometryError, MedsegError, OutputError
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

VERSION = 1  # goes into the name of what is kept: raise it whenever the same files would give other labels
RECORD = "scan.json"
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Content:
    """What a slice holds.

    Args:
        picture: its image.
        masks: of each structure that somebody looked for, `(rows, columns)`; they may overlap.
        doubts: what had to be guessed at in a file: `(file, sentence)`.
    """

    picture: Image2D
    masks: dict[str, npt.NDArray[np.bool_]]
    doubts: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class _Ready:
    """What is known of the slices of one scan once their labels are made."""

    folder: Path
    limits: tuple[float, float] | None
    combinations: tuple[tuple[int, ...], ...] | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    overlaps: int = 0


def read_slice(case: Case, palette: ClassColors) -> Content:
    """The image of a slice and its masks, whichever way they are written.

    Raises:
        DataError: a file that cannot be read, runs that end beyond the image.
        GeometryError: a mask of another size than the image.
        LabelError: values or colours that no class has.
    """
    picture = read_image_2d(case.image)
    shape = picture.values.shape[:2]
    doubts = [(case.image, f"not read: {picture.loss}")] if picture.loss else []
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    if case.slice is not None and case.slice.runs is not None:
        for name, runs in case.slice.runs.items():
            masks[name] = decode_runs(runs, (shape[0], shape[1]), f"{case.label}, {case.id}, {name}")
    elif case.masks:
        for name, path in case.masks.items():
            mask, between = binary(_same_size(path, case.image, shape), path)
            masks[name] = mask
            if between:
                doubts.append((path, f"{between} pixels between black and white went to the nearer"))
    elif case.label is not None:
        decoded = decode_mask(_same_size(case.label, case.image, shape), palette, case.label)
        masks = {name: decoded.label == index for index, name in enumerate(palette.names) if index}
        if decoded.doubtful:
            doubts.append((case.label, doubt(decoded.doubtful)))
    return Content(picture, masks, tuple(doubts))


def _same_size(path: Path, image: Path, shape: tuple[int, ...]) -> Image2D:
    mask = read_image_2d(path)
    if mask.values.shape[:2] != shape:
        rule = f"must have the size of {image.name}, {shape[0]} rows and {shape[1]} columns"
        found = f"{mask.values.shape[0]} rows and {mask.values.shape[1]} columns"
        raise GeometryError(path, rule, found, "Export both from the same scan.")
    return mask


def open_slices(dataset: DatasetIndex, labels: LabelMap, cache: Path, keep: bool = False) -> DatasetIndex:
    """The slices of a set with label pictures numbered as `labels`; every file is read, so that training can start.

    Labels are made once and kept in `cache`, scan by scan, under a name that changes with the files and the
    classes. In the cases that come out `label` is a PNG of indices (of codes where overlaps are kept), `limits` of
    the slice are those of its scan where its pictures have more than 8 bits.

    Args:
        dataset: as `medseg.data.slices.read` gives it, with its split decided.
        labels: the classes of the network.
        cache: where labels are kept.
        keep: whether overlaps are kept as combinations; else the structure that is smaller by nature has a pixel.

    Raises:
        DataError: files that cannot be used; names the first and says how many there are.
        OutputError: the cache cannot be written.
    """
    units: dict[str, list[Case]] = {}
    for case in dataset.cases:
        if case.slice is not None:
            units.setdefault(case.slice.scan or case.slice.patient, []).append(case)
    palette = dataset.palette or ClassColors(("background", *dataset.structures), ())
    ready = _each(lambda unit: _unit(unit[0], unit[1], palette, labels, cache, keep), list(units.items()))
    _raise([fault for one in ready if isinstance(one, list) for fault in one])
    made = dict(zip(units, (one for one in ready if isinstance(one, _Ready)), strict=True))
    _tell(dataset, made.values(), keep)
    cases = []
    for case in dataset.cases:
        if case.slice is not None:
            one = made[case.slice.scan or case.slice.patient]
            known = bool(case.masks) or case.label is not None
            said = replace(case.slice, limits=one.limits if case.slice.scan else None, runs=None)
            label = one.folder / f"{case.id}.png" if known else None
            case = replace(case, label=label, combinations=one.combinations if known else None, slice=said)
        cases.append(case)
    return replace(dataset, cases=tuple(cases))


def _each(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(
            tqdm(pool.map(function, jobs), total=len(jobs), desc="Slices", unit="scan", disable=None, leave=False)
        )


def _raise(faults: Sequence[MedsegError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        first = "; ".join(str(fault) for fault in faults[:_SHOWN])
        raise DataError(
            f"{len(faults)} slices",
            "must be sound before training starts",
            f"among others: {first}",
            "See all of them with medseg data check, and leave them out with --write-exclude.",
        ) from faults[0]


def _tell(dataset: DatasetIndex, made: Iterable[_Ready], keep: bool) -> None:
    """Say what had to be guessed at, and what of the set is uneven."""
    doubts: list[str] = []
    sizes, overlaps = Counter[str](), 0
    for one in made:
        doubts += one.doubts
        sizes.update(one.sizes)
        overlaps += one.overlaps
    for text in doubts[:_SHOWN]:
        logger.warning("%s", text)
    if len(doubts) > _SHOWN:
        logger.warning("%s: as much is so of %d files more", dataset.root, len(doubts) - _SHOWN)
    if len(sizes) > 1:
        said = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(4))
        logger.warning("%s: its slices are of %d sizes (rows x columns): %s", dataset.root, len(sizes), said)
    if overlaps and not keep:
        logger.warning(
            "%s: %d pixels belong to several structures; the smaller by nature has them, and multi-label keeps all",
            dataset.root,
            overlaps,
        )


def _unit(
    name: str, cases: Sequence[Case], palette: ClassColors, labels: LabelMap, cache: Path, keep: bool
) -> _Ready | list[MedsegError]:
    """The labels of one scan, made where they are not there yet; or all that is wrong with it."""
    try:
        folder = cache / f"{name}-{_key(cases, palette, labels, keep)}"
        if (folder / RECORD).is_file():
            held = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            combinations = tuple(tuple(one) for one in held["combinations"]) if keep else None
            limits = tuple(held["limits"]) if held["limits"] else None
            return _Ready(folder, limits, combinations, held["sizes"], tuple(held["doubts"]), held["overlaps"])
    except OSError as fault:
        return [DataError(fault.filename or name, "must be readable", str(fault))]
    faults: list[MedsegError] = []
    record = _Record(labels, keep)
    partial = cache / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        for case in cases:
            try:
                label = record.add(read_slice(case, palette))
            except MedsegError as fault:
                faults.append(fault)
                continue
            _save(partial / f"{case.id}.png", label)
        if faults:
            return faults
        write_json(partial / RECORD, record.content())
        if not (folder / RECORD).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # somebody took the record out of it
            partial.rename(folder)
    except OSError as error:
        if not (folder / RECORD).is_file():  # else another process was faster
            return [OutputError(folder, "must be writable", str(error), "Free space or choose another place.")]
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _unit(name, cases, palette, labels, cache, keep)


class _Record:
    """What comes together while the slices of a scan are read."""

    def __init__(self, labels: LabelMap, keep: bool) -> None:
        self.labels, self.keep = labels, keep
        self.order = labels.structures if keep else labels.overlap_priority()
        self.codes: dict[tuple[int, ...], int] = {(): 0}
        self.limits: tuple[float, float] | None = None
        self.sizes: Counter[str] = Counter()
        self.doubts: list[str] = []
        self.overlaps = 0

    def add(self, content: Content) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The label of one slice: indices, or codes of combinations; `(rows, columns)`."""
        picture = content.picture
        shape = picture.values.shape[:2]
        if picture.deep:
            low, high = picture.limits
            self.limits = (min(low, self.limits[0]), max(high, self.limits[1])) if self.limits else (low, high)
        self.sizes[f"{shape[0]}x{shape[1]}"] += 1
        self.doubts += [f"{path}: {text}" for path, text in content.doubts]
        masks = {name: content.masks[name] for name in self.order if name in content.masks}
        if not self.keep:
            self.overlaps += int(
                (sum((m.astype(np.uint8) for m in masks.values()), np.zeros(shape, np.uint8)) > 1).sum()
            )
        return self._combine(masks, shape) if self.keep else self._paint(masks, shape)

    def _paint(self, masks: Mapping[str, npt.NDArray[np.bool_]], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        label = np.zeros(shape, dtype=np.uint8 if len(self.labels) <= 256 else np.uint16)
        for name, mask in masks.items():
            label[mask] = self.labels.index(name)
        return label

    def _combine(self, masks: Mapping[str, npt.NDArray[np.bool_]], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        codes = np.zeros(shape, dtype=np.int64)
        members: list[tuple[int, ...]] = [()]
        for name, mask in masks.items():
            held = codes[mask]
            new = np.zeros(len(members), dtype=np.int64)
            for code in np.unique(held):
                new[code] = len(members)
                members.append((*members[code], self.labels.index(name) - 1))
            codes[mask] = new[held]
        used = np.zeros(len(members), dtype=np.int64)
        for code in np.unique(codes):
            used[code] = self.codes.setdefault(members[code], len(self.codes))
        return used[codes].astype(np.uint8 if len(self.codes) <= 256 else np.uint16)

    def content(self) -> dict[str, Any]:
        """The form it is kept in."""
        return {
            "limits": self.limits,
            "combinations": list(self.codes),
            "sizes": dict(self.sizes),
            "doubts": self.doubts,
            "overlaps": self.overlaps,
        }


def _save(path: Path, label: npt.NDArray[Any]) -> None:
    """Write a label as PNG; the folder it lies in is what becomes visible whole."""
    from PIL import Image

    Image.fromarray(label).save(path, format="PNG", compress_level=1)


def _key(cases: Sequence[Case], palette: ClassColors, labels: LabelMap, keep: bool) -> str:
    digest = hashlib.sha256()
    for case in cases:
        runs = case.slice.runs if case.slice else None
        files = [case.image] if runs is not None else case.sources()
        stats = [(str(path.resolve()), (it := path.stat()).st_size, it.st_mtime_ns) for path in files]
        digest.update(json.dumps([case.id, stats, runs, sorted(case.masks)]).encode())
    rules = [VERSION, palette.names, palette.codes, palette.coloured, labels.names, labels.overlap_priority(), keep]
    digest.update(json.dumps(rules).encode())
    return digest.hexdigest()[:12]
