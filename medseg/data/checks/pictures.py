"""One slice of a set of pictures: its files read once, and what is to be said of them."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.cases import Case
from medseg.data import kaggle
from medseg.data.checks.case import PICTURE, CaseSlice, CaseSummary, Reading
from medseg.data.checks.survey import Plan
from medseg.data.slice_labels import Content, read_slice
from medseg.errors import DataError, GeometryError, LabelError, MedsegError
from medseg.findings import Finding, error, warning
from medseg.grid import Grid
from medseg.image_io_2d import ClassColors, intensities, read_image_2d

_WINDOW = (-200.0, 300.0)  # what pictures of findings are shown with
_PERCENTILES = {"min": 0.0, "p0_5": 0.5, "p50": 50.0, "p99_5": 99.5, "max": 100.0}


def read_slice_case(plan: Plan, picture: bool = False) -> Reading:
    """Read a slice and its masks.

    Args:
        plan: its files.
        picture: whether a picture of it is wanted.
    """
    if plan.image is None or plan.palette is None or plan.slice is None:
        return Reading(plan.id, tuple(finding.of(plan.id) for finding in plan.findings))
    case = Case(plan.id, plan.image, plan.label, plan.masks, plan.annotated, slice=plan.slice)
    found = list(plan.findings)
    content = _content(case, plan.palette, found)
    if content is None:
        return Reading(plan.id, tuple(finding.of(plan.id) for finding in found))
    found += [
        warning("picture-loss" if path == case.image else "mask-doubtful", path, text, "Look at the file.")
        for path, text in content.doubts
    ]
    values = content.picture.values
    rows, columns = values.shape[:2]
    named = kaggle.named_size(case.image) if case.slice is not None and case.slice.runs is not None else None
    if named is not None and (rows, columns) not in (named, named[::-1]):
        message = f"its name says {named[0]} and {named[1]} pixels, it has {rows} rows and {columns} columns"
        found.append(warning("slice-size", case.image, message, "See that it is the picture that is meant."))
    if values.min() == values.max():
        message = f"all of its pixels have the value {values.flat[0]}"
        found.append(warning("picture-constant", case.image, message, "Look at it; export it again."))
    masks = {name: mask for name, mask in content.masks.items() if mask.any()}
    spacing = plan.slice.spacing or (1.0, 1.0)
    pixel = spacing[0] * spacing[1]
    summary = CaseSummary(
        id=plan.id,
        shape=(rows, columns, 1),
        spacing=(*spacing, 1.0),
        axes="PLS",
        hu={name: float(np.percentile(values, at)) for name, at in _PERCENTILES.items()},
        voxels={name: int(mask.sum()) for name, mask in masks.items()},
        ml={name: float(mask.sum()) * pixel / 1000.0 for name, mask in masks.items()},  # as if 1 mm thick
    )
    pairs = {
        (one, other): int((masks[one] & masks[other]).sum())
        for one, other in itertools.combinations(masks, 2)
        if (masks[one] & masks[other]).any()
    }
    digest = hashlib.sha256(repr((values.shape, values.dtype)).encode() + np.ascontiguousarray(values).tobytes())
    return Reading(
        id=plan.id,
        findings=tuple(finding.of(plan.id) for finding in found),
        summary=summary,
        overlaps=pairs,
        absent=tuple(name for name in content.masks if name not in masks) if plan.masks else (),
        digest=digest.hexdigest()[:16] if values.min() < values.max() else "",
        picture=_shown(content, plan) if picture else None,
    )


def _content(case: Case, palette: ClassColors, found: list[Finding]) -> Content | None:
    """What the slice holds; where a file of it is wrong, what is wrong with each, and the image alone."""
    try:
        return read_slice(case, palette)
    except MedsegError as fault:
        faults = [fault]
    try:
        content = Content(read_image_2d(case.image), {})
    except MedsegError as fault:
        found.append(_finding(fault, case))
        return None
    if case.masks:
        faults = []
        for name, path in case.masks.items():
            try:
                content.masks.update(read_slice(replace(case, masks={name: path}), palette).masks)
            except MedsegError as fault:
                faults.append(fault)
    found += [_finding(fault, case) for fault in faults]
    return content


def _finding(fault: MedsegError, case: Case) -> Finding:
    message = f"{fault.problem} ({fault.came})"
    if isinstance(fault, GeometryError):
        return error("mask-shape", fault.thing, message, fault.fix)
    if isinstance(fault, LabelError):
        return error("mask-values" if case.masks else "mask-colours", fault.thing, message, fault.fix)
    if isinstance(fault, DataError) and case.label is not None and fault.thing.startswith(f"{case.label}, "):
        return error("runs", fault.thing, message, fault.fix)
    return error("picture-unreadable", fault.thing, message, fault.fix)


def _shown(content: Content, plan: Plan) -> CaseSlice:
    """The slice as it is on the screen, grey, with its structures."""
    grey = intensities(content.picture)[0]
    label = np.zeros(grey.shape, dtype=np.uint8)
    for index, mask in enumerate(content.masks.values(), 1):
        label[mask] = index
    step = max(1, -(-max(grey.shape) // PICTURE))
    low, high = _WINDOW
    hu = (low + grey[::step, ::step] * (high - low)).astype(np.float32)[..., None]
    rows, columns = (plan.slice.spacing if plan.slice is not None else None) or (1.0, 1.0)
    affine = np.array([[0, -columns * step, 0, 0], [-rows * step, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
    return CaseSlice(hu, label[::step, ::step, None], tuple(content.masks), Grid(hu.shape, affine))


def uneven(readings: Sequence[Reading], images: Mapping[str, Path]) -> list[Finding]:
    """Folders whose pictures are not of one size.

    Args:
        readings: of the slices.
        images: the file of each.
    """
    folders: dict[Path, dict[str, list[str]]] = {}
    for one in readings:
        if one.summary is not None and one.id in images:
            size = "x".join(str(length) for length in one.summary.shape[:2])
            folders.setdefault(images[one.id].parent, {}).setdefault(size, []).append(images[one.id].name)
    found = []
    for folder, sizes in folders.items():
        if len(sizes) > 1:
            common = Counter({size: len(names) for size, names in sizes.items()}).most_common(4)
            printable = ", ".join(f"{size} ({count}, {sizes[size][0]} first)" for size, count in common)
            message = f"its pictures are of {len(sizes)} sizes (rows x columns): {printable}"
            found.append(warning("slice-sizes", folder, message, "See that they belong together."))
    return found
