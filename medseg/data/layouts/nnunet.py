"""Read nnU-Net's raw layout: dataset.json, imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, imagesTs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.cases import Case, DatasetIndex, Split
from medseg.data.layouts.listed_cases import Listing, read_json
from medseg.errors import DataError, LabelError
from medseg.file_names import NIFTI, composed, existing, list_files, spelled_as
from medseg.findings import Finding, error, warning
from medseg.labels import BACKGROUND, LabelMap

logger = logging.getLogger(__name__)

DESCRIPTION, SPLITS_FILE = "dataset.json", "splits_final.json"
IMAGES_TR, LABELS_TR, IMAGES_TS, LABELS_TS = "imagesTr", "labelsTr", "imagesTs", "labelsTs"
CHANNEL = "_0000"
_ADD = "Add it, or move this file elsewhere."
Pairs = dict[str, tuple[Path, Path]]


def is_description(content: Any) -> bool:
    """Return whether a `dataset.json` is nnU-Net's (names to values), not the Decathlon's (values to names)."""
    if not isinstance(content, dict):
        return False
    labels = content.get("labels")
    numbered = isinstance(labels, dict) and any(not isinstance(value, str) for value in labels.values())
    return "channel_names" in content or "file_ending" in content or numbered


def collect(root: Path, content: Mapping[str, Any]) -> Listing:
    """List the cases of a raw nnU-Net folder.

    If `splits_final.json` lies beside `dataset.json`, its first fold is the split. Images in `imagesTs` are
    test cases, with their label maps if there is a `labelsTs`. All structures count as annotated, except in cases that
    `annotated` in `dataset.json` lists; `patients` there keeps the cases of a patient in one subset (`medseg data
    convert` writes both, nnU-Net ignores them).

    Args:
        root: the folder.
        content: of `dataset.json`.

    Raises:
        DataError: several channels, files that are no NIfTI, no images.
        LabelError: regions, an ignore label.
    """
    path = root / DESCRIPTION
    labels = _labels(path, content)
    channels = content.get("channel_names", {"0": "CT"})
    if not isinstance(channels, dict) or len(channels) != 1:
        problem = "channel_names must name exactly one channel"
        raise DataError(path, problem, json.dumps(channels), "Save each channel as a data set of its own.")
    ending = content.get("file_ending", NIFTI[0])
    if ending not in NIFTI:
        problem = f"file_ending must be {' or '.join(NIFTI)}"
        raise DataError(path, problem, f"got {ending!r}", "Convert the files to NIfTI.")
    listing = Listing("the nnU-Net layout", root, structures=labels.structures, labels=labels)
    listed = content.get("dataset")
    pairs = _pair_by_name(root, listing.findings) if listed is None else _pair_as_listed(root, listed, listing.findings)
    expected = content.get("numTraining", len(pairs))
    if expected != len(pairs):
        message = f"numTraining is {expected}, but there are {len(pairs)} cases with labels"
        listing.findings.append(warning("case-count", path, message, "Look for files that are missing."))
    test = _pair_test_cases(root, listing.findings)
    ids = {*pairs, *test}
    annotated = spelled_as(_mapping(content, "annotated", (list,), path, listing.findings), ids)
    patients = spelled_as(_mapping(content, "patients", (str, int), path, listing.findings), ids)
    for id, (image, label) in sorted({**pairs, **test}.items()):
        names = tuple(annotated.get(id, labels.structures)) if label is not None else None
        patient = str(patients[id]) if id in patients else None
        listing.cases.append(Case(id, image, label, annotated=names, patient=patient))
    for id in sorted(pairs.keys() & test):
        message = f"{pairs[id][0].name} is a training case, too"
        listing.findings.append(error("same-id", str(test[id][0]), message, "Keep it in one of the folders.").of(id))
    split = _first_fold(root / SPLITS_FILE, set(pairs), listed is None, listing.findings)
    listing.split = Split(split.train, split.val, tuple(sorted(test)))
    return listing


def _mapping(
    content: Mapping[str, Any], key: str, types: tuple[type, ...], path: Path, findings: list[Finding]
) -> Mapping[str, Any]:
    """Return what a key of `dataset.json` gives for each case; values of another kind are reported, not ignored."""
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(entry, types) for entry in value.values()):
        message = f"'{key}' must give each case {'a list of structures' if list in types else 'its patient'}"
        findings.append(error("datalist", path, message, f"Correct it, or remove '{key}'."))
        return {}
    return value


def write_description(dataset: DatasetIndex, labels: LabelMap, name: str) -> Path:
    """Write `dataset.json` and `splits_final.json` (one fold: the set's own split) for files that are in place.

    Cases in which not every structure was annotated are named under `annotated`, patients of several cases under
    `patients`; nnU-Net ignores both keys.

    Raises:
        OutputError: a file cannot be written.
    """
    partly = {
        case.id: list(case.annotated)
        for case in dataset.cases
        if case.label is not None and case.annotated is not None and set(case.annotated) != set(labels.structures)
    }
    content: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(labels.names)},
        "numTraining": sum(case.id not in dataset.split.test for case in dataset.cases),
        "file_ending": NIFTI[0],
        "name": name,
    }
    patients = {case.id: case.patient for case in dataset.cases if case.patient is not None}
    if patients:
        content["patients"] = patients
    if partly:
        content["annotated"] = partly
        logger.warning(
            "nnU-Net takes structures that were not annotated for background; that concerns %d cases (see %s)",
            len(partly),
            dataset.root / DESCRIPTION,
        )
    write_json(dataset.root / DESCRIPTION, content)
    write_json(dataset.root / SPLITS_FILE, [{"train": dataset.split.train, "val": dataset.split.val}])
    return dataset.root / DESCRIPTION


def _labels(path: Path, content: Mapping[str, Any]) -> LabelMap:
    labels = content.get("labels")
    if not isinstance(labels, dict):
        raise LabelError(path, "'labels' must map names to values", f"got {labels!r}"[:80])
    for name, value in labels.items():
        thing = f"{path}, label '{name}'"
        if isinstance(value, list):
            fix = "Give every value a name of its own, in a copy of dataset.json."
            raise LabelError(thing, "medseg does not train on regions of several values", f"got {value}", fix)
        if isinstance(value, bool) or not isinstance(value, int):
            raise LabelError(thing, "the value must be one integer", f"got {value!r}")
    if "ignore" in labels:
        problem = "medseg has no ignore label for voxels that were not annotated"
        fix = "Leave those cases out, or finish their annotation."
        raise LabelError(f"{path}, label 'ignore'", problem, f"value {labels['ignore']}", fix)
    names: dict[str, str] = {}
    for name, value in labels.items():
        if str(value) in names:
            problem = f"{names[str(value)]} and {name} have the same value {value}"
            raise LabelError(path, problem, "", "Give each label a value of its own.")
        names[str(value)] = name
    return LabelMap.from_dict({**names, "0": BACKGROUND}, path, gaps=True)


def _list_images(folder: Path, findings: list[Finding]) -> dict[str, Path]:
    """Return the images of a folder by case id, each of one channel."""
    volumes, repeated = list_files(folder)
    findings += repeated
    images = {}
    for name, path in volumes.items():
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match is None:
            message = f"an image must be named <case>{CHANNEL}{NIFTI[0]}"
            findings.append(error("image-name", path, message, "Add the number of its channel."))
        elif match[2] != CHANNEL[1:]:
            message = f"it is an image of channel _{match[2]}, and medseg trains on the one channel {CHANNEL}"
            findings.append(error("image-name", path, message, "Keep one channel per case."))
        else:
            images[match[1]] = path
    return images


def _list_labels(folder: Path, images: Iterable[str], findings: list[Finding]) -> dict[str, Path]:
    labels, repeated = list_files(folder)
    findings += repeated
    return spelled_as(labels, images)


def _pair_by_name(root: Path, findings: list[Finding]) -> Pairs:
    folders = existing(root / IMAGES_TR), existing(root / LABELS_TR)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(folder, f"there is no such folder beside {DESCRIPTION}")
    images = _list_images(folders[0], findings)
    labels = _list_labels(folders[1], images, findings)
    for id in sorted(images.keys() - labels):
        message = f"the image has no label map {LABELS_TR}/{id}{NIFTI[0]}"
        findings.append(error("image-alone", images[id], message, _ADD))
    for id in sorted(labels.keys() - images):
        message = f"the label map has no image {IMAGES_TR}/{id}{CHANNEL}{NIFTI[0]}"
        findings.append(error("mask-alone", labels[id], message, _ADD))
    if not images and not findings:
        raise DataError(root / IMAGES_TR, f"the folder holds no images named <case>{CHANNEL}{NIFTI[0]}")
    return {id: (images[id], labels[id]) for id in images if id in labels}


def _pair_as_listed(root: Path, listed: Any, findings: list[Finding]) -> Pairs:
    """Return the pairs that `dataset.json` names one by one, as nnU-Net allows it under `dataset`."""
    pairs: Pairs = {}
    for id, entry in listed.items() if isinstance(listed, dict) else ():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or len(images) != 1 or not isinstance(entry.get("label"), str):
            message = f"case {id} needs one image and a label, and has {json.dumps(entry)[:80]}"
            findings.append(error("datalist", root / DESCRIPTION, message, "Name both."))
            continue
        id = composed(str(id))
        pairs[id] = (existing(root / images[0]), existing(root / entry["label"]))
        for file in pairs[id]:
            if not file.is_file():
                message = f"{DESCRIPTION} names a file that does not exist"
                findings.append(error("file-missing", file, message, "Bring it back there.").of(id))
    return pairs


def _pair_test_cases(root: Path, findings: list[Finding]) -> dict[str, tuple[Path, Path | None]]:
    images = _list_images(existing(root / IMAGES_TS), findings)
    truth = _list_labels(existing(root / LABELS_TS), images, findings)
    for id in sorted(truth.keys() - images):
        message = f"the label map has no image {IMAGES_TS}/{id}{CHANNEL}{NIFTI[0]}"
        findings.append(error("mask-alone", truth[id], message, _ADD))
    return {id: (image, truth.get(id)) for id, image in images.items()}


def _first_fold(path: Path, ids: set[str], by_name: bool, findings: list[Finding]) -> Split:
    """Return the first fold; `by_name` if cases were paired by name, so that files without a partner are reported."""
    if not path.is_file():
        return Split()
    folds = read_json(path)
    first = folds[0] if isinstance(folds, list) and folds else None
    if not isinstance(first, dict) or not all(isinstance(first.get(subset), list) for subset in ("train", "val")):
        message = "the file is no list of folds, each with train and val"
        findings.append(folds if isinstance(folds, Finding) else error("meta", path, message, "Write it again."))
        return Split()
    named = {subset: list(spelled_as(dict.fromkeys(map(str, first[subset])), ids)) for subset in ("train", "val")}
    for id in (*named["train"], *named["val"]):
        if id not in ids and not (by_name and _has_file(path.parent, id)):
            message = f"its first fold names '{id}', which is no case of {IMAGES_TR}"
            findings.append(error("meta", path, message, "Split the cases anew, or remove it."))
    without = sorted(ids - {*named["train"], *named["val"]})
    if without:
        message = f"{len(without)} cases are not in its first fold and are left out, {', '.join(without[:5])} first"
        findings.append(warning("meta-no-subset", path, message, "Name their subset, or leave them out."))
    return Split(*(tuple(id for id in named[subset] if id in ids) for subset in ("train", "val")))


def _has_file(root: Path, id: str) -> bool:
    """Return whether a case has an image or a label map; if it lacks the other, that is reported already."""
    names = [root / IMAGES_TR / f"{id}{CHANNEL}", root / LABELS_TR / id]
    return any(existing(path.with_name(path.name + suffix)).is_file() for path in names for suffix in NIFTI)
