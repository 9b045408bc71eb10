"""Check one case: read every file of it once and run all checks on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.cases import Case
from medseg.data.checks import geometry, intensities
from medseg.data.checks.structures import (
    Box,
    Overlaps,
    Structure,
    air_below,
    check_overlaps,
    check_ribs,
    check_sides,
    check_structures,
    check_vertebrae,
    measure,
    nonzero_box,
)
from medseg.data.masks import binary_mask, label_values
from medseg.data.scan_rules import as_finding
from medseg.data.volumes import Stored, read_stored
from medseg.errors import DataError, LabelError, MedsegError
from medseg.findings import Finding, error, names_of, note, warning, worst
from medseg.grid import Grid
from medseg.labels import LabelMap

PREVIEW_SIZE = 256  # no side of a preview is longer


@dataclass(frozen=True)
class CaseJob:
    """Hold one case to check, with the findings on its names.

    Args:
        id: the name in findings.
        case: its files.
        findings: what names alone told.
        loose: whether the file belongs to no data set, so that it may be no CT.
    """

    id: str
    case: Case
    findings: tuple[Finding, ...] = ()
    loose: bool = False


@dataclass(frozen=True)
class CaseSummary:
    """Summarize the content of one case.

    Args:
        id: its name.
        shape: voxels along each array axis.
        spacing: mm along each array axis.
        axes: their directions, such as `RAS`.
        hu: `min`, `p0_5`, `p50`, `p99_5` and `max` of the image; None if nothing is finite.
        voxels: of each structure that is not empty.
        ml: the same as volumes.
    """

    id: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axes: str
    hu: Mapping[str, float | None]
    voxels: Mapping[str, int] = field(default_factory=dict)
    ml: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Preview:
    """Hold one slice across the body, to look at.

    Args:
        hu: values `(I, J, K)`, one voxel thick.
        label: indices of `names`, of the same shape; 0 is background.
        names: the visible structures, the first of them index 1.
        grid: of both.
    """

    hu: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    grid: Grid


@dataclass(frozen=True, eq=False)
class CaseReport:
    """Hold the results for one case.

    Args:
        id: its name.
        findings: what is wrong or worth knowing.
        summary: None if the image could not be read.
        overlaps: voxels that each pair of structures shares.
        absent: structures that are annotated and not in it.
        smoothed: of a 2D slice, by class: the pixels of no class's color that went to it.
        complete_ml: ml of the structures that do not touch the border.
        digest: equal for equal images; empty if it could not be read.
        preview: a slice, if one was requested.
    """

    id: str
    findings: tuple[Finding, ...]
    summary: CaseSummary | None = None
    overlaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    smoothed: Mapping[str, int] = field(default_factory=dict)
    complete_ml: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""
    preview: Preview | None = None


def check_case(job: CaseJob, labels: LabelMap | None = None, preview: bool = False) -> CaseReport:
    """Read a case, each file once and never more than one mask at a time.

    Args:
        job: its files.
        labels: the meaning of indices in label maps, if the set has those.
        preview: whether to return a slice of it.
    """
    findings = list(job.findings)
    image, histogram = _read_image(job, findings)
    grid = image.grid if image is not None else None
    is_hu = image is not None and histogram is not None and intensities.is_hu(findings)
    measured = _MeasuredStructures(grid, image if is_hu else None)
    for name, mask, box in _read_structures(job.case, grid, labels, findings, measured):
        measured.add(name, mask, box)
    structures, absent, overlaps = measured.structures, measured.absent, measured.overlaps
    findings += check_structures(structures)
    findings += check_overlaps(overlaps.pairs if overlaps else {}, structures)
    if not any(finding.code == "no-geometry" for finding in findings):  # else left and up are unknown
        for check in (check_sides, check_vertebrae, check_ribs):
            findings += check(structures)
    if absent and job.case.masks:
        message = f"{len(absent)} masks are empty, which says that these structures are absent"
        findings.append(note("empty-mask", names_of(absent), message))
    if absent and not structures:
        message = "no structure has a single voxel"
        findings.append(warning("nothing-labeled", "masks", message, "Check how it was exported."))
    summary = None
    if image is not None and grid is not None and histogram is not None:
        summary = CaseSummary(
            id=job.id,
            shape=grid.shape,
            spacing=grid.spacing,
            axes=grid.axes,
            hu=intensities.summary(histogram),
            voxels={name: structure.voxels for name, structure in structures.items()},
            ml={name: structure.ml for name, structure in structures.items()},
        )
    stamped = tuple(finding.of(job.id) for finding in findings)
    varied = image is not None and histogram is not None and len(histogram.values) > 1
    shown_slice = None
    if preview and image is not None and grid is not None:
        shown_slice = _preview(image, grid, measured, stamped)
    return CaseReport(
        id=job.id,
        findings=stamped,
        summary=summary,
        overlaps=dict(overlaps.pairs) if overlaps else {},
        absent=tuple(absent),
        complete_ml={name: structure.ml for name, structure in structures.items() if not structure.borders},
        digest=_digest(image) if image is not None and varied else "",
        preview=shown_slice,
    )


def _add(findings: list[Finding], finding: Finding) -> None:
    """Add a finding, unless the names told the same about that file already."""
    if not any((old.code, old.location) == (finding.code, finding.location) for old in findings):
        findings.append(finding)


def _read_image(job: CaseJob, findings: list[Finding]) -> tuple[Stored | None, intensities.Histogram | None]:
    """Return the image and its values, as far as they can be read."""
    if any(finding.code == "image-missing" for finding in findings):
        return None, None
    try:
        image = read_stored(job.case.image)
    except DataError as fault:
        _add(findings, as_finding(fault))
        return None, None
    findings += image.problems
    histogram = intensities.histogram(image.raw, image.slope, image.intercept)
    for finding in intensities.check_intensities(histogram, image.path):
        findings.append(finding.as_note() if job.loose else finding)
    return image, histogram


class _MeasuredStructures:
    """Measure the structures of a case one after the other.

    Args:
        grid: of the image; None if it could not be read.
        hu: the image, if its values are HU.
    """

    def __init__(self, grid: Grid | None, hu: Stored | None) -> None:
        self.grid = grid
        self.hu = hu
        self.structures: dict[str, Structure] = {}
        self.absent: list[str] = []
        self.overlaps = Overlaps(grid.shape) if grid is not None else None

    def add(self, name: str, mask: npt.NDArray[np.bool_], box: Box) -> None:
        """Measure one more structure."""
        if self.grid is None or self.overlaps is None:
            return
        part, air = None, 0.0
        if self.hu is not None and self.hu.slope > 0:
            # Stored values are compared with the threshold in their own units, which saves scaling the image.
            part = self.hu.raw[box]
            air = (air_below(name) - self.hu.intercept) / self.hu.slope
        self.structures[name] = measure(mask, box, self.grid, part, air, name.startswith("rib_"))
        self.overlaps.add(name, mask, box)


def _read_structures(
    case: Case, grid: Grid | None, labels: LabelMap | None, findings: list[Finding], measured: _MeasuredStructures
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Box]]:
    """Yield each structure that is not empty and lies on the image's grid, as a mask within a box."""
    for name in sorted(case.masks):
        mask = _on_grid(case.masks[name], grid, "mask", findings)
        if mask is None:
            continue
        values = mask.scaled(mask.raw)
        box = nonzero_box(values)
        if box is None:
            measured.absent.append(name)
            continue
        try:
            part = binary_mask(mask.path, values[box], case.binarize)
        except DataError as fault:
            findings.append(_refused("mask-values", fault))
        else:
            yield from _in_its_box(name, part, box, measured)
    if case.label is not None and not case.masks:
        label = _on_grid(case.label, grid, "label", findings)
        if label is not None:
            yield from _split_label_map(label, labels, case.binarize, findings, measured)


