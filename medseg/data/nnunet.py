"""The raw layout of nnU-Net v2: dataset.json, imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, imagesTs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.cases import Case, DatasetIndex, Split
from medseg.data.folders import volumes
from medseg.data.nifti import SUFFIXES
from medseg.errors import DataError, LabelError
from medseg.labels import BACKGROUND, LabelMap

logger = logging.getLogger(__name__)

DESCRIPTION, SPLITS_FILE = "dataset.json", "splits_final.json"
IMAGES_TR, LABELS_TR, IMAGES_TS, LABELS_TS = "imagesTr", "labelsTr", "imagesTs", "labelsTs"
CHANNEL = "_0000"


def is_description(content: Any) -> bool:
    """Whether the content of a `dataset.json` is nnU-Net's (names to values), not the Decathlon's (values to names)."""
    if not isinstance(content, dict):
        return False
    labels = content.get("labels")
    numbered = isinstance(labels, dict) and any(not isinstance(value, str) for value in labels.values())
    return "channel_names" in content or "file_ending" in content or numbered


def read(root: Path) -> DatasetIndex:
    """Find the cases of a raw nnU-Net folder. Only names are read, no image.

    Where `splits_final.json` lies beside `dataset.json`, its first fold is the split. Images in `imagesTs` are
    test cases, with their label maps where there is a `labelsTs`. All structures count as annotated, but for
    cases of which `annotated` in `dataset.json` says otherwise (as `medseg data convert` writes it).

    Raises:
        DataError: several channels, files that are no NIfTI, an image without its label map or the reverse.
        LabelError: regions, an ignore label, values with gaps.
    """
    path = root / DESCRIPTION
    content = read_json(path)
    labels = _labels(path, content)
    channels = content.get("channel_names", {"0": "CT"})
    if not isinstance(channels, dict) or len(channels) != 1:
        raise DataError(path, "must name one channel in channel_names", json.dumps(channels), "Split them first.")
    ending = content.get("file_ending", SUFFIXES[0])
    if ending not in SUFFIXES:
        raise DataError(path, f"needs a file_ending of {' or '.join(SUFFIXES)}", repr(ending), "Convert them to NIfTI.")
    pairs = _listed(root, content["dataset"]) if "dataset" in content else _paired(root)
    expected = content.get("numTraining", len(pairs))
    if expected != len(pairs):
        logger.warning("%s: numTraining is %s, but there are %d cases with labels", path, expected, len(pairs))
    said = content.get("annotated", {})
    cases = [
        Case(id, image, label, annotated=tuple(said.get(id, labels.structures)))
        for id, (image, label) in sorted(pairs.items())
    ]
    test = _test_cases(root, labels, said)
    split = _split(root / SPLITS_FILE, set(pairs))
    split = Split(split.train, split.val, tuple(case.id for case in test))
    return DatasetIndex(root, (*cases, *test), labels.structures, labels, split)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, "must be a readable JSON file", str(error)) from error


def write_description(dataset: DatasetIndex, labels: LabelMap, name: str) -> Path:
    """Write `dataset.json` and `splits_final.json` (one fold: the set's own split) for files that are in place.

    Cases in which not every structure was annotated are named under `annotated`, a key that nnU-Net passes over.

    Raises:
        OutputError: the place cannot be written.
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
        "file_ending": SUFFIXES[0],
        "name": name,
    }
    if partly:
        content["annotated"] = partly
        logger.warning(
            "nnU-Net takes what nobody looked for as background; %d cases are not annotated in full (see %s)",
            len(partly),
            dataset.root / DESCRIPTION,
        )
    write_json(dataset.root / DESCRIPTION, content)
    write_json(dataset.root / SPLITS_FILE, [{"train": dataset.split.train, "val": dataset.split.val}])
    return dataset.root / DESCRIPTION


