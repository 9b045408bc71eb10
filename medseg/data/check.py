"""The dataset doctor: everything read once, in parallel by case, and all that is wrong said at the end."""

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

from medseg.data.checks import labels, splits
from medseg.data.checks import pictures as slices
from medseg.data.checks.case import CaseSlice, CaseSummary, Reading, read_case
from medseg.data.checks.survey import Plan, Survey, survey
from medseg.data.parallel import default_workers, run_each
from medseg.errors import MedsegError, RunError
from medseg.findings import SEVERITIES, Finding, error, ranked, worst
from medseg.labels import LabelMap

_WORTH_A_POOL = 4  # cases; below, starting processes takes longer than they save


@dataclass(frozen=True, eq=False)
class DatasetReport:
    """What was found in a data set.

    Args:
        root: the folder.
        kind: what it was taken for.
        findings: errors first, those of one code together.
        cases: what each case holds whose image could be read, by id.
        checked: the ids of all cases, readable or not.
        structures: the names that occur in the set.
        overlaps: voxels that pairs of structures share, over all cases.
        unannotated: structures that the set has and that have no file in a case, by case.
        absent: structures whose file is there and empty, by case.
        pictures: a slice of each case with an error or a warning, where asked for; not in the JSON.
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
    pictures: Mapping[str, CaseSlice] = field(default_factory=dict)

    @property
    def worst(self) -> str | None:
        """The highest severity that was found; None where nothing was."""
        return worst(self.findings)

    @property
    def excluded(self) -> dict[str, str]:
        """The cases with an error, each with the first reason."""
        reasons: dict[str, str] = {}
        for finding in self.findings:
            if finding.severity == "error" and finding.case:
                where = f"{finding.location}: " if finding.location else ""
                reasons.setdefault(finding.case, f"{finding.code}: {where}{finding.message}")
        return reasons

    def counts(self) -> dict[str, int]:
        """How many findings of each severity there are."""
        return {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}

    def to_dict(self) -> dict[str, Any]:
        """The form it has in JSON: no NaN, paths relative to the root, overlaps as a list, most voxels first."""
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
    root: str | Path, workers: int | None = None, pictures: int = 0, patient: str | None = None
) -> DatasetReport:
    """Look at every file of a data set and say all that is wrong with it. Nothing is changed.

    Args:
        root: a data set in any layout that `discover` knows, or a folder of loose images.
        workers: processes to read with; 0 or 1 reads in this one; None decides by the machine and the set.
        pictures: for how many cases with an error or a warning a slice is kept.
        patient: of 2D slices: a pattern that finds the patient in a picture's name.

    Raises:
        DataError: there is nothing of that name.
    """
    root = Path(root)
    seen = survey(root, patient)
    readings: dict[str, Reading] = {}
    kept = {True: 0, False: 0}
    for reading in _readings(seen, pictures > 0, workers):
        if reading.picture is not None:  # clean ones too: the set as a whole may have a word on them
            ill = worst(reading.findings) in {"error", "warning"}
            kept[ill] += 1
            reading = reading if kept[ill] <= pictures else replace(reading, picture=None)
        readings[reading.id] = reading
    return _report(root, seen, [readings[plan.id] for plan in seen.cases if plan.id in readings], pictures)


def _readings(seen: Survey, picture: bool, workers: int | None) -> Iterator[Reading]:
    """Each case as it is read; those that a dying process leaves behind, each by itself."""
    if workers is None:
        workers = default_workers() if len(seen.cases) >= _WORTH_A_POOL else 1
    read = functools.partial(_safely, names=seen.labels, picture=picture)
    rest = {plan.id: plan for plan in seen.cases}
    try:
        for plan, reading in run_each(read, seen.cases, workers, "Checking"):
            del rest[plan.id]
            yield _failed(plan, str(reading), "") if isinstance(reading, MedsegError) else reading
    except RunError:  # a process died, for want of memory most likely
        for plan in rest.values():
            yield _alone(read, plan)


def _alone(read: Callable[[Plan], Reading], plan: Plan) -> Reading:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(read, plan).result()
        except BrokenProcessPool:
            return _failed(plan, "the process that read it died", "Give it more memory, or fewer workers.")


def _safely(plan: Plan, names: LabelMap | None, picture: bool) -> Reading:
    try:
        return read_case(plan, names, picture) if plan.slice is None else slices.read_slice_case(plan, picture)
    except Exception as fault:  # one case must not end the check of a thousand
        return _failed(plan, f"{type(fault).__name__}: {fault}", "Look at its files.")


def _failed(plan: Plan, why: str, fix: str) -> Reading:
    return Reading(plan.id, (*plan.findings, error("case-failed", plan.image or "", why, fix).of(plan.id)))


def _report(root: Path, seen: Survey, readings: Sequence[Reading], pictures: int) -> DatasetReport:
    """What the readings give together: the set against itself."""
    found = [*seen.findings, *(finding for reading in readings for finding in reading.findings)]
    images = {reading.id: reading.digest for reading in readings if reading.digest}
    present = {reading.id: tuple(reading.summary.voxels) for reading in readings if reading.summary}
    unannotated = _unannotated(seen)
    if seen.kind != "loose files":
        found += labels.outlying_volumes({reading.id: reading.whole for reading in readings if _measured(reading)})
    found += splits.repeated(images)
    for finding in splits.examine(seen.split, patients=seen.patients, images=images, structures=present):
        doubtful = seen.guessed and finding.code == "split-patient"
        found.append(replace(finding, severity="warning") if doubtful else finding)
    found += slices.uneven(readings, {plan.id: plan.image for plan in seen.cases if plan.slice and plan.image})
    for id, names in unannotated.items():
        found.append(labels.unannotated(names).of(id))
    overlaps: Counter[tuple[str, str]] = Counter()
    for reading in readings:
        overlaps.update(reading.overlaps)
    relative = [replace(finding, location=_relative(finding.location, root)) for finding in found]
    flagged = {finding.case for finding in found if finding.severity != "note"}
    printable = [r for r in readings if r.picture is not None and r.id in flagged][:pictures]
    return DatasetReport(
        root=root,
        kind=seen.kind,
        findings=tuple(ranked(relative)),
        cases=tuple(reading.summary for reading in readings if reading.summary),
        checked=tuple(plan.id for plan in seen.cases),
        structures=seen.structures,
        overlaps=dict(overlaps),
        unannotated=unannotated,
        absent={reading.id: reading.absent for reading in readings if reading.absent},
        pictures={reading.id: reading.picture for reading in printable if reading.picture is not None},
    )


def _measured(reading: Reading) -> bool:
    """Whether volumes of the case can be held against others: not where its very spacing is in doubt."""
    return not any(finding.code.startswith("spacing") for finding in reading.findings)


def _unannotated(seen: Survey) -> dict[str, tuple[str, ...]]:
    """By case the structures that the set has and nobody looked for in it."""
    missing = {
        plan.id: tuple(name for name in seen.structures if name not in plan.annotated)
        for plan in seen.cases
        if plan.annotated is not None
    }
    return {id: names for id, names in missing.items() if names}


def _relative(location: str, root: Path) -> str:
    start = f"{root}{os.sep}"
    return location.removeprefix(start).replace(os.sep, "/") if location.startswith(start) else location