def _refused(code: str, fault: MedsegError) -> Finding:
    came = f" ({fault.came})" if fault.came else ""
    return error(code, fault.thing, f"{fault.problem}{came}", fault.fix)


def _in_its_box(
    name: str, mask: npt.NDArray[np.bool_], box: Box, measured: _MeasuredStructures
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Box]]:
    """Yield a mask in the smallest box around it, which binarizing may have made smaller; or note its absence."""
    inner = nonzero_box(mask)
    if inner is None:
        measured.absent.append(name)
    else:
        moved = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
        yield name, mask[inner], moved


def _on_grid(path: Path, grid: Grid | None, kind: str, findings: list[Finding]) -> Stored | None:
    """Return a mask or a label map that could be read and lies on the image's grid; else add a finding."""
    try:
        volume = read_stored(path)
    except DataError as fault:
        _add(findings, as_finding(fault))
        return None
    # What a mask has in common with its image is said once, of the image.
    of_image = {problem.code for problem in findings}
    new = [problem for problem in volume.problems if problem.code not in of_image and problem.severity != "note"]
    difference = geometry.compare_grids(volume.grid, grid, path, kind) if grid is not None else None
    new += [difference] if difference else []
    findings += new
    return None if worst(new) == "error" else volume


def _split_label_map(
    volume: Stored,
    labels: LabelMap | None,
    binarize: float | None,
    findings: list[Finding],
    measured: _MeasuredStructures,
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Box]]:
    values = volume.scaled(volume.raw)
    try:
        try:
            label = label_values(values, labels, volume.path, binarize)
        except LabelError as fault:
            findings.append(_refused("label-values", fault))
            label = label_values(values, None, volume.path)  # what has no name is measured nevertheless
    except MedsegError as fault:
        if isinstance(fault, DataError):
            findings.append(_refused("mask-values", fault))
        return
    boxes = ndimage.find_objects(label.astype(np.int32))
    for index, box in enumerate(boxes, 1):
        name = labels.name(index) if labels is not None and index < len(labels) else f"label_{index}"
        if box is not None:
            yield name, label[box] == index, box
    if labels is not None:
        measured.absent += [name for name in labels if name not in measured.structures]


