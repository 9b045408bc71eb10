"""List what lies in a folder: cases, structures, split, and what is wrong with names and tables.

Every layout has one function `collect` that returns a `Listing` and refuses nothing that can be reported.
`medseg.data.discover` raises its first error; `medseg.data.check_dataset` reports all of them and reads the files.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.cases import Case, DatasetIndex, Split, leak_message
from medseg.data.dicom import holds_slices
from medseg.data.scan_rules import require_codes
from medseg.errors import DataError, LabelError
from medseg.file_names import VOLUMES, name_key
from medseg.findings import Finding, error, names_of, note
from medseg.image_io_2d import ClassColors
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

LOOSE = "loose files"
_LABEL_CODES = {"unknown-name", "unknown-class"}
_VOLUMES = (*VOLUMES, ".hdr")


@dataclass
class Listing:
    """Hold what lies under a folder, found by names and tables alone.

    Args:
        kind: the layout, in words.
        root: the folder.
        cases: the cases; an image or a label may be missing, which a finding then says.
        structures: the names that occur among labels or masks, in order.
        labels: the numbering of the label maps; None if there are binary masks instead.
        split: the subsets that the folder itself defines.
        findings: what is wrong or worth knowing, those of a case under its id; locations are whole paths.
        store: the folder of the slice store, if there is one.
        class_colors: of 2D slices: what the values or colors of masks mean.
    """

    kind: str
    root: Path
    cases: list[Case] = field(default_factory=list)
    structures: tuple[str, ...] = ()
    labels: LabelMap | None = None
    split: Split = field(default_factory=Split)
    findings: list[Finding] = field(default_factory=list)
    store: Path | None = None
    class_colors: ClassColors | None = None

    @property
    def patients(self) -> dict[str, str]:
        """Return the patient of each case by case id."""
        return {case.id: case.patient_id for case in self.cases}

    def to_index(
        self, exclude: Collection[str] = (), binarize: float | None = None, accept: Sequence[str] = ()
    ) -> DatasetIndex:
        """Return the data set without some cases; log the warnings about the others.

        Args:
            exclude: ids to leave out, whatever is wrong with them.
            binarize: of all cases, see `Case`.
            accept: of all cases, see `Case`.

        Raises:
            DataError, LabelError: the first error among the findings on what is left.
        """
        excluded = set(map(name_key, exclude))
        options: Any = {"binarize": binarize, "accept": require_codes(accept)}
        cases = [replace(case, **options) for case in self.cases if name_key(case.id) not in excluded]
        cases.sort(key=lambda case: case.id)
        split = self.split.without(excluded)
        findings = [finding for finding in self.findings if not finding.case or name_key(finding.case) not in excluded]
        findings += split_findings(split, {case.id: case.patient_id for case in cases}, self.root)
        for finding in findings:
            if finding.severity == "error":
                error_class = LabelError if finding.code in _LABEL_CODES else DataError
                raise error_class(finding.location, finding.message, "", finding.fix)
        for finding in findings:
            if finding.severity == "warning":
                logger.warning("%s: %s. %s", finding.location, finding.message, finding.fix)
        return DatasetIndex(self.root, tuple(cases), self.structures, self.labels, split, self.store, self.class_colors)


def split_findings(split: Split, patients: Mapping[str, str], location: object = "split") -> list[Finding]:
    """Report cases and patients that are in two subsets of a split.

    Args:
        split: case ids by subset.
        patients: the patient of each case.
        location: the origin of the split.
    """
    findings = []
    repeated = split.repeated_cases()
    if repeated:
        message = f"{names_of(repeated)} train and are held out at the same time"
        findings.append(error("split-case", location, message, "Leave each case in one subset."))
    leaks = split.leaks(patients)
    if leaks:
        problem, value, fix = leak_message(leaks)
        findings.append(error("split-patient", location, f"{problem} ({value})", fix))
    return findings


def repeated_ids(cases: Collection[Case]) -> list[Finding]:
    """Report each case whose id another case has, too; accents and upper and lower case may be written otherwise."""
    first: dict[str, str] = {}
    findings = []
    for case in cases:
        key = name_key(case.id)
        if key in first:
            message = f"another case has the id '{first[key]}', which some file systems take for the same"
            findings.append(error("same-id", case.image, message, "Rename one of them.").of(case.id))
        first.setdefault(key, case.id)
    return findings


def read_json(path: Path) -> Any | Finding:
    """Return the content of a JSON file, or the finding that it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        return error("datalist", path, f"the file cannot be read as JSON: {fault}", "Write it again.")


def collect_loose_files(root: Path, files: Collection[Path]) -> Listing:
    """List files that belong to no data set: volumes and DICOM series as cases, all others counted by folder and kind.

    The id of such a case is its file's name; `Case.image` says where it lies.
    """
    listing = Listing(LOOSE, root)
    counts: Counter[tuple[str, str]] = Counter()
    series = {folder for folder in {path.parent for path in files} if holds_slices(folder)}
    listing.cases += [Case(folder.resolve().name.replace("\\", "_"), folder) for folder in sorted(series)]
    for path in files:
        name = path.name.lower()
        if name.endswith(_VOLUMES):
            listing.cases.append(Case(path.name.replace("\\", "_"), path))
        elif path.parent not in series and not (name.endswith(".img") and path.with_suffix(".hdr").is_file()):
            counts[path.parent.relative_to(root).as_posix(), _kind_of_file(path)] += 1
    for (folder, kind), count in sorted(counts.items()):
        message = f"{count} {kind} {'file' if count == 1 else 'files'}, which check does not read"
        listing.findings.append(note("not-read", folder, message))
    return listing


def _kind_of_file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(132)
    if not start:
        return "empty"
    return "DICOM" if start[128:] == b"DICM" or path.suffix.lower() == ".dcm" else path.suffix.lower() or "nameless"
