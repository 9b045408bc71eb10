"""One case: every file of it read once, and what all checks say of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.data.checks import files, geometry, intensities, overlaps, relations
from medseg.data.checks import labels as rules
from medseg.data.checks.files import Volume
from medseg.data.checks.labels import Box, Structure
from medseg.data.checks.overlaps import Overlaps
from medseg.data.checks.survey import Plan
from medseg.findings import Finding, error, note, warning
from medseg.grid import Grid
from medseg.labels import LabelMap

PICTURE = 256  # no side of a picture's slice is longer


@dataclass(frozen=True)
class CaseSummary:
    """What one case holds.

    Args:
        id: its name.
        shape: voxels along each array axis.
        spacing: mm along each array axis.
        axes: where they run, such as `RAS`.
        hu: `min`, `p0_5`, `p50`, `p99_5` and `max` of the image; None where nothing is finite.
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
class CaseSlice:
    """One slice across the body, to look at.

    Args:
        hu: values `(I, J, K)`, one voxel thick.
        label: indices of `names`, of the same shape; 0 is nothing.
        names: the structures that are seen, the first of them index 1.
        grid: where it lies.
    """

    hu: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    grid: Grid


@dataclass(frozen=True, eq=False)
class Reading:
    """All that one case gave.

    Args:
        id: its name.
        findings: what is wrong or worth knowing.
        summary: None where the image could not be read.
        overlaps: voxels that each pair of structures shares.
        absent: structures that were looked for and are not in it.
        whole: ml of the structures that do not touch the border.
        digest: equal for equal images; empty where it could not be read.
        picture: a slice, where one was asked for.
    """

    id: str
    findings: tuple[Finding, ...]
    summary: CaseSummary | None = None
    overlaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    whole: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""
    picture: CaseSlice | None = None


def read_case(plan: Plan, names: LabelMap | None = None, picture: bool = False) -> Reading:
    """Read a case, each file once and never more than one mask at a time.

    Args:
        plan: its files.
        names: what the indices of label maps mean, where the set has those.
        picture: whether a slice of it is wanted.
    """
    found = list(plan.findings)
    image, grid, seen = _image(plan, found)
    hu = image if image is not None and grid is not None and seen and intensities.is_hu(found) else None
    state = _Labels(grid, hu)
    for name, mask, box in _structures(plan, grid, names, found, state):
        state.add(name, mask, box)
    found += rules.examine(state.structures)
    found += overlaps.examine(state.overlaps.pairs if state.overlaps else {}, state.structures)
    if not any(finding.code == "no-geometry" for finding in found):  # else there is no left and no up
        for check in (relations.sides, relations.vertebrae, relations.ribs):
            found += check(state.structures)
    if state.absent and plan.masks:
        printable = rules.names_of(state.absent)
        found.append(
            note(
                "empty-mask",
                printable,
                f"{len(state.absent)} masks are empty, which says: looked for, not there",
            )
        )
    if (plan.masks or plan.label) and not state.structures and (state.absent or plan.label):
        found.append(warning("nothing-labelled", "masks", "no structure has a single voxel", "See what was exported."))
    summary = None
    if image is not None and grid is not None and seen is not None:
        structures = state.structures
        summary = CaseSummary(
            id=plan.id,
            shape=grid.shape,
            spacing=grid.spacing,
            axes=grid.axes,
            hu=intensities.summary(seen),
            voxels={name: one.voxels for name, one in structures.items()},
            ml={name: one.ml for name, one in structures.items()},
        )
    stamped = tuple(finding.of(plan.id) for finding in found)
    return Reading(
        id=plan.id,
        findings=stamped,
        summary=summary,
        overlaps=dict(state.overlaps.pairs) if state.overlaps else {},
        absent=tuple(state.absent),
        whole={name: one.ml for name, one in state.structures.items() if not one.borders},
        digest=_digest(image) if image is not None and seen is not None and len(seen.values) > 1 else "",
        picture=_slice(image, grid, state, stamped) if picture and image is not None and grid is not None else None,
    )


def _image(plan: Plan, found: list[Finding]) -> tuple[Volume | None, Grid | None, intensities.Histogram | None]:
    """The image, its grid and its values, as far as they can be had."""
    if plan.image is None:
        return None, None, None
    image = files.read(plan.image)
    if isinstance(image, Finding):
        found.append(image)
        return None, None, None
    odd = geometry.kind_of_voxels(image)
    if odd:
        found.append(odd)
        return None, None, None
    grid = geometry.grid_of(image)
    if isinstance(grid, Finding):
        found.append(grid)
        return None, None, None
    found += geometry.examine(image, grid)
    seen = intensities.histogram(image.raw, image.slope, image.intercept)
    values = intensities.examine(seen, image.path)
    found += [finding.as_note() if plan.loose and finding.code != "nan" else finding for finding in values]
    return image, grid, seen


