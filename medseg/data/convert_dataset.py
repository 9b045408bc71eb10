"""From any layout to another: raw nnU-Net, or a folder of the Medical Segmentation Decathlon.

Images are copied byte for byte, label maps keep every voxel. Nothing is resampled, reoriented or cropped.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path, writable_folder
from medseg.cases import SPLITS, Case, DatasetIndex, Split, write_datalist
from medseg.data import nnunet
from medseg.data.datasets import renumbered
from medseg.data.gzip_io import read_decompressed
from medseg.data.journal import Journal
from medseg.data.layouts import discover_volumes
from medseg.data.masks import merge_masks
from medseg.data.nifti import open_image, write_label_map
from medseg.data.parallel import run_each
from medseg.data.volumes import read_grid
from medseg.errors import DataError, MedsegError, OutputError, did_you_mean
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

FORMATS = ("nnunet", "datalist")
_JOURNAL = ".conversion.jsonl"


@dataclass(frozen=True)
class Converted:
    """What `convert` made.

    Args:
        description: the `dataset.json` that was written.
        labels: the numbering of the label maps.
        cases: the cases that are in it.
        kept: those of them that were there already, from an earlier run.
        failed: what was wrong with the cases that are not.
        overlaps: voxels in which a structure gave way to another: `{(winner, loser): voxels}`.
    """

    description: Path
    labels: LabelMap
    cases: tuple[str, ...]
    kept: tuple[str, ...]
    failed: Mapping[str, str]
    overlaps: Mapping[tuple[str, str], int]


def convert(
    root: str | Path, out: str | Path, to: str, structures: str | Sequence[str] = "all", workers: int = 0
) -> Converted:
    """Write the data set under `root` to `out` in another layout.

    A conversion that was stopped goes on where it stood: files that were finished from the same sources are
    kept. A case that is broken is left out and listed; the others are written.

    Args:
        root: a data set in any layout that `discover` knows.
        out: an empty folder, a new one, or that of an earlier conversion of the same set.
        to: `nnunet` (imagesTr, labelsTr, imagesTs, dataset.json, splits_final.json) or `datalist` (the same
            folders with the Decathlon's dataset.json).
        structures: which to keep: names, or groups of TotalSegmentator's. Their label values follow the order
            in which the set has them, without a gap.
        workers: processes, see `run_each`; 0 or 1 does everything in this one.

    Raises:
        DataError: `out` lies inside `root` or holds something else; no case could be converted.
        LabelError: a structure that the set does not have.
        OutputError: the place cannot be written.
    """
    root, out = Path(root), Path(out)
    if to not in FORMATS:
        raise DataError(f"layout '{to}'", f"must be one of {', '.join(FORMATS)}", f"'{to}'", did_you_mean(to, FORMATS))
    source = root if root.is_dir() else root.parent
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(out, "must not lie inside the source", str(source), "Choose a folder beside it.")
    dataset = discover_volumes(root).with_split()
    labels = dataset.choose(structures)
    sides = _sides(dataset)
    channel = nnunet.CHANNEL if to == "nnunet" else ""
    targets = {id: _target(dataset.case(id), out, test, channel) for id, test in sides.items()}
    _refuse_strangers(out, targets.values())
    writable_folder(out)
    journal = Journal(out / _JOURNAL)
    jobs, kept, failed = [], [], {}
    notes: dict[str, list[tuple[str, str, int]]] = {}
    for id, target in targets.items():
        case = dataset.case(id)
        try:
            job = _Job(case, target, dataset.labels, labels, not sides[id], _key(case, dataset.labels, labels))
        except DataError as error:
            failed[id] = str(error)
            continue
        found = journal.get(id, job.key, target.sources())
        if found is None:
            jobs.append(job)
        else:
            notes[id] = found
            kept.append(id)
    for job, result in run_each(_write, jobs, workers, "Converting"):
        if isinstance(result, OutputError):
            raise result
        if isinstance(result, MedsegError):
            failed[job.case.id] = str(result)
            continue
        journal.add(job.case.id, job.key, job.target.sources(), result)
        notes[job.case.id] = result
    overlaps = Counter[tuple[str, str]]()
    for note in notes.values():
        overlaps.update({(winner, loser): voxels for winner, loser, voxels in note})
    done = {id: replace(targets[id], annotated=_annotated(dataset.case(id), labels)) for id in notes}
    if not done:
        raise DataError(
            root, "must hold at least one whole case", f"{len(failed)} broken ones", next(iter(failed.values()), "")
        )
    description = _describe(out, to, dataset, labels, done)
    return Converted(description, labels, tuple(sorted(done)), tuple(kept), failed, dict(overlaps))


def _sides(dataset: DatasetIndex) -> dict[str, bool]:
    """Every case on a side of the split, in order, with whether it is a test case."""
    split = dataset.split
    learned = {*split.train, *split.val}
    both = sorted(learned & set(split.test))
    if both:
        raise DataError(dataset.root, "must keep test cases apart from the others", f"{', '.join(both[:5])} on both")
    left = sorted({case.id for case in dataset.cases} - learned - set(split.test))
    if left:
        logger.warning("%s: %d cases are on no side of the split, left out: %s", dataset.root, len(left), left[:5])
    return {case.id: case.id in split.test for case in dataset.cases if case.id not in left}


def _target(case: Case, out: Path, test: bool, channel: str) -> Case:
    """The case as it will lie in `out`."""
    images, labels = (nnunet.IMAGES_TS, nnunet.LABELS_TS) if test else (nnunet.IMAGES_TR, nnunet.LABELS_TR)
    label = out / labels / f"{case.id}.nii.gz" if case.masks or case.label is not None else None
    return Case(case.id, out / images / f"{case.id}{channel}.nii.gz", label)


def _refuse_strangers(out: Path, targets: Any) -> None:
    """See that `out` holds nothing that would count as a case of the set that is written there.

    Raises:
        DataError: it does, or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(out, "must be a folder", "a file", "Choose another place.")
    ours = {path for target in targets for path in (target.image, target.label)}
    for name in (nnunet.IMAGES_TR, nnunet.LABELS_TR, nnunet.IMAGES_TS, nnunet.LABELS_TS):
        for path in sorted((out / name).glob("*")) if (out / name).is_dir() else ():
            if path not in ours and not path.name.startswith("."):
                raise DataError(
                    path,
                    "must be a file of the data set that is converted",
                    "another",
                    "Choose an empty folder, or remove it.",
                )


def _key(case: Case, own: LabelMap | None, labels: LabelMap) -> str:
    """A hash of what the files of a case are made from."""
    try:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in case.sources()]
    except OSError as error:
        raise DataError(error.filename, "must exist", str(error)) from error
    key = json.dumps([stats, own.names if own is not None else None, labels.names, labels.overlap_priority()])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Job:
    """One case to convert: from where, to where, how its labels are numbered here and there."""

    case: Case
    target: Case
    own: LabelMap | None
    labels: LabelMap
    needs_label: bool
    key: str


