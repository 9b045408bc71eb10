"""Convert a data set to another layout: raw nnU-Net, or a folder of the Medical Segmentation Decathlon.

Images are copied byte for byte, label maps keep every voxel. Nothing is resampled, reoriented or cropped.
"""

from __future__ import annotations

import gzip
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.atomic import atomic_path, claim_folder
from medseg.cases import SPLITS, Case, DatasetIndex, Split
from medseg.data.case_jobs import Journal, resume_each, source_key
from medseg.data.datasets import read_label
from medseg.data.layouts import discover_volumes, nnunet
from medseg.data.layouts.datalist import write_datalist
from medseg.data.nifti import open_nifti
from medseg.data.nifti_writer import write_label_map
from medseg.data.scan_rules import log_warnings
from medseg.data.volumes import read_header
from medseg.errors import DataError, did_you_mean
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

FORMATS = ("nnunet", "datalist")
_JOURNAL = ".conversion.jsonl"


@dataclass(frozen=True)
class Converted:
    """Summarize what `convert` wrote.

    Args:
        description: the `dataset.json` that was written.
        labels: the numbering of the label maps.
        cases: the cases that are in it.
        reused: those of them that were there already, from an earlier run.
        failed: the reason for each case that is not in it.
        overlaps: voxels in which one structure won over another: `{(winner, loser): voxels}`.
    """

    description: Path
    labels: LabelMap
    cases: tuple[str, ...]
    reused: tuple[str, ...]
    failed: Mapping[str, str]
    overlaps: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class _Job:
    """Hold one case to convert, its files in the new layout, and the two numberings."""

    case: Case
    target: Case
    case_labels: LabelMap | None
    labels: LabelMap
    needs_label: bool
    key: str

    def files(self) -> list[Path]:
        """List the files that the job writes."""
        return self.target.files()


