"""Read Kaggle's UW-Madison layout: train/caseN/caseN_dayD/scans/slice_SSSS_*.png, and run lengths in train.csv.

UW-Madison GI Tract Image Segmentation: 16-bit MR slices; stomach, small bowel and large bowel may overlap.
Run lengths are `start length start length ...`, along the rows; the upper left pixel is 1.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.cases import Case, Split
from medseg.data.class_colors import read_class_colors
from medseg.data.layouts.listed_cases import Listing
from medseg.data.layouts.slices import compile_patient, patient_of
from medseg.errors import DataError, MedsegError, did_you_mean
from medseg.file_names import entries, list_files, spelled_as
from medseg.findings import Finding, error, warning
from medseg.image_io_2d import SUFFIXES, ClassColors, SliceInfo, is_image_2d, read_size
from medseg.labels import BACKGROUND, LabelMap

TABLE, TRAIN, TEST, SCANS = "train.csv", "train", "test", "scans"
COLUMNS = ("id", "class", "segmentation")
SUBMISSION_COLUMNS = ("id", "class", "predicted")
STRUCTURES = ("large_bowel", "small_bowel", "stomach")
_NAME = re.compile(r"slice_(\d+)(?:_(\d+)_(\d+)_(\d+\.?\d*)_(\d+\.?\d*))?")
Runs = dict[str, dict[str, str]]  # by slice and class


def collect(root: Path, patient: str | None = None) -> Listing | None:
    """List the slices of a folder in Kaggle's layout; None if it has no table, or no scans below `train`.

    Args:
        root: the folder.
        patient: a pattern that finds the patient in a slice's id, see `slices.collect`.

    Raises:
        ConfigError: the pattern is no regular expression.
        DataError, LabelError: classes whose names cannot be read.
    """
    if not (root / TABLE).is_file() or not any(True for _ in (root / TRAIN).glob(f"*/*/{SCANS}")):
        return None
    pattern = compile_patient(patient)
    colors = read_class_colors(root)
    listing = Listing("slices in Kaggle's layout", root)
    table, first_ids = _read_table(root / TABLE, listing.findings)
    if colors:
        structures = colors.structures
    elif set(STRUCTURES) & set(first_ids):
        structures = STRUCTURES
    else:
        structures = tuple(first_ids)
    for name, id in first_ids.items():
        if name not in structures:
            fix = did_you_mean(name, structures, f"The classes are {', '.join(structures)}.")
            message = f"'{name}' (row of {id}) is not one of the set's classes"
            listing.findings.append(error("unknown-class", root / TABLE, message, fix))
    ids = set()
    slices = list(_list_slices(root / TRAIN, listing.findings))
    table = spelled_as(table, [id for id, _, _ in slices])
    for id, path, info in slices:
        ids.add(id)
        if id not in table:
            message = f"{TABLE} has no row of {id}"
            listing.findings.append(error("image-alone", path, message, "Add it, or move the file elsewhere."))
            continue
        runs = {name: text for name, text in table[id].items() if name in structures}
        annotated = tuple(name for name in structures if name in runs)
        info, owner = replace(info, runs=runs), patient_of(id, pattern)
        listing.cases.append(Case(id, path, root / TABLE, annotated=annotated, slice=info, patient=owner))
    absent = sorted(set(table) - ids)
    if absent:
        message = f"{len(absent)} of its slices have no image and are left out, {', '.join(absent[:4])} first"
        listing.findings.append(warning("mask-alone", root / TABLE, message, "Fetch them, if the whole set is meant."))
    test = []
    if (root / TEST).is_dir():
        for id, path, info in _list_slices(root / TEST, listing.findings):
            test.append(Case(id, path, slice=info, patient=patient_of(id, pattern)))
    listing.cases += test
    listing.split = Split(test=tuple(case.id for case in test))
    listing.structures = structures
    listing.labels = LabelMap(structures) if structures else None
    listing.class_colors = colors or ClassColors.indexed((BACKGROUND, *structures))
    return listing


def _read_table(path: Path, findings: list[Finding]) -> tuple[Runs, dict[str, str]]:
    """Return the runs, and each class with the first id that has it."""
    table: Runs = {}
    first_ids: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            if not set(COLUMNS) <= set(header):
                columns = ",".join(header)[:60] or "nothing"
                message = f"the table needs the columns {', '.join(COLUMNS)} and has {columns}"
                findings.append(error("table", path, message, "Download it again."))
                return {}, {}
            positions = [header.index(name) for name in COLUMNS]
            for line, row in enumerate(rows, 2):
                if not row:
                    continue
                if len(row) < len(header):
                    findings.append(error("table", path, f"line {line} is truncated", "Download it again."))
                    continue
                id, name, runs = (row[position].strip() for position in positions)
                runs_of_slice = table.setdefault(id, {})
                if name in runs_of_slice:
                    message = f"line {line} is a second row of {id}, {name}"
                    findings.append(error("same-id", path, message, "Keep one of them."))
                runs_of_slice.setdefault(name, "" if runs.lower() == "nan" else runs)
                first_ids.setdefault(name, id)
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        findings.append(error("table", path, f"the table cannot be read: {fault}", "Download it again."))
    return table, first_ids


def slice_at(path: Path) -> tuple[str, SliceInfo] | None:
    """Return a slice's id and what its name and folders tell; None if it is not named like a slice."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    scan = path.parent.parent.name
    return f"{scan}_slice_{match[1]}", SliceInfo(scan, int(match[1]), _spacing(path, match))