def _write(job: _Job) -> list[tuple[str, str, int]]:
    """Write image and label map of a case; winner, loser and voxels of what overlapped."""
    case, target = job.case, job.target
    if job.needs_label and target.label is None:
        raise DataError(f"case {case.id}", "needs masks or a label map to train or validate", "neither")
    read_grid(case.image)
    overlaps: Mapping[tuple[str, str], int] = {}
    label: npt.NDArray[Any] | None = None
    if case.masks:
        merged = merge_masks(case.image, case.masks, job.labels)
        label, overlaps = merged.label, merged.overlaps
    elif case.label is not None:
        label = renumbered(case, job.own, job.labels)
    copy_whole(case.image, target.image)
    if label is not None and target.label is not None:
        write_label_map(target.label, label, case.image, job.labels)
    return [(winner, loser, voxels) for (winner, loser), voxels in overlaps.items()]


def copy_whole(source: Path, target: Path) -> None:
    """Copy an image byte for byte after reading it to its end; a `.nii` is compressed on the way, voxels untouched.

    Raises:
        DataError: the file is no NIfTI, cut short, or its checksum is wrong.
        OutputError: the place cannot be written.
    """
    image = open_image(source)
    needed = int(image.dataobj.offset) + int(np.prod(image.shape)) * int(image.dataobj.dtype.itemsize)
    content = read_decompressed(source, at_least=needed)
    if len(content) < needed:
        raise DataError(source, f"must be a whole NIfTI file of {needed} bytes", str(len(content)), "Copy it again.")
    with atomic_path(target) as partial:
        if source.name.lower().endswith(".gz"):
            shutil.copyfile(source, partial)
        else:
            partial.write_bytes(gzip.compress(content, 6, mtime=0))


def _annotated(case: Case, labels: LabelMap) -> tuple[str, ...] | None:
    if case.annotated is None:
        return None
    return tuple(name for name in labels if name in case.annotated)


def _describe(out: Path, to: str, dataset: DatasetIndex, labels: LabelMap, done: Mapping[str, Case]) -> Path:
    """Write what says which files belong together, last of all."""
    train, val, test = (tuple(id for id in getattr(dataset.split, side) if id in done) for side in SPLITS)
    cases = tuple(done[id] for id in sorted(done))
    made = DatasetIndex(out, cases, labels.structures, labels, Split(train, val, test))
    if to == "nnunet":
        return nnunet.write_description(made, labels, name=dataset.root.resolve().name)
    write_datalist(out / nnunet.DESCRIPTION, made, labels)
    return out / nnunet.DESCRIPTION
