"""What lies in a folder, without refusing anything: each case with its files, and what is wrong with their names.

`medseg.data.discover` refuses what cannot be a data set; a doctor has to look at that, too.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.cases import SPLITS, Split
from medseg.data import folders, nnunet, slices, totalsegmentator
from medseg.data.layouts import DATALIST, discover
from medseg.data.nifti import stem
from medseg.data.nnunet import DESCRIPTION
from medseg.errors import DataError, LabelError, MedsegError, did_you_mean
from medseg.findings import Finding, error, note, warning
from medseg.image_io_2d import ClassColors, SliceInfo
from medseg.labels import BACKGROUND, LabelMap, groups, only_v1

_SIDES = {"training": "train", "validation": "val", "test": "test"}
_PATIENT = ("patient", "patient_id", "subject", "subject_id")
_VOLUMES = (".nii", ".nii.gz", ".hdr")


@dataclass(frozen=True)
class Plan:
    """One case to look at.

    Args:
        id: its name.
        image: its image, whether or not that is there; None where it has none.
        masks: its binary masks by structure.
        label: its label map, where it has that instead.
        annotated: structures that were looked for; None where that is not known.
        loose: a file that belongs to no data set, so that nobody says it is a CT.
        findings: what its names alone tell.
        slice: where the image is a picture: what its name tells.
        palette: where it is a picture: what its mask means.
    """

    id: str
    image: Path | None
    masks: Mapping[str, Path] = field(default_factory=dict)
    label: Path | None = None
    annotated: tuple[str, ...] | None = None
    loose: bool = False
    findings: tuple[Finding, ...] = ()
    slice: SliceInfo | None = None
    palette: ClassColors | None = None


@dataclass(frozen=True)
class Survey:
    """What a folder holds: cases, the names of their structures, sides, and what was found on the way.

    Where patients are `guessed`, only names tell them.
    """

    kind: str
    cases: tuple[Plan, ...]
    structures: tuple[str, ...] = ()
    labels: LabelMap | None = None
    split: Split = field(default_factory=Split)
    patients: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    guessed: bool = False


def survey(root: Path, patient: str | None = None) -> Survey:
    """List what lies under `root`; only names and tables are read, no image.

    Args:
        root: the folder, or one file.
        patient: of slices: a pattern that finds the patient in a picture's name.

    Raises:
        DataError: there is nothing of that name.
    """
    if not root.exists():
        raise DataError(root, "must be a folder with a data set", "no such folder")
    if root.is_file() and root.suffix != ".json":
        return _loose(root.parent, [root], ())
    listed = root if root.is_file() else next((root / n for n in (DATALIST, DESCRIPTION) if (root / n).is_file()), None)
    content = _json(listed) if listed else None
    if listed and not nnunet.is_description(content):
        return _datalist(listed, content)
    if root.is_dir() and not listed and any(totalsegmentator.is_case(folder) for folder in root.iterdir()):
        return _totalsegmentator(root)
    sliced = root.is_dir() and not listed and slices.is_dataset(root)
    try:
        if sliced:
            return _slices(root, patient)
        dataset = discover(root)
    except MedsegError as fault:
        report = error if listed or sliced or folders.is_dataset(root) else warning
        doubt = report("layout", root.name, f"no data set: {fault}", "Every image in it is looked at by itself.")
        root = root if root.is_dir() else root.parent
        return _loose(root, sorted(path for path in root.rglob("*") if path.is_file()), (doubt,))
    plans = tuple(Plan(case.id, case.image, case.masks, case.label, case.annotated) for case in dataset.cases)
    return Survey("a data set", plans, dataset.structures, dataset.labels, dataset.split)


def _slices(root: Path, patient: str | None) -> Survey:
    found = slices.collect(root, patient)
    plans = [
        Plan(case.id, case.image, case.masks, case.label, case.annotated, slice=case.slice, palette=found.palette)
        for case in sorted(found.cases, key=lambda case: case.id)
    ]
    patients = {case.id: case.slice.patient for case in found.cases if case.slice is not None}
    if patient is None and len(set(patients.values())) == 1:
        patients = {}  # names that all begin alike tell no patients
    return Survey(
        found.kind,
        _distinct(plans),
        found.structures,
        LabelMap(found.structures),
        found.split,
        patients,
        tuple(found.findings),
        patient is None,
    )


def _totalsegmentator(root: Path) -> Survey:
    known = (*groups()["all"], *only_v1())
    plans: list[Plan] = []
    found: list[Finding] = []
    names: set[str] = set()
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not totalsegmentator.is_case(folder):
            found.append(
                warning(
                    "case-empty",
                    folder.name,
                    f"neither {totalsegmentator.IMAGE} nor {totalsegmentator.MASKS} in it",
                    "Fetch the case, or remove the folder.",
                )
            )
            continue
        plan = _folder(folder, known)
        names.update(plan.masks)
        plans.append(plan)
    split, patients, table = _table(root / totalsegmentator.META, {plan.id for plan in plans})
    structures = totalsegmentator.in_order(names)
    return Survey("the TotalSegmentator layout", _distinct(plans), structures, None, split, patients, (*found, *table))


def _folder(folder: Path, known: tuple[str, ...]) -> Plan:
    image, masks, found = folder / totalsegmentator.IMAGE, {}, []
    if not (image.exists() or image.is_symlink()):
        found.append(error("image-missing", image, "the case has no CT", "Fetch it, or remove the folder."))
    for path in sorted((folder / totalsegmentator.MASKS).glob("*")):
        name = stem(path)
        if path.name.startswith("."):
            continue
        if not path.name.endswith(".nii.gz"):
            found.append(
                warning("mask-ignored", path, "masks are named <structure>.nii.gz, so it is not read", "Rename it.")
            )
        elif name in known:
            masks[name] = path
        else:
            found.append(
                error(
                    "unknown-name",
                    path,
                    f"'{name}' is no structure of TotalSegmentator",
                    did_you_mean(name, known, "Rename it, or move it elsewhere."),
                )
            )
    if not masks:
        found.append(error("masks-missing", folder / totalsegmentator.MASKS, "the case has no mask", "Fetch them."))
    return Plan(
        folder.name,
        image if image.exists() or image.is_symlink() else None,
        masks,
        annotated=tuple(sorted(masks)),
        findings=tuple(finding.of(folder.name) for finding in found),
    )


def _distinct(plans: list[Plan]) -> tuple[Plan, ...]:
    """The plans, with an error on each whose id another one has, upper and lower case not told apart."""
    seen: dict[str, str] = {}
    out: list[Plan] = []
    for plan in plans:
        first = seen.setdefault(plan.id.lower(), plan.id)
        twice = error(
            "same-id",
            plan.id,
            f"another case is called '{first}'; some file systems take both for one",
            "Rename it.",
        )
        again = any(other.id == plan.id for other in out) or first != plan.id
        out.append(plan if not again else _with(plan, twice))
    return tuple(out)


def _with(plan: Plan, finding: Finding) -> Plan:
    fields = {**plan.__dict__, "findings": (*plan.findings, finding.of(plan.id))}
    return Plan(**fields)


def _table(path: Path, ids: set[str]) -> tuple[Split, dict[str, str], list[Finding]]:
    """The split and the patients that `meta.csv` gives."""
    if not path.is_file():
        return Split(), {}, []
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        return Split(), {}, [error("meta", path.name, f"it cannot be read: {fault}", "Write it as UTF-8 text.")]
    if not rows or "image_id" not in rows[0]:
        return Split(), {}, [error("meta", path.name, "it needs the columns image_id and split, separated by ';'")]
    found: list[Finding] = []
    sides: dict[str, list[str]] = {side: [] for side in SPLITS}
    patients: dict[str, str] = {}
    column = next((name for name in _PATIENT if name in rows[0]), None)
    missing = []
    for row in rows:
        id, side = (row["image_id"] or "").strip(), (row.get("split") or "").strip()
        if id not in ids:
            missing.append(id)
            continue
        if column and (row[column] or "").strip():
            patients[id] = row[column].strip()
        if side in SPLITS:
            sides[side].append(id)
        elif side:
            found.append(
                error("meta", path.name, f"'{side}' is no split", f"Write {', '.join(SPLITS)}, or nothing.").of(id)
            )
    split = Split(*(tuple(sides[side]) for side in SPLITS))
    if missing:
        found.append(note("meta-absent", path.name, f"{len(missing)} of its cases are not there: {missing[0]} first"))
    left = sorted(ids - {id for side in SPLITS for id in sides[side]})
    if split and left:
        found.append(note("meta-no-side", path.name, f"{len(left)} cases stand on no side of it: {left[0]} first"))
    return split, patients, found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        return error("datalist", path.name, f"it cannot be read: {fault}", "Write it again.")


def _datalist(path: Path, content: Any) -> Survey:
    if not isinstance(content, dict):
        fault = content if isinstance(content, Finding) else error("datalist", path.name, "it is no table of cases")
        return Survey("a datalist", (), findings=(fault,))
    found: list[Finding] = []
    labels = None
    try:
        numbered = {str(int(index)): name for index, name in content["labels"].items()}
        labels = LabelMap.from_dict({**numbered, "0": BACKGROUND}, source=path.name)
    except (KeyError, ValueError, AttributeError, TypeError):
        found.append(
            error("datalist", path.name, "its 'labels' do not give each number a name", "Prepare the set again.")
        )
    except LabelError as fault:
        found.append(error("datalist", path.name, str(fault), "Prepare the set again."))
    plans: dict[str, Plan] = {}
    sides: dict[str, list[str]] = {side: [] for side in SPLITS}
    patients: dict[str, str] = {}
    for key, side in _SIDES.items():
        for entry in content.get(key) or []:
            plan = _entry(entry, path, labels)
            if isinstance(plan, Finding):
                found.append(plan)
                continue
            if plan.id in plans and plans[plan.id] != plan:
                found.append(error("same-id", path.name, "two entries have this id", "Rename one.").of(plan.id))
            plans.setdefault(plan.id, plan)
            sides[side].append(plan.id)
            if isinstance(entry, dict) and entry.get("patient"):
                patients[plan.id] = str(entry["patient"])
    test = tuple(sides["test"])
    split = Split(tuple(sides["train"]), tuple(sides["val"]), test) if "validation" in content else Split(test=test)
    cases = _distinct([plans[id] for id in sorted(plans)])
    structures = labels.structures if labels else ()
    return Survey("a datalist", cases, structures, labels, split, patients, tuple(found))


def _entry(entry: Any, path: Path, labels: LabelMap | None) -> Plan | Finding:
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        return error("datalist", path.name, f"an entry without an image: {str(entry)[:60]}", "Name its image.")
    image = path.parent / entry["image"]
    label = path.parent / entry["label"] if entry.get("label") else None
    annotated = labels.structures if labels and label else None
    if isinstance(entry.get("annotated"), list):
        annotated = tuple(str(name) for name in entry["annotated"])
    id = str(entry.get("case", image.name.removesuffix(".gz").removesuffix(".nii")))
    return Plan(id, image, label=label, annotated=annotated)


def _loose(root: Path, files: list[Path], findings: tuple[Finding, ...]) -> Survey:
    """Files that belong to no data set, each volume by itself; others are counted by folder and kind."""
    plans, others = [], Counter[tuple[str, str]]()
    for path in files:
        name = path.name.lower()
        if name.endswith(_VOLUMES):
            plans.append(Plan(path.relative_to(root).as_posix(), path, loose=True))
        elif not (name.endswith(".img") and path.with_suffix(".hdr").is_file()):
            others[path.parent.relative_to(root).as_posix(), _kind(path)] += 1
    rest = [
        note("not-read", folder, f"{count} {kind} {'file' if count == 1 else 'files'}, which check does not read")
        for (folder, kind), count in sorted(others.items())
    ]
    return Survey("loose files", tuple(plans), findings=(*findings, *rest))


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(132)
    if not start:
        return "empty"
    return "DICOM" if start[128:] == b"DICM" or path.suffix.lower() == ".dcm" else path.suffix.lower() or "nameless"
