"""Check a data set: read every file once, in parallel by case, and report everything that is wrong."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.data.case_jobs import default_processes, run_each
from medseg.data.checks.case import CaseJob, CaseReport, CaseSummary, Preview, check_case
from medseg.data.checks.dataset import (
    check_content,
    check_repeated_images,
    check_slice_sizes,
    check_smoothing,
    check_split,
    check_volumes,
    report_unannotated,
)
from medseg.data.checks.slice_case import check_slice
from medseg.data.layouts import collect
from medseg.data.layouts.listed_cases import LOOSE, Listing, collect_loose_files
from medseg.data.layouts.nearest import describe_unknown
from medseg.errors import DataError, MedsegError, RunError
from medseg.file_names import walk
from medseg.findings import SEVERITIES, Finding, error, ranked, worst
from medseg.image_io_2d import ClassColors
from medseg.labels import LabelMap

_PARALLEL_FROM = 4  # cases; with fewer, starting processes takes longer than it saves


@dataclass(frozen=True, eq=False)
class DatasetReport:
    """Hold the findings on a data set.

    Args:
        root: the folder.
        kind: its layout, in words.
        findings: errors first, those of one code together.
        cases: the content of each case whose image could be read.
        checked: the ids of all cases, readable or not.
        structures: the names that occur in the set.
        overlaps: voxels that pairs of structures share, over all cases.
        unannotated: structures that the set has and that have no file in a case, by case.
        absent: structures whose file exists and is empty, by case.
        previews: a slice of each case with an error or a warning, if requested; not in the JSON.
    """

    root: Path
    kind: str
    findings: tuple[Finding, ...]
    cases: tuple[CaseSummary, ...] = ()
    checked: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    overlaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unannotated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    previews: Mapping[str, Preview] = field(default_factory=dict)

    @property
    def worst(self) -> str | None:
        """Return the highest severity among the findings; None if there are none."""
        return worst(self.findings)

    @property
    def excluded(self) -> dict[str, str]:
        """Return the cases with an error, each with the first reason."""
        reasons: dict[str, str] = {}
        for finding in self.findings:
            if finding.severity == "error" and finding.case:
                location = f"{finding.location}: " if finding.location else ""
                reasons.setdefault(finding.case, f"{finding.code}: {location}{finding.message}")
        return reasons

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity."""
        return {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}

    def to_dict(self) -> dict[str, Any]:
        """Return the form it has in JSON: no NaN, paths relative to the root, overlaps as a list, most voxels first."""
        ordered = sorted(self.overlaps.items(), key=lambda item: (-item[1], item[0]))
        return {
            "root": str(self.root),
            "kind": self.kind,
            "counts": self.counts(),
            "checked": list(self.checked),
            "excluded": self.excluded,
            "findings": [finding.to_dict() for finding in self.findings],
            "structures": list(self.structures),
            "cases": [asdict(case) for case in self.cases],
            "overlaps": [{"structures": list(pair), "voxels": voxels} for pair, voxels in ordered],
            "unannotated": {id: list(names) for id, names in self.unannotated.items()},
            "absent": {id: list(names) for id, names in self.absent.items()},
        }


def check_dataset(
    root: str | Path,
    workers: int | None = None,
    previews: int = 0,
    patient: str | None = None,
    binarize: float | None = None,
) -> DatasetReport:
    """Read every file of a data set and report everything that is wrong with it. Nothing is changed.

    Args:
        root: a data set in any layout that `discover` knows, or a folder of loose images.
        workers: processes to read with; 0 or 1 reads in this one; None decides by the machine and the set.
        previews: the number of cases with an error or a warning of which a slice is returned.
        patient: of 2D slices: a pattern that finds the patient in an image's name.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.

    Raises:
        DataError: the path does not exist.

    Example:
        for finding in check_dataset("Totalsegmentator_dataset").findings:
            print(finding)
    """
    root = Path(root)
    listing = _list(root, patient)
    listing.cases = [replace(case, binarize=binarize) for case in listing.cases]
    jobs, findings = _jobs(listing)
    reports: dict[str, CaseReport] = {}
    counts = {True: 0, False: 0}
    for report in _check_cases(listing, jobs, previews > 0, workers):
        if report.preview is not None:
            # Previews of clean cases are kept, too, because the set as a whole may have a finding on them.
            flagged = worst(report.findings) in {"error", "warning"}
            counts[flagged] += 1
            report = report if counts[flagged] <= previews else replace(report, preview=None)
        reports[report.id] = report
    return _combine(root, listing, findings, jobs, [reports[job.id] for job in jobs if job.id in reports], previews)


def _list(root: Path, patient: str | None) -> Listing:
    """List a data set; if there is none, every image by itself."""
    if not root.exists():
        raise DataError(root, "there is no such folder")
    if root.is_file() and root.suffix != ".json":
        return collect_loose_files(root.parent, [root])
    folder = root if root.is_dir() else root.parent
    fix = "Every image in it is checked by itself."
    try:
        listing = collect(root, patient)
        if listing is not None:
            return listing
        content, advice = describe_unknown(folder, collect)
        doubt = error(
            "layout", folder, f"the folder holds no data set in a known layout ({content})", f"{advice} {fix}"
        )
    except MedsegError as fault:
        doubt = error("layout", folder, f"the data set cannot be used: {str(fault).rstrip('.')}", fix)
    listing = collect_loose_files(folder, walk(folder))
    listing.findings.insert(0, doubt)
    return listing


