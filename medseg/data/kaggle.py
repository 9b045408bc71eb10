"""The layout of Kaggle's UW-Madison set: train/caseN/caseN_dayD/scans/slice_SSSS_*.png, and run lengths in train.csv.

UW-Madison GI Tract Image Segmentation: 16-bit MR slices; stomach, small bowel and large bowel may overlap.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from medseg.cases import Case
from medseg.errors import MedsegError, did_you_mean
from medseg.findings import Finding, error, warning
from medseg.image_io_2d import ClassColors, SliceInfo, is_picture, read_size

TABLE, TRAIN, TEST, SCANS = "train.csv", "train", "test", "scans"
COLUMNS = ("id", "class", "segmentation")
STRUCTURES = ("large_bowel", "small_bowel", "stomach")
_NAME = re.compile(r"slice_(\d+)(?:_(\d+)_(\d+)_(\d+\.?\d*)_(\d+\.?\d*))?")


def is_dataset(root: Path) -> bool:
    """Whether a folder has this layout: the table, and scans below `train`."""
    return (root / TABLE).is_file() and any(True for _ in (root / TRAIN).glob(f"*/*/{SCANS}"))


def collect(
    root: Path, palette: ClassColors | None, owner: Callable[[str], str]
) -> tuple[list[Case], list[Case], tuple[str, ...], list[Finding]]:
    """The slices with runs, those of `test` without, the structures, and what is wrong with names and table.

    Args:
        root: the folder.
        palette: the classes, where the set says them; else those of the challenge, or all that the table names.
        owner: gives the patient for a slice's id.
    """
    table, classes, found = _table(root / TABLE)
    known = palette.names[1:] if palette else tuple(name for name in STRUCTURES if name in classes) or tuple(classes)
    if not palette and set(known) & set(STRUCTURES):
        known = STRUCTURES
    for name, id in classes.items():
        if name not in known:
            fix = did_you_mean(name, known, f"The classes are {', '.join(known)}.")
            found.append(
                error("unknown-class", root / TABLE, f"'{name}' (row of {id}) is none of the set's classes", fix)
            )
    cases, test, seen = [], [], set[str]()
    for id, path, said in _slices(root / TRAIN, owner, found):
        seen.add(id)
        if id not in table:
            found.append(error("image-alone", path, f"{TABLE} has no row of {id}", "Add it, or move the file away."))
            continue
        runs = {name: text for name, text in table[id].items() if name in known}
        said = SliceInfo(said.patient, said.scan, said.number, said.spacing, runs=runs)
        looked_for = tuple(name for name in known if name in runs)
        cases.append(Case(id, path, root / TABLE, annotated=looked_for, slice=said))
    lost = sorted(set(table) - seen)
    if lost:
        message = f"{len(lost)} of its slices have no image and are left out, {', '.join(lost[:4])} first"
        found.append(warning("mask-alone", root / TABLE, message, "Fetch them, if the whole set is meant."))
    if (root / TEST).is_dir():
        test = [Case(id, path, slice=said) for id, path, said in _slices(root / TEST, owner, found)]
    return cases, test, known, found


def _table(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, str], list[Finding]]:
    """The runs by id and class, each class with the first id that has it, and what is wrong."""
    table: dict[str, dict[str, str]] = {}
    classes: dict[str, str] = {}
    found: list[Finding] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            if not set(COLUMNS) <= set(header):
                printable = ",".join(header)[:60] or "nothing"
                return (
                    {},
                    {},
                    [error("table", path, f"it needs the columns {', '.join(COLUMNS)} and has {printable}")],
                )
            at = [header.index(name) for name in COLUMNS]
            for line, row in enumerate(rows, 2):
                if not row:
                    continue
                if len(row) < len(header):
                    found.append(error("table", path, f"line {line} is cut short", "Download it again."))
                    continue
                id, name, runs = (row[i].strip() for i in at)
                held = table.setdefault(id, {})
                if name in held:
                    message = f"line {line} is a second row of {id}, {name}"
                    found.append(error("same-id", path, message, "Keep one of them."))
                held.setdefault(name, "" if runs.lower() == "nan" else runs)
                classes.setdefault(name, id)
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        found.append(error("table", path, f"it cannot be read: {fault}", "Download it again."))
    return table, classes, found


def slice_at(path: Path, owner: Callable[[str], str]) -> tuple[str, SliceInfo] | None:
    """A slice's id and what its name and folders tell; None for a name that is no slice's."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    scan = path.parent.parent.name
    id = f"{scan}_slice_{match[1]}"
    return id, SliceInfo(owner(id), scan, int(match[1]), _spacing(path, match))


def named_size(path: Path) -> tuple[int, int] | None:
    """The two sizes that a slice's name says; None where it says none."""
    match = _NAME.fullmatch(path.stem)
    return (int(match[2]), int(match[3])) if match and match[2] else None


def _slices(folder: Path, owner: Callable[[str], str], found: list[Finding]) -> list[tuple[str, Path, SliceInfo]]:
    """Every slice below `train` or `test`: id, file, and what its name tells."""
    slices = []
    for scan in sorted(folder.glob(f"*/*/{SCANS}")):
        for path in sorted(scan.iterdir()):
            if not is_picture(path):
                continue
            named = slice_at(path, owner)
            if named is None:
                message = "it must be named slice_SSSS_, rows, columns and spacing"
                found.append(error("slice-name", path, message, "Rename it, or move it elsewhere."))
            else:
                slices.append((named[0], path, named[1]))
    return slices


def _spacing(path: Path, match: re.Match[str]) -> tuple[float, float] | None:
    """Row and column spacing, mm; None where the name does not say it.

    Only where the two differ the file has to say which of its sides is meant.
    """
    if match[2] is None:
        return None
    first, second = float(match[4]), float(match[5])
    if min(first, second) <= 0:
        return None
    if first == second:
        return first, second
    try:
        named, size = (int(match[2]), int(match[3])), read_size(path)
    except MedsegError:
        return first, second  # the check of the pixels says what is wrong
    return (second, first) if named[0] != named[1] and named == size[::-1] else (first, second)
