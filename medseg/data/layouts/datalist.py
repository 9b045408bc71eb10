"""Read and write MONAI's datalists: JSON with the keys of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.atomic import relative_path, write_json
from medseg.cases import SPLITS, Case, DatasetIndex, Split
from medseg.data.layouts.listed_cases import Listing
from medseg.errors import DataError, LabelError
from medseg.file_names import existing, is_clutter, stem
from medseg.findings import Finding, error
from medseg.labels import BACKGROUND, LabelMap

NAME = "datalist.json"
_KEYS = {"train": "training", "val": "validation", "test": "test"}
_KEEP = "Keep the datalist beside its images and labels, or prepare the set again."


def collect(path: Path, content: Any) -> Listing:
    """List the cases that a datalist names: one of ours, or `dataset.json` of the Decathlon itself.

    A datalist without `validation` has no split of its own but for its test cases. All names of its labels count as
    annotated in a case with a label, unless the entry says otherwise (`annotated`). An entry's `patient` keeps the
    cases of a patient in one subset.

    Args:
        path: the file; the paths in it are relative to its folder.
        content: its JSON, or the finding that it cannot be read.
    """
    listing = Listing("a datalist", path.parent)
    if not isinstance(content, dict) or not all(isinstance(content.get(key) or [], list) for key in _KEYS.values()):
        fault = error("datalist", path, "the file is no datalist: JSON with 'labels' and 'training'", "Write it again.")
        listing.findings.append(content if isinstance(content, Finding) else fault)
        return listing
    listing.labels = _labels(path, content, listing.findings)
    listing.structures = listing.labels.structures if listing.labels else ()
    channels = content.get("modality") or {}
    if isinstance(channels, dict) and len(channels) > 1:
        message = f"the images have {len(channels)} channels ({', '.join(str(name) for name in channels.values())})"
        listing.findings.append(error("datalist", path, message, "Save each channel as a data set of its own."))
    cases: dict[str, Case] = {}
    subsets: dict[str, list[str]] = {subset: [] for subset in SPLITS}
    for subset in SPLITS:
        for entry in content.get(_KEYS[subset]) or []:
            case = _read_entry(path, entry, listing)
            if case is None:
                continue
            if cases.setdefault(case.id, case) != case:
                fix = "Rename one of them, or give each entry a 'case' of its own."
                message = f"two entries have the id '{case.id}'"
                listing.findings.append(error("same-id", path, message, fix).of(case.id))
            subsets[subset].append(case.id)
    listing.cases = [cases[id] for id in sorted(cases)]
    test = tuple(subsets["test"])
    if _KEYS["val"] in content:
        listing.split = Split(tuple(subsets["train"]), tuple(subsets["val"]), test)
    else:
        listing.split = Split(test=test)
    if isinstance(content.get("store"), str):
        listing.store = path.parent / content["store"]
    return listing


def _labels(path: Path, content: dict[str, Any], findings: list[Finding]) -> LabelMap | None:
    try:
        numbered = {str(int(index)): name for index, name in content["labels"].items()}
        return LabelMap.from_dict({**numbered, "0": BACKGROUND}, path, gaps=True)
    except (KeyError, ValueError, AttributeError, TypeError):
        message = "the file is no datalist, because its 'labels' do not give each number a name"
        findings.append(error("datalist", path, message, "Write it again."))
    except LabelError as fault:
        came = f" ({fault.came})" if fault.came else ""
        findings.append(error("datalist", path, f"{fault.problem}{came}", fault.fix or "Write it again."))
    return None


def _read_entry(path: Path, entry: Any, listing: Listing) -> Case | None:
    """Return the case of an entry; None for one that names no image, or a resource fork of macOS (`._x.nii.gz`)."""
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        message = f"an entry names no 'image': {str(entry)[:60]}"
        listing.findings.append(error("datalist", path, message, "Name its image."))
        return None
    try:
        image = existing(path.parent / entry["image"])
        label = existing(path.parent / str(entry["label"])) if entry.get("label") else None
    except DataError as fault:
        listing.findings.append(error("datalist", path, f"{fault.problem} ({fault.thing})", fault.fix))
        return None
    if is_clutter(image.name):
        return None
    id = str(entry.get("case", stem(image)))
    annotated = listing.labels.structures if listing.labels and label else None
    if isinstance(entry.get("annotated"), list):
        annotated = tuple(str(name) for name in entry["annotated"])
    elif entry.get("annotated") is not None:
        message = f"'annotated' of case {id} must be a list of structures, and is {str(entry['annotated'])[:60]}"
        listing.findings.append(error("datalist", path, message, "Correct it, or remove it.").of(id))
    patient = str(entry["patient"]) if entry.get("patient") not in (None, "") else None
    try:
        case = Case(id, image, label, annotated=annotated, patient=patient)
    except DataError as fault:
        listing.findings.append(error("datalist", path, f"{fault.problem} ({fault.came})", fault.fix))
        return None
    for file in filter(None, (image, label)):
        if not file.is_file():
            listing.findings.append(error("file-missing", file, f"{path.name} names a file that does not exist",
                                          _KEEP).of(id))  # fmt: skip
    return case


def write_datalist(path: Path, dataset: DatasetIndex, labels: LabelMap) -> None:
    """Write a datalist with MONAI's Decathlon keys; paths are relative to the file, with forward slashes.

    Raises:
        OutputError: the file cannot be written.
    """
    content: dict[str, Any] = {
        "name": dataset.root.name,
        "labels": labels.to_dict(),
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
    }
    for subset in SPLITS:
        cases = [dataset.case(id) for id in getattr(dataset.split, subset)]
        content[f"num{_KEYS[subset].capitalize()}"] = len(cases)
        content[_KEYS[subset]] = [_write_entry(case, path.parent) for case in cases]
    if dataset.store is not None:
        content["store"] = relative_path(dataset.store.resolve(), path.parent.resolve())
    write_json(path, content)


def _write_entry(case: Case, base: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"case": case.id, "image": relative_path(case.image.resolve(), base.resolve())}
    if case.label is not None:
        entry["label"] = relative_path(case.label.resolve(), base.resolve())
    if case.annotated is not None:
        entry["annotated"] = list(case.annotated)
    if case.patient is not None:
        entry["patient"] = case.patient
    return entry
