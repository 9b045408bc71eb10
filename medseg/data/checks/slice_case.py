"""Check one 2D slice: read its files once and report what is wrong with them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import numpy as np

from medseg.cases import Case
from medseg.data.checks.case import PREVIEW_SIZE, CaseJob, CaseReport, CaseSummary, Preview
from medseg.data.layouts import kaggle
from medseg.data.slice_labels import SliceContent, read_slice
from medseg.errors import DataError, GeometryError, LabelError, MedsegError
from medseg.findings import Finding, error, warning
from medseg.grid import Grid
from medseg.image_io_2d import ClassColors, intensities, read_image_2d

_WINDOW = (-200.0, 300.0)  # HU of black and white in previews of findings
_PERCENTILES = {"min": 0.0, "p0_5": 0.5, "p50": 50.0, "p99_5": 99.5, "max": 100.0}


def check_slice(job: CaseJob, colors: ClassColors, preview: bool = False) -> CaseReport:
    """Read a slice and its masks.

    Args:
        job: its files.
        colors: the meaning of its masks.
        preview: whether to return a preview of it.
    """
    case, findings = job.case, list(job.findings)
    content = _read(case, colors, findings)
    if content is None or case.slice is None:
        return CaseReport(job.id, tuple(finding.of(job.id) for finding in findings))
    for path, text in content.doubts:
        findings.append(warning("image-loss" if path == case.image else "mask-doubtful", path, text, "Look at it."))
    values = content.image.values
    rows, columns = values.shape[:2]
    size = kaggle.size_in_name(case.image) if case.slice.runs is not None else None
    if size is not None and (rows, columns) not in (size, size[::-1]):
        message = f"its name tells {size[0]} and {size[1]} pixels, but it has {rows} rows and {columns} columns"
        findings.append(warning("slice-size", case.image, message, "Check that it is the right image."))
    if values.min() == values.max():
        message = f"all of its pixels have the value {values.flat[0]}"
        findings.append(warning("image-constant", case.image, message, "Look at it; export it again."))
    masks = {name: mask for name, mask in content.masks.items() if mask.any()}
    voxels = {name: int(mask.sum()) for name, mask in masks.items()}
    spacing = case.slice.spacing or (1.0, 1.0)
    ml_per_pixel = spacing[0] * spacing[1] / 1000.0  # as if slices were 1 mm thick
    summary = CaseSummary(
        id=job.id,
        shape=(rows, columns, 1),
        spacing=(*spacing, 1.0),
        axes="PLS",
        hu={name: float(np.percentile(values, percentile)) for name, percentile in _PERCENTILES.items()},
        voxels=voxels,
        ml={name: count * ml_per_pixel for name, count in voxels.items()},
    )
    overlaps = {pair: int((masks[pair[0]] & masks[pair[1]]).sum()) for pair in itertools.combinations(masks, 2)}
    digest = hashlib.sha256(repr((values.shape, values.dtype)).encode() + np.ascontiguousarray(values).tobytes())
    return CaseReport(
        id=job.id,
        findings=tuple(finding.of(job.id) for finding in findings),
        summary=summary,
        overlaps={pair: count for pair, count in overlaps.items() if count},
        absent=tuple(name for name in content.masks if name not in masks) if case.masks else (),
        smoothed=content.smoothed,
        digest=digest.hexdigest()[:16] if values.min() < values.max() else "",
        preview=_preview(content, spacing) if preview else None,
    )


def _read(case: Case, colors: ClassColors, findings: list[Finding]) -> SliceContent | None:
    """Return the content of a slice; if a mask is wrong, add a finding for each and return the image alone."""
    try:
        return read_slice(case, colors)
    except MedsegError as fault:
        faults = [fault]
    try:
        content = SliceContent(read_image_2d(case.image), {})
    except MedsegError as fault:
        findings.append(_to_finding(fault, case))
        return None
    if case.masks:
        faults = []
        for name, path in case.masks.items():
            try:
                content.masks.update(read_slice(replace(case, masks={name: path}), colors).masks)
            except MedsegError as fault:
                faults.append(fault)
    findings += [_to_finding(fault, case) for fault in faults]
    return content


def _to_finding(fault: MedsegError, case: Case) -> Finding:
    message = f"{fault.problem} ({fault.came})" if fault.came else fault.problem
    if isinstance(fault, GeometryError):
        code = "mask-shape"
    elif isinstance(fault, LabelError):
        code = "mask-values" if case.masks else "mask-colors"
    elif isinstance(fault, DataError) and case.label is not None and fault.thing.startswith(f"{case.label}, "):
        code = "runs"
    else:
        code = "image-unreadable"
    return error(code, fault.thing, message, fault.fix)


def _preview(content: SliceContent, spacing: tuple[float, float]) -> Preview:
    """Return the slice as it looks on the screen, grey, with its structures."""
    grey = intensities(content.image)[0]
    label = np.zeros(grey.shape, dtype=np.uint8)
    for index, mask in enumerate(content.masks.values(), 1):
        label[mask] = index
    step = max(1, -(-max(grey.shape) // PREVIEW_SIZE))
    low, high = _WINDOW
    hu = (low + grey[::step, ::step] * (high - low)).astype(np.float32)[..., None]
    # On a radiologist's screen rows run to the back and columns to the left of the patient.
    affine = np.array(
        [[0, -spacing[1] * step, 0, 0], [-spacing[0] * step, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float
    )
    return Preview(hu, label[::step, ::step, None], tuple(content.masks), Grid(hu.shape, affine))