def _digest(image: Stored) -> str:
    """Return a hash that is equal for images of the same shape and HU, however they are stored and compressed."""
    if (image.slope, image.intercept) == (1.0, 0.0) and image.raw.dtype == np.int16:
        values = image.raw
    else:
        with np.errstate(invalid="ignore"):
            values = np.clip(np.rint(image.scaled(image.raw)), -32768, 32767).astype(np.int16)
    digest = hashlib.sha256(repr(image.raw.shape).encode())
    digest.update(np.ascontiguousarray(values.T).data)
    return digest.hexdigest()[:16]


def _preview(image: Stored, grid: Grid, measured: _MeasuredStructures, findings: tuple[Finding, ...]) -> Preview:
    """Return the slice across the body with most of the structures that a finding names, or else of any."""
    axis = next(i for i, letter in enumerate(grid.axes) if letter in "IS")
    others = tuple(index for index in range(3) if index != axis)
    codes = measured.overlaps.codes if measured.overlaps is not None else np.zeros(grid.shape, dtype=np.uint16)
    combinations = measured.overlaps.combinations if measured.overlaps is not None else [()]
    named = {name for finding in findings if finding.severity != "note" for name in finding.location.split(", ")}
    relevant = np.array([bool(named & set(members)) for members in combinations])
    if not relevant.any():
        relevant = np.array([bool(members) for members in combinations])
    counts = np.count_nonzero(relevant[codes], axis=others)
    position = int(counts.argmax()) if counts.any() else grid.shape[axis] // 2
    step = max(1, -(-max(grid.shape[index] for index in others) // PREVIEW_SIZE))
    cut = tuple(slice(position, position + 1) if i == axis else slice(None, None, step) for i in range(3))
    part = codes[cut]
    names = sorted({combinations[code][-1] for code in np.unique(part) if combinations[code]})
    numbers = [names.index(members[-1]) + 1 if members and members[-1] in names else 0 for members in combinations]
    affine = grid.affine @ np.diag([1 if i == axis else step for i in range(3)] + [1])
    hu = np.nan_to_num(image.scaled(image.raw[cut]).astype(np.float32))
    label = np.array(numbers, dtype=np.uint8)[part]
    return Preview(hu, label, tuple(names), Grid(hu.shape, affine))