def size_in_name(path: Path) -> tuple[int, int] | None:
    """Return the two sizes that a slice's name tells; None if it tells none."""
    match = _NAME.fullmatch(path.stem)
    return (int(match[2]), int(match[3])) if match and match[2] else None


def _list_slices(folder: Path, findings: list[Finding]) -> Iterator[tuple[str, Path, SliceInfo]]:
    """Yield every slice below `train` or `test`: id, file, and what its name tells."""
    for scan in [day / SCANS for case in entries(folder) for day in entries(case)]:
        findings += [finding for finding in list_files(scan, SUFFIXES)[1] if finding.severity == "warning"]
        for path in filter(is_image_2d, entries(scan)):
            named = slice_at(path)
            if named is None:
                message = "the image must be named slice_SSSS_, rows, columns and spacing"
                findings.append(error("slice-name", path, message, "Rename it, or move it elsewhere."))
            else:
                yield named[0], path, named[1]


def _spacing(path: Path, match: re.Match[str]) -> tuple[float, float] | None:
    """Return row and column spacing, mm; None if the name does not tell it.

    Only if the two differ, the file has to tell which of its axes is meant.
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
        return first, second  # an image that cannot be read is reported when its pixels are
    return (second, first) if named[0] != named[1] and named == size[::-1] else (first, second)


def decode_runs(runs: str, shape: tuple[int, int], location: object = "runs") -> npt.NDArray[np.bool_]:
    """Return a mask `(rows, columns)` from its run lengths; an empty text is an empty mask.

    Args:
        runs: pairs of the first pixel of a run (1 is the upper left one, along the rows) and its length.
        shape: rows and columns of the image.
        location: the name in messages.

    Raises:
        DataError: no pairs of positive integers, a run that ends beyond the image, or runs that overlap.

    Example:
        >>> decode_runs("2 2 6 1", (2, 3)).astype(int).tolist()
        [[0, 1, 1], [0, 0, 1]]
    """
    try:
        numbers = np.array(runs.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(location, "runs must be integers: start length ...", f"got {runs[:40]!r}") from error
    if len(numbers) % 2:
        raise DataError(location, "runs must be pairs: start length ...", f"got {len(numbers)} numbers")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    size = shape[0] * shape[1]
    if len(numbers) and (starts.min() < 0 or lengths.min() < 1):
        problem = "a run must begin at pixel 1 or later and have a length of at least 1"
        raise DataError(location, problem, f"got {runs[:40]!r}")
    if len(numbers) and int((starts + lengths).max()) > size:
        last = int((starts + lengths).argmax())
        run, end = f"{starts[last] + 1} {lengths[last]}", starts[last] + lengths[last]
        problem = f"the run '{run}' ends at pixel {end}, beyond the image of {shape[0]} x {shape[1]} = {size} pixels"
        raise DataError(location, problem, "", "Check that image and table belong together.")
    edges = np.zeros(size + 1, dtype=np.int32)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + lengths, -1)
    counts = np.cumsum(edges[:-1])
    if counts.max(initial=0) > 1:
        pixel = int(counts.argmax()) + 1
        raise DataError(location, f"two runs overlap at pixel {pixel}", "", "Download the table again.")
    return (counts > 0).reshape(shape)


def in_order(structures: Sequence[str]) -> tuple[str, ...]:
    """Return structures in the order of the competition's tables; others in theirs."""
    return STRUCTURES if set(structures) == set(STRUCTURES) else tuple(structures)


def encode_runs(mask: npt.NDArray[np.bool_]) -> str:
    """Return the run lengths of a mask `(rows, columns)`; `decode_runs` returns the mask.

    Example:
        >>> encode_runs(np.array([[0, 1, 1], [0, 0, 1]], dtype=bool))
        '2 2 6 1'
    """
    flat = np.concatenate([[0], mask.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{start} {stop - start}" for start, stop in zip(edges[::2], edges[1::2], strict=True))
