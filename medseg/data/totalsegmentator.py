"""The layout of the TotalSegmentator data set: sXXXX/ct.nii.gz and sXXXX/segmentations/<structure>.nii.gz.

Version 1 of the set has 104 structures, version 2 has 117; any subset of either will do. The seven that only
version 1 has (the chambers of the heart, the pulmonary artery, the face) stay structures of their own: no
structure of version 2 is the same anatomy.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path

from medseg.cases import SPLITS, Case, DatasetIndex, Split
from medseg.data.nifti import stem
from medseg.errors import DataError, LabelError, did_you_mean
from medseg.labels import catalogue_v1, groups, only_v1

logger = logging.getLogger(__name__)

IMAGE, MASKS, META = "ct.nii.gz", "segmentations", "meta.csv"


def is_case(folder: Path) -> bool:
    """Whether a folder looks like a case of this layout: a CT, or a folder of masks."""
    return folder.is_dir() and ((folder / IMAGE).exists() or (folder / MASKS).is_dir())


def version(names: Iterable[str]) -> int:
    """Which version of the class map the names come from: 1 where some exist only there and all exist there.

    >>> version(["liver", "heart_atrium_left"]), version(["liver"]), version(["liver", "heart", "face"])
    (1, 2, 2)
    """
    found = set(names)
    return 1 if found & set(only_v1()) and found <= {entry["name"] for entry in catalogue_v1()} else 2


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of the class map they come from; a mixture in that of version 2, then what only 1 has."""
    found = set(names)
    if version(found) == 1:
        return tuple(entry["name"] for entry in catalogue_v1() if entry["name"] in found)
    return tuple(name for name in (*groups()["all"], *only_v1()) if name in found)


def read(root: Path) -> DatasetIndex:
    """Find the cases of a TotalSegmentator folder. Only names are read, no image.

    A structure whose file is absent from a case while another case has it counts as not annotated there; a
    file that is there and holds nothing says that the structure is absent.

    Raises:
        DataError: a case without its CT or without masks; a broken `meta.csv`.
        LabelError: a mask file whose name is no structure.
    """
    known = {*groups()["all"], *only_v1()}
    cases, names = [], set[str]()
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        if not is_case(folder):
            logger.warning("%s: neither %s nor %s in it, left out", folder, IMAGE, MASKS)
            continue
        files = sorted((folder / MASKS).glob("*.nii.gz"))
        masks = {stem(path): path for path in files if not path.name.startswith(".")}
        if not (folder / IMAGE).is_file():
            raise DataError(folder / IMAGE, "every case needs its CT", "no such file", "Add it, or remove the folder.")
        if not masks:
            raise DataError(
                folder / MASKS,
                "every case needs its masks, <structure>.nii.gz",
                "none",
                "Add them, or remove the folder.",
            )
        for name, path in masks.items():
            if name not in known:
                raise LabelError(
                    path,
                    "must be named after a structure of TotalSegmentator (117 in v2, 104 in v1)",
                    f"'{name}'",
                    did_you_mean(name, known, "Rename it, or move it elsewhere."),
                )
        names.update(masks)
        cases.append(Case(folder.name, folder / IMAGE, masks=masks, annotated=tuple(sorted(masks))))
    split = _read_split(root / META, {case.id for case in cases}) if (root / META).is_file() else Split()
    return DatasetIndex(root, tuple(cases), in_order(names), split=split)


def _read_split(path: Path, ids: set[str]) -> Split:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "must be a readable text file", str(error)) from error
    rows = list(csv.DictReader(lines, delimiter=";"))
    if not rows or "image_id" not in rows[0]:
        header = lines[0][:80] if lines else "an empty file"
        raise DataError(path, "needs the columns image_id and split, separated by ';'", header)
    sides: dict[str, list[str]] = {side: [] for side in SPLITS}
    for row in rows:
        side, id = (row.get("split") or "").strip(), (row["image_id"] or "").strip()
        if side and side not in SPLITS:
            raise DataError(f"{path}, {id}", f"needs a split of {', '.join(SPLITS)}", f"'{side}'")
        if side and id in ids:
            sides[side].append(id)
    split = Split(*(tuple(sides[side]) for side in SPLITS))
    if split.train or split.val:
        left = sorted(ids - {id for side in SPLITS for id in sides[side]})
        if left:
            logger.warning("%s: no split for %d cases, left out: %s", path, len(left), ", ".join(left[:5]))
    return split
