"""Read the TotalSegmentator layout: sXXXX/ct.nii.gz and sXXXX/segmentations/<structure>.nii.gz.

Version 1 of the set has 104 structures, version 2 has 117; any subset of either is accepted. The seven that only
version 1 has (the chambers of the heart, the pulmonary artery, the face) stay structures of their own: no
structure of version 2 is the same anatomy.
"""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

from medseg.cases import SPLITS, Case, Split
from medseg.catalogue import in_order, structure_names
from medseg.data.layouts.listed_cases import Listing
from medseg.file_names import composed, entries, existing, list_files, name_key, spelled_as, stem
from medseg.findings import Finding, error, note, warning

IMAGE, MASKS, META = "ct.nii.gz", "segmentations", "meta.csv"
_TYPO = 0.85  # how alike a name and that of a structure are where one was misspelled
_PATIENT_COLUMNS = ("patient", "patient_id", "subject", "subject_id")


def is_case(folder: Path) -> bool:
    """Return whether a folder looks like a case of this layout: it has a CT, or a folder of masks."""
    return folder.is_dir() and (image_of(folder).exists() or existing(folder / MASKS).is_dir())


def image_of(folder: Path) -> Path:
    """Return the CT of a case, `ct.nii.gz` or `ct.nii`; where there is none, the path at which it should be."""
    usual = folder / IMAGE
    return usual if usual.exists() else spelled_as(list_files(folder)[0], [stem(IMAGE)]).get(stem(IMAGE), usual)


def collect(root: Path) -> Listing | None:
    """List the cases of a TotalSegmentator folder; None if it has none.

    A structure whose file is absent from a case while another case has it counts as not annotated there; a
    file that is there and holds nothing says that the structure is absent. A name that is not TotalSegmentator's, such
    as `liver_tumour`, is a structure of the set's own, unless it looks like a misspelling. The columns `split` and
    `patient` (or `subject`) of `meta.csv` give split and patients.
    """
    folders = [path for path in entries(root) if path.is_dir()]
    case_folders = [folder for folder in folders if is_case(folder)]
    if not case_folders:
        return None
    listing = Listing("the TotalSegmentator layout", root)
    for folder in sorted(set(folders) - set(case_folders)):
        message = f"the folder has neither {IMAGE} nor {MASKS} and is left out"
        listing.findings.append(warning("case-empty", folder, message, "Fetch the case, or remove the folder."))
    patients: dict[str, str] = {}
    table_findings: list[Finding] = []
    table = existing(root / META)
    if table.is_file():
        ids = {composed(folder.name) for folder in case_folders}
        listing.split, patients, table_findings = _read_table(table, ids)
    valid = set(structure_names())
    names: set[str] = set()
    for folder in case_folders:
        masks, findings = _list_masks(folder, valid)
        masks = spelled_as(masks, names)  # Tumour in one case is tumour in another
        names.update(masks)
        listing.findings += [finding.of(composed(folder.name)) for finding in findings]
        annotated = tuple(sorted(masks))
        id = composed(folder.name)
        case = Case(id, image_of(folder), masks=masks, annotated=annotated, patient=patients.get(id))
        listing.cases.append(case)
    listing.structures = (*in_order(names & valid), *sorted(names - valid))
    listing.findings += table_findings
    return listing


def _list_masks(folder: Path, valid: set[str]) -> tuple[dict[str, Path], list[Finding]]:
    """Return the masks of a case by structure, and what is wrong with the names of its files."""
    files, findings = list_files(folder)
    findings = [finding for finding in findings if finding.severity == "error"]  # what else is beside the CT is no mask
    if not image_of(folder).is_file():
        findings.append(error("image-missing", folder / IMAGE, "the case has no CT", "Fetch it, or remove the folder."))
    files, mask_findings = list_files(existing(folder / MASKS))
    masks = spelled_as(files, valid)
    for name in sorted(masks.keys() - valid):
        meant = difflib.get_close_matches(name, valid, n=1, cutoff=_TYPO)
        if meant:  # any other name is a structure of the set's own
            message = f"'{name}' is no structure of TotalSegmentator (117 in v2, 104 in v1)"
            findings.append(error("unknown-name", masks.pop(name), message, f"Did you mean '{meant[0]}'?"))
    findings += mask_findings
    if not masks:
        fix = "Fetch them, or remove the folder."
        findings.append(error("masks-missing", folder / MASKS, "the case has no masks <structure>.nii.gz", fix))
    return masks, findings


def _read_table(path: Path, ids: set[str]) -> tuple[Split, dict[str, str], list[Finding]]:
    """Return the split and the patients that `meta.csv` gives, and what is wrong with it."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        return Split(), {}, [error("meta", path, f"the table cannot be read: {fault}", "Write it as UTF-8 text.")]
    if not rows or "image_id" not in rows[0]:
        message = "the table needs the columns image_id and split, separated by ';'"
        return Split(), {}, [error("meta", path, message, "Write it again, or remove it.")]
    subsets: dict[str, list[str]] = {subset: [] for subset in SPLITS}
    patients: dict[str, str] = {}
    findings, absent = [], []
    spelling = {name_key(id): id for id in ids}
    column = next((name for name in _PATIENT_COLUMNS if name in rows[0]), None)
    for row in rows:
        name, subset = (row["image_id"] or "").strip(), (row.get("split") or "").strip()
        id = spelling.get(name_key(name), name)
        if id not in ids:
            absent.append(id)
            continue
        if column and (row[column] or "").strip():
            patients[id] = row[column].strip()
        if subset in SPLITS:
            subsets[subset].append(id)
        elif subset:
            message = f"'{subset}' is no subset of a split (row of {id})"
            findings.append(error("meta", path, message, f"Write {', '.join(SPLITS)}, or nothing.").of(id))
    split = Split(*(tuple(subsets[subset]) for subset in SPLITS))
    if absent:
        message = f"{len(absent)} of its cases are not in the folder, {absent[0]} first"
        findings.append(note("meta-absent", path, message))
    without = sorted(ids - {id for subset in SPLITS for id in subsets[subset]})
    if (split.train or split.val) and without:
        message = f"{len(without)} cases are in no subset of its split and are left out, {', '.join(without[:5])} first"
        findings.append(warning("meta-no-subset", path, message, "Name their subset, or leave them out."))
    return split, patients, findings