def _jobs(listing: Listing) -> tuple[list[CaseJob], list[Finding]]:
    """Return the cases to read, each with the findings on its names, and the findings on the set as a whole."""
    loose = listing.kind == LOOSE
    by_case: dict[str, list[Finding]] = {}
    for finding in listing.findings:
        by_case.setdefault(finding.case, []).append(finding)
    jobs = []
    for case in listing.cases:
        id = case.image.relative_to(listing.root).as_posix() if loose and case.image != listing.root else case.id
        # A file may hold anything; a series of DICOM says what it is.
        jobs.append(CaseJob(id, case, tuple(by_case.pop(id, ())), loose and not case.image.is_dir()))
    return jobs, [finding for findings in by_case.values() for finding in findings]


def _check_cases(listing: Listing, jobs: Sequence[CaseJob], preview: bool, workers: int | None) -> Iterator[CaseReport]:
    """Yield the report of each case; those that a dying process leaves behind are read one by one."""
    if workers is None:
        workers = default_processes() if len(jobs) >= _PARALLEL_FROM else 1
    check = functools.partial(_check_safely, labels=listing.labels, colors=listing.class_colors, preview=preview)
    remaining = {job.id: job for job in jobs}
    try:
        for job, report in run_each(check, jobs, workers, "Checking"):
            remaining.pop(job.id, None)
            yield _failed(job, str(report), "") if isinstance(report, MedsegError) else report
    except RunError:  # a process died, probably for lack of memory
        for job in remaining.values():
            yield _check_in_own_process(check, job)


def _check_in_own_process(check: Callable[[CaseJob], CaseReport], job: CaseJob) -> CaseReport:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(check, job).result()
        except BrokenProcessPool:
            return _failed(job, "the process that read it died", "Give it more memory, or use fewer workers.")


def _check_safely(job: CaseJob, labels: LabelMap | None, colors: ClassColors | None, preview: bool) -> CaseReport:
    try:
        if job.case.slice is not None and colors is not None:
            return check_slice(job, colors, preview)
        return check_case(job, labels, preview)
    except Exception as fault:  # one case must not end the check of a thousand
        return _failed(job, f"{type(fault).__name__}: {fault}", "Look at its files.")


def _failed(job: CaseJob, message: str, fix: str) -> CaseReport:
    return CaseReport(job.id, (*job.findings, error("case-failed", job.case.image, message, fix).of(job.id)))


def _combine(
    root: Path,
    listing: Listing,
    set_findings: Sequence[Finding],
    jobs: Sequence[CaseJob],
    reports: Sequence[CaseReport],
    previews: int,
) -> DatasetReport:
    """Combine the reports of all cases and check the cases against each other."""
    findings = [*set_findings, *(finding for report in reports for finding in report.findings)]
    images = {report.id: report.digest for report in reports if report.digest}
    present = {report.id: tuple(report.summary.voxels) for report in reports if report.summary}
    if listing.kind != LOOSE:
        findings += check_volumes({report.id: report.complete_ml for report in reports if _spacing_is_sure(report)})
    findings += check_repeated_images(images)
    findings += check_split(listing.split, patients=listing.patients, images=images)
    if listing.kind != LOOSE:
        unread = {finding.case for finding in findings if finding.severity == "error"}
        labeled = {case.id for case in listing.cases if case.masks or case.label is not None}
        read = {id: names for id, names in present.items() if id in labeled - unread}
        content = check_content(listing.split, read, listing.structures, listing.patients)
        # Masks that could not be read may hold structures.
        findings += [finding for finding in content if finding.code != "masks-empty" or not labeled & unread]
    image_of = {job.id: job.case.image for job in jobs if job.case.slice is not None}
    sizes = {}
    for report in reports:
        if report.summary is not None and report.id in image_of:
            sizes[image_of[report.id]] = (report.summary.shape[0], report.summary.shape[1])
    findings += check_slice_sizes(sizes)
    findings += check_smoothing(
        [report.smoothed for report in reports], [r.summary.voxels for r in reports if r.summary]
    )
    unannotated = {}
    for case in listing.cases:
        missing = [] if case.annotated is None else [name for name in listing.structures if name not in case.annotated]
        if missing:
            unannotated[case.id] = tuple(missing)
            findings.append(report_unannotated(missing).of(case.id))
    overlaps: Counter[tuple[str, str]] = Counter()
    for report in reports:
        overlaps.update(report.overlaps)
    flagged = {finding.case for finding in findings if finding.severity != "note"}
    shown = [report for report in reports if report.preview is not None and report.id in flagged][:previews]
    return DatasetReport(
        root=root,
        kind=listing.kind,
        findings=tuple(ranked(replace(finding, location=_relative(finding.location, root)) for finding in findings)),
        cases=tuple(report.summary for report in reports if report.summary),
        checked=tuple(job.id for job in jobs),
        structures=listing.structures,
        overlaps=dict(overlaps),
        unannotated=unannotated,
        absent={report.id: report.absent for report in reports if report.absent},
        previews={report.id: report.preview for report in shown if report.preview is not None},
    )


def _spacing_is_sure(report: CaseReport) -> bool:
    """Return whether volumes of the case can be compared with others."""
    return not any(finding.code.startswith("spacing") for finding in report.findings)


def _relative(location: str, root: Path) -> str:
    if location == str(root):
        return root.name
    prefix = f"{root}{os.sep}"
    return location.removeprefix(prefix).replace(os.sep, "/") if location.startswith(prefix) else location