def _labels(path: Path, content: Mapping[str, Any]) -> LabelMap:
    labels = content.get("labels")
    if not isinstance(labels, dict):
        raise LabelError(path, "must map names to values under 'labels'", repr(labels)[:80])
    for name, value in labels.items():
        if isinstance(value, list):
            raise LabelError(
                f"{path}, label '{name}'",
                "must be one value",
                f"the region {value}",
                "medseg does not train on regions: give every value a name of its own, in a copy of dataset.json.",
            )
        if isinstance(value, bool) or not isinstance(value, int):
            raise LabelError(f"{path}, label '{name}'", "must be one whole number", repr(value))
    if "ignore" in labels:
        raise LabelError(
            f"{path}, label 'ignore'",
            "must not occur, for medseg has no voxels that nobody looked at",
            f"value {labels['ignore']}",
            "Leave those cases out, or finish their annotation.",
        )
    named: dict[str, str] = {}
    for name, value in labels.items():
        if str(value) in named:
            raise LabelError(path, "must give every label a value of its own", f"{name} and {named[str(value)]}")
        named[str(value)] = name
    return LabelMap.from_dict({**named, "0": BACKGROUND}, source=path)


def _images(folder: Path) -> dict[str, Path]:
    """The images of a folder by case id, each of one channel."""
    found = {}
    for name, path in volumes(folder).items():
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match is None:
            raise DataError(
                path, f"must be named <case>{CHANNEL}{SUFFIXES[0]}", f"'{path.name}'", "Add the number of its channel."
            )
        if match[2] != CHANNEL[1:]:
            raise DataError(path, f"must be of the one channel {CHANNEL}", f"_{match[2]}", "Keep one channel a case.")
        found[match[1]] = path
    return found


def _paired(root: Path) -> dict[str, tuple[Path, Path]]:
    for folder in (root / IMAGES_TR, root / LABELS_TR):
        if not folder.is_dir():
            raise DataError(folder, f"must be there, beside {DESCRIPTION}", "no such folder")
    images, labels = _images(root / IMAGES_TR), volumes(root / LABELS_TR)
    for id in sorted(set(images) ^ set(labels)):
        if id in images:
            raise DataError(
                images[id], f"needs its label map, {LABELS_TR}/{id}{SUFFIXES[0]}", "no such file", "Add it, or move it."
            )
        raise DataError(
            labels[id],
            f"needs its image, {IMAGES_TR}/{id}{CHANNEL}{SUFFIXES[0]}",
            "no such file",
            "Add it, or move it.",
        )
    if not images:
        raise DataError(root / IMAGES_TR, f"must hold images named <case>{CHANNEL}{SUFFIXES[0]}", "none")
    return {id: (images[id], labels[id]) for id in images}


def _listed(root: Path, listed: Any) -> dict[str, tuple[Path, Path]]:
    """The pairs that `dataset.json` names one by one, as nnU-Net allows it under `dataset`."""
    found = {}
    for id, entry in listed.items() if isinstance(listed, dict) else ():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or len(images) != 1 or "label" not in entry:
            raise DataError(f"{root / DESCRIPTION}, case {id}", "needs one image and a label", json.dumps(entry)[:80])
        found[str(id)] = (root / images[0], root / entry["label"])
        for file in found[str(id)]:
            if not file.is_file():
                raise DataError(file, f"must exist, for {DESCRIPTION} names it", "no such file", "Bring it back there.")
    return found


def _test_cases(root: Path, labels: LabelMap, said: Mapping[str, Any]) -> list[Case]:
    if not (root / IMAGES_TS).is_dir():
        return []
    truth = volumes(root / LABELS_TS) if (root / LABELS_TS).is_dir() else {}
    images = _images(root / IMAGES_TS)
    for id in sorted(set(truth) - set(images)):
        raise DataError(
            truth[id], f"needs its image, {IMAGES_TS}/{id}{CHANNEL}{SUFFIXES[0]}", "no such file", "Add it, or move it."
        )
    return [
        Case(id, image, truth.get(id), annotated=tuple(said.get(id, labels.structures)) if id in truth else None)
        for id, image in sorted(images.items())
    ]


def _split(path: Path, ids: set[str]) -> Split:
    if not path.is_file():
        return Split()
    folds = read_json(path)
    first = folds[0] if isinstance(folds, list) and folds else None
    if not isinstance(first, dict) or not all(isinstance(first.get(side), list) for side in ("train", "val")):
        raise DataError(path, "must be a list of folds, each with train and val", json.dumps(folds)[:80])
    for id in (*first["train"], *first["val"]):
        if id not in ids:
            raise DataError(path, f"must name cases of {IMAGES_TR}", f"'{id}'", "Split the cases anew, or remove it.")
    left = sorted(ids - {*first["train"], *first["val"]})
    if left:
        logger.warning("%s: the first fold leaves %d cases out: %s", path, len(left), ", ".join(left[:5]))
    return Split(tuple(first["train"]), tuple(first["val"]))
