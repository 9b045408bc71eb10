"""Prepare a data set once: an image and one label map for each case, statistics, and a slice store if wanted."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path, claim_folder, remove_partial, write_json
from medseg.cases import SPLITS, Case, DatasetIndex, Split
from medseg.data.case_jobs import Journal, Resumed, resume_each, source_key
from medseg.data.datasets import read_label
from medseg.data.fingerprint import case_statistics, fingerprint
from medseg.data.layouts import discover_volumes
from medseg.data.layouts.datalist import NAME, write_datalist
from medseg.data.masks import Merged
from medseg.data.nifti_writer import write_label_map, write_volume
from medseg.data.resample import body_box, crop, resample
from medseg.data.scan_rules import log_warnings
from medseg.data.store import IMAGE_SUFFIX, LABEL_SUFFIX, write_store
from medseg.data.volumes import read_scan
from medseg.errors import DataError, LabelError, RunError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap

STORE = "store"
JOURNAL = "cases.jsonl"


@dataclass(frozen=True)
class PrepareConfig:
    """Say how a data set is prepared.

    Args:
        structures: structures or groups to keep, see `DatasetIndex.choose`.
        precedence: structures that win where masks overlap, the first before the second and all before
            those that are not named; among these the smaller structure wins.
        spacing: mm along each axis (RAS) to resample to, 0.01 to 100, or -1 to leave an axis; None leaves all, and
            the image is then copied as it is.
        crop: whether to cut away what is neither body nor labeled.
        store: whether to write the slice store, too.
        axis: the axis (RAS) along which its slices lie: 2 for axial ones.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes scans and label maps that break a rule, by its code, see `medseg.data.scan_rules`; what is
            written breaks none.

    Raises:
        DataError: an axis or a spacing that does not exist.
    """

    structures: str | tuple[str, ...] = "all"
    precedence: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None
    crop: bool = False
    store: bool = False
    axis: int = 2
    binarize: float | None = None
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise DataError("axis", "it must be 0, 1 or 2", f"got {self.axis}")
        lengths = self.spacing or (-1, -1, -1)
        if len(lengths) != 3 or not all(length == -1 or 0.01 <= length <= 100 for length in lengths):
            came = f"got {', '.join(f'{length:g}' for length in lengths)}"
            raise DataError("spacing", "three lengths of 0.01 to 100 mm are needed, or -1 for an axis to leave", came)


@dataclass(frozen=True)
class Prepared:
    """Summarize what `prepare` wrote.

    Args:
        datalist: the datalist that names it all.
        cases: the ids that are in it.
        overlaps: the voxels that overlapped, by pair of structures: `{(winner, loser): voxels}`.
        failed: the reason for each case that is not in it, by id.
        reused: how many cases were there from an earlier run.
    """

    datalist: Path
    cases: tuple[str, ...]
    overlaps: Mapping[tuple[str, str], int]
    failed: Mapping[str, str] = field(default_factory=dict)
    reused: int = 0


@dataclass(frozen=True)
class _Job:
    case: Case
    case_labels: LabelMap | None
    labels: LabelMap
    config: PrepareConfig
    out: Path
    key: str
    labeled: bool  # a test case may come without labels

    def files(self) -> list[Path]:
        """List what the job writes: image, label map, stored image, stored label map."""
        id, out = self.case.id, self.out
        files = [out / "images" / f"{id}.nii.gz"]
        if self.labeled:
            files.append(out / "labels" / f"{id}.nii.gz")
            if self.config.store:
                files += [out / STORE / f"{id}{IMAGE_SUFFIX}", out / STORE / f"{id}{LABEL_SUFFIX}"]
        return files


def prepare(
    root: str | Path,
    out: str | Path,
    config: PrepareConfig | None = None,
    exclude: Mapping[str, str] | None = None,
    workers: int = 0,
) -> Prepared:
    """Write a data set that training reads without further work.

    `out` gets `images/`, `labels/`, `datalist.json` (MONAI's Decathlon keys), `label_map.json`, `fingerprint.json`,
    `cases.jsonl` (statistics of each case) and, if wanted, `store/`. A case that fails is listed and the others are
    written. A stopped preparation resumes, and the result is the same to the byte.

    Args:
        root: a data set in any layout that `discover` knows.
        out: the folder to write; never inside `root`.
        config: what to do with each case.
        exclude: ids to leave out, with the reason.
        workers: processes, see `run_each`.

    Raises:
        DataError: `out` lies inside `root` or holds it; no case could be prepared.
        LabelError: a structure that does not exist.
        OutputError: `out` holds something else, see `claim_folder`, cannot be written, or is full.
        RunError: another process prepares into `out`, or a worker died.

    Example:
        prepare("Totalsegmentator_dataset", "prepared", PrepareConfig("organs", spacing=(1.5, 1.5, -1), store=True))
    """
    root, out, config = Path(root), Path(out), config or PrepareConfig()
    if out.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(out.resolve()):
        problem = f"the folder must not lie inside the source {root}, nor hold it"
        raise DataError(out, problem, "", "Choose a folder beside it.")
    dataset = discover_volumes(root, exclude or {}, config.binarize, config.accept).with_split()
    labels = _choose_labels(dataset, config)
    settings = {name: value for name, value in asdict(config).items() if name not in ("store", "axis")}
    claim_folder(out, "medseg data prepare", root, ("binarize", "accept"), **settings)
    with _lock(out):
        return _prepare(dataset, labels, config, out, workers)


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(out, "another process prepares into this folder", "", "Wait for it.") from error
    try:
        remove_partial(out)
        yield
    finally:
        lock.release()


def _choose_labels(dataset: DatasetIndex, config: PrepareConfig) -> LabelMap:
    labels = dataset.choose(config.structures)
    for name in config.precedence:
        labels.index(name)
    if len(set(config.precedence)) < len(config.precedence):
        raise LabelError("precedence", "a structure is named twice", ", ".join(config.precedence))
    return labels


def _prepare(dataset: DatasetIndex, labels: LabelMap, config: PrepareConfig, out: Path, workers: int) -> Prepared:
    journal = Journal(out / JOURNAL)
    numbering = dataset.labels.to_dict() if dataset.labels is not None else None
    jobs = []
    for case in dataset.cases:
        labeled = bool(case.masks) or case.label is not None or case.id not in dataset.split.test
        key = source_key(case, numbering, labels.names, asdict(config))
        jobs.append(_Job(case, dataset.labels, labels, config, out, key, labeled))
    resumed = resume_each(_prepare_case, jobs, journal, workers, "Preparing")
    if not resumed.notes:
        first = next(iter(resumed.failed.values()))
        raise DataError(dataset.root, f"none of its {len(resumed.failed)} cases could be prepared", "", first)
    journal.compact(resumed.notes)
    return _finish(out, dataset, labels, config, resumed)


def _prepare_case(job: _Job) -> dict[str, Any]:
    """Write the files of one case and return its statistics."""
    case, labels, config = job.case, job.labels, job.config
    scan = read_scan(case.image, case.accept)
    hu, grid = scan.voxels, scan.grid
    log_warnings(scan.warnings)
    files = job.files()
    merged = Merged(np.zeros(grid.shape, np.uint8), grid)
    if job.labeled:
        merged = read_label(case, job.case_labels, labels, config.precedence)
    label: npt.NDArray[Any] = merged.label
    if config.crop or config.spacing is not None:
        hu, label, grid = _crop_and_resample(hu, label, grid, config)
        write_volume(files[0], hu, grid)
    elif case.image.name.lower().endswith(".nii.gz") and not scan.warnings:
        with atomic_path(files[0]) as partial:
            shutil.copyfile(case.image, partial)
    else:
        write_volume(files[0], hu, grid)
    if not job.labeled:
        return {"overlaps": [], "annotated": []}
    write_label_map(files[1], label, files[0], labels)
    if config.store:
        write_store(job.out / STORE, case.id, hu, label, grid, labels, config.axis)
    annotated = case.annotated if case.annotated is not None else tuple(labels)
    return {
        "overlaps": [[winner, loser, voxels] for (winner, loser), voxels in sorted(merged.overlaps.items())],
        "annotated": [name for name in labels if name in annotated and name not in merged.missing],
        **case_statistics(hu, label, grid, labels),
    }


def _crop_and_resample(
    hu: npt.NDArray[Any], label: npt.NDArray[Any], grid: Grid, config: PrepareConfig
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Grid]:
    """Return image and labels in RAS, cropped and resampled; HU are rounded if they were integers before."""
    (hu, label), grid = to_ras([hu, label], grid)
    if config.crop:
        (hu, label), grid = crop([hu, label], grid, body_box(hu, label, grid))
    if config.spacing is not None:
        dtype = hu.dtype
        (hu, label), grid = resample([hu.astype(np.float32), label], grid, config.spacing)
        hu = np.rint(hu).astype(dtype) if dtype.kind in "iu" else hu
    return hu, label, grid


def _finish(out: Path, dataset: DatasetIndex, labels: LabelMap, config: PrepareConfig, resumed: Resumed) -> Prepared:
    """Write the files that describe the data set: fingerprint, label map, datalist."""
    records, failed = resumed.notes, dict(sorted(resumed.failed.items()))
    cases, overlaps = [], Counter[tuple[str, str]]()
    for id, record in sorted(records.items()):
        label = out / "labels" / f"{id}.nii.gz" if "voxels" in record else None
        annotated = tuple(record["annotated"]) if label is not None else None
        image, patient = out / "images" / f"{id}.nii.gz", dataset.case(id).patient
        cases.append(Case(id, image, label, annotated=annotated, patient=patient))
        overlaps.update({(winner, loser): voxels for winner, loser, voxels in record["overlaps"]})
    split = Split(*(tuple(id for id in getattr(dataset.split, subset) if id in records) for subset in SPLITS))
    store = out / STORE if config.store else None
    prepared = DatasetIndex(out, tuple(cases), labels.structures, labels, split, store)
    statistics = fingerprint([record for record in records.values() if "voxels" in record], labels)
    pairs = [[winner, loser, voxels] for (winner, loser), voxels in overlaps.most_common()]
    write_json(
        out / "fingerprint.json", {**statistics, "overlaps": pairs, "failed": failed, "prepared": asdict(config)}
    )
    labels.save(out / "label_map.json")
    write_datalist(out / NAME, prepared, labels)
    return Prepared(out / NAME, tuple(sorted(records)), dict(overlaps), failed, len(resumed.reused))