def convert(
    root: str | Path,
    out: str | Path,
    to: str,
    structures: str | Sequence[str] = "all",
    workers: int = 0,
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> Converted:
    """Write the data set under `root` to `out` in another layout.

    A stopped conversion resumes: files that were finished from the same sources are reused. A case that is broken is
    left out and listed; the others are written.

    Args:
        root: a data set in any layout that `discover` knows.
        out: an empty folder, a new one, or that of an earlier conversion of the same set, see `claim_folder`.
        to: `nnunet` (imagesTr, labelsTr, imagesTs, dataset.json, splits_final.json) or `datalist` (the same
            folders with the Decathlon's dataset.json).
        structures: which to keep: names, or groups of TotalSegmentator's. Their label values follow the order
            in which the set has them, without a gap.
        workers: processes, see `run_each`; 0 or 1 does everything in this one.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes scans and label maps that break a rule, by its code, see `medseg.data.scan_rules`.

    Raises:
        DataError: `out` lies inside `root` or holds other files; no case could be converted.
        LabelError: a structure that the set does not have.
        OutputError: `out` cannot be written.
    """
    root, out = Path(root), Path(out)
    if to not in FORMATS:
        problem = f"the layouts to convert to are {', '.join(FORMATS)}"
        raise DataError(f"layout '{to}'", problem, "", did_you_mean(to, FORMATS))
    source = root if root.is_dir() else root.parent
    if root.exists() and out.resolve().is_relative_to(source.resolve()):
        raise DataError(out, f"the folder must not lie inside the source {source}", "", "Choose a folder beside it.")
    dataset = discover_volumes(root, (), binarize, accept).with_split()
    labels = dataset.choose(structures)
    cases = _cases_with_subset(dataset)
    test = set(dataset.split.test)
    channel = nnunet.CHANNEL if to == "nnunet" else ""
    targets = {case.id: _target(case, out, case.id in test, channel) for case in cases}
    _refuse_other_files(out, targets.values())
    settings = {"to": to, "structures": labels.structures, "binarize": binarize}
    claim_folder(out, "medseg data convert", root, ("binarize",), **settings)
    journal = Journal(out / _JOURNAL)
    numbering = dataset.labels.to_dict() if dataset.labels is not None else None
    jobs, failed = [], {}
    for case in cases:
        try:
            key = source_key(case, numbering, labels.names, labels.overlap_priority())
        except DataError as error:
            failed[case.id] = str(error)
            continue
        jobs.append(_Job(case, targets[case.id], dataset.labels, labels, case.id not in test, key))
    resumed = resume_each(_write, jobs, journal, workers, "Converting")
    failed |= resumed.failed
    if not resumed.notes:
        first = next(iter(failed.values()), "")
        raise DataError(root, f"none of its {len(failed)} cases could be converted", "", first)
    overlaps = Counter[tuple[str, str]]()
    for triples in resumed.notes.values():
        overlaps.update({(winner, loser): voxels for winner, loser, voxels in triples})
    converted = {id: _describe_case(targets[id], dataset.case(id), labels) for id in resumed.notes}
    description = _describe(out, to, dataset, labels, converted)
    return Converted(description, labels, tuple(sorted(converted)), resumed.reused, failed, dict(overlaps))


def _cases_with_subset(dataset: DatasetIndex) -> list[Case]:
    """Return the cases that are in a subset of the split; warn of the others."""
    split = dataset.split
    used = {*split.train, *split.val, *split.test}
    unused = sorted({case.id for case in dataset.cases} - used)
    if unused:
        listed = ", ".join(unused[:5])
        logger.warning(
            "%s: %d cases are in no subset of the split and are left out: %s", dataset.root, len(unused), listed
        )
    return [case for case in dataset.cases if case.id in used]


def _target(case: Case, out: Path, test: bool, channel: str) -> Case:
    """Return the case with its files in the new layout."""
    images, labels = (nnunet.IMAGES_TS, nnunet.LABELS_TS) if test else (nnunet.IMAGES_TR, nnunet.LABELS_TR)
    label = out / labels / f"{case.id}.nii.gz" if case.masks or case.label is not None else None
    return Case(case.id, out / images / f"{case.id}{channel}.nii.gz", label)


def _refuse_other_files(out: Path, targets: Iterable[Case]) -> None:
    """Refuse a folder with files that would count as cases of the set that is written there.

    Raises:
        DataError: there are such files, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(out, "this is a file, not a folder", "", "Choose another path.")
    expected = {path for target in targets for path in (target.image, target.label)}
    for name in (nnunet.IMAGES_TR, nnunet.LABELS_TR, nnunet.IMAGES_TS, nnunet.LABELS_TS):
        for path in sorted((out / name).glob("*")) if (out / name).is_dir() else ():
            if path not in expected and not path.name.startswith("."):
                problem = "the file does not belong to the data set that is converted"
                raise DataError(path, problem, "", "Choose an empty folder, or remove it.")


def _write(job: _Job) -> list[tuple[str, str, int]]:
    """Write image and label map of a case; return winner, loser and voxels of each overlap."""
    case, target = job.case, job.target
    if job.needs_label and target.label is None:
        raise DataError(f"case {case.id}", "it has neither masks nor a label map to train or validate with")
    log_warnings(read_header(case.image, case.accept)[1])
    merged = read_label(case, job.case_labels, job.labels) if target.label is not None else None
    copy_verified(case.image, target.image)
    if merged is None or target.label is None:
        return []
    write_label_map(target.label, merged.label, case.image, job.labels)
    return [(winner, loser, voxels) for (winner, loser), voxels in merged.overlaps.items()]


def copy_verified(source: Path, target: Path) -> None:
    """Copy an image byte for byte after reading it to its end; a `.nii` is compressed on the way, voxels untouched.

    Raises:
        DataError: the file is no NIfTI, truncated, or its checksum is wrong.
        OutputError: the file cannot be written.
    """
    content = open_nifti(source).content()
    with atomic_path(target) as partial:
        if source.name.lower().endswith(".gz"):
            shutil.copyfile(source, partial)
        else:
            partial.write_bytes(gzip.compress(content, 6, mtime=0))


def _describe_case(target: Case, case: Case, labels: LabelMap) -> Case:
    annotated = None if case.annotated is None else tuple(name for name in labels if name in case.annotated)
    return replace(target, annotated=annotated, patient=case.patient)


def _describe(out: Path, to: str, dataset: DatasetIndex, labels: LabelMap, converted: Mapping[str, Case]) -> Path:
    """Write the file that says which files belong together, last of all."""
    split = Split(*(tuple(id for id in getattr(dataset.split, subset) if id in converted) for subset in SPLITS))
    cases = tuple(converted[id] for id in sorted(converted))
    index = DatasetIndex(out, cases, labels.structures, labels, split)
    if to == "nnunet":
        return nnunet.write_description(index, labels, name=dataset.root.resolve().name)
    write_datalist(out / nnunet.DESCRIPTION, index, labels)
    return out / nnunet.DESCRIPTION