class _Labels:
    """The structures of a case as they come in, one after the other."""

    def __init__(self, grid: Grid | None, hu: Volume | None) -> None:
        self.grid, self.hu = grid, hu
        self.structures: dict[str, Structure] = {}
        self.absent: list[str] = []
        self.overlaps = Overlaps(grid.shape) if grid is not None else None

    def add(self, name: str, mask: npt.NDArray[np.bool_], box: Box) -> None:
        """Measure one more."""
        if self.grid is None or self.overlaps is None:
            return
        part, air = None, 0.0
        if self.hu is not None and self.hu.slope > 0:
            part = self.hu.raw[box]
            air = (rules.air_below(name) - self.hu.intercept) / self.hu.slope
        self.structures[name] = rules.measure(mask, box, self.grid, part, air, name.startswith("rib_"))
        self.overlaps.add(name, mask, box)


def _structures(
    plan: Plan, grid: Grid | None, names: LabelMap | None, found: list[Finding], state: _Labels
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Box]]:
    """Each structure that is not empty and lies on the image's grid, as a mask within a box."""
    for name in sorted(plan.masks):
        mask = _on_grid(files.read(plan.masks[name]), grid, "mask", found)
        if mask is None:
            continue
        values = mask.scaled(mask.raw)
        box = rules.nonzero_box(values)
        if box is None:
            state.absent.append(name)
            continue
        wrong = rules.stray_values(values[box], mask.path)
        if wrong:
            found.append(wrong)
        else:
            yield name, values[box] == 1, box
    if plan.label is not None and not plan.masks:
        label = _on_grid(files.read(plan.label), grid, "label", found)
        if label is not None:
            yield from _of_label_map(label, names, found, state)


def _on_grid(read: Volume | Finding, grid: Grid | None, what: str, found: list[Finding]) -> Volume | None:
    """A mask or a label map that can be read and lies where the image lies; else a finding more."""
    if isinstance(read, Finding):
        found.append(read)
        return None
    location = geometry.kind_of_voxels(read) or geometry.grid_of(read)
    wrong = (
        location
        if isinstance(location, Finding)
        else geometry.compare(location, grid, read.path, what)
        if grid
        else None
    )
    if wrong:
        found.append(wrong)
    return None if wrong else read


def _of_label_map(
    volume: Volume, names: LabelMap | None, found: list[Finding], state: _Labels
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Box]]:
    label = volume.scaled(volume.raw)
    if label.dtype.kind not in "iu":
        if not np.isfinite(label).all() or (label != np.rint(label)).any():
            found.append(error("label-values", volume.path, "it holds values that are no whole numbers", "Convert it."))
            return
        label = label.astype(np.int64)
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > 65535 or (names is not None and high >= len(names)):
        most = len(names) - 1 if names is not None else 65535
        found.append(
            error("label-values", volume.path, f"it holds labels from {low} to {high}, its names end at {most}")
        )
    for index, box in enumerate(ndimage.find_objects(np.clip(label, 0, 65535).astype(np.int32)), 1):
        name = names.name(index) if names is not None and index < len(names) else f"label_{index}"
        if box is not None:
            yield name, label[box] == index, box
    if names is not None:
        state.absent += [name for name in names if name not in state.structures]


def _digest(image: Volume) -> str:
    """The same for images of the same shape and HU, however they are stored and compressed."""
    if (image.slope, image.intercept) == (1.0, 0.0) and image.raw.dtype == np.int16:
        values = image.raw
    else:
        with np.errstate(invalid="ignore"):
            values = np.clip(np.rint(image.scaled(image.raw)), -32768, 32767).astype(np.int16)
    digest = hashlib.sha256(repr(image.raw.shape).encode())
    digest.update(np.ascontiguousarray(values.T).data)
    return digest.hexdigest()[:16]


def _slice(image: Volume, grid: Grid, state: _Labels, findings: tuple[Finding, ...]) -> CaseSlice:
    """A slice across the body: the one with most of the structure that a finding names, or else of any."""
    axis = next(i for i, letter in enumerate(grid.axes) if letter in "IS")
    rest = tuple(other for other in range(3) if other != axis)
    codes = state.overlaps.codes if state.overlaps is not None else np.zeros(grid.shape, dtype=np.uint16)
    combinations = state.overlaps.combinations if state.overlaps is not None else [()]
    named = {name for finding in findings if finding.severity != "note" for name in finding.location.split(", ")}
    wanted = np.array([bool(named & set(members)) for members in combinations])
    if not wanted.any():
        wanted = np.array([bool(members) for members in combinations])
    counts = np.count_nonzero(wanted[codes], axis=rest)
    at = int(counts.argmax()) if counts.any() else grid.shape[axis] // 2
    step = max(1, -(-max(grid.shape[other] for other in rest) // PICTURE))
    cut = tuple(slice(at, at + 1) if i == axis else slice(None, None, step) for i in range(3))
    part = codes[cut]
    names = sorted({combinations[code][-1] for code in np.unique(part) if combinations[code]})
    numbers = [names.index(members[-1]) + 1 if members and members[-1] in names else 0 for members in combinations]
    affine = grid.affine @ np.diag([1 if i == axis else step for i in range(3)] + [1])
    hu = np.nan_to_num(image.scaled(image.raw[cut]).astype(np.float32))
    label = np.array(numbers, dtype=np.uint8)[part]
    return CaseSlice(hu, label, tuple(names), Grid(hu.shape, affine))
