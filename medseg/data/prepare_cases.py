"""A data set made ready once: an image and one label map for each case, figures, and a slice store if wanted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path, remove_partial, writable_folder, write_json
from medseg.cases import Case, DatasetIndex, Split, write_datalist
from medseg.data.datasets import renumbered
from medseg.data.fingerprint import case_statistics, fingerprint
from medseg.data.layouts import DATALIST, discover_volumes
from medseg.data.masks import merge_masks
from medseg.data.nifti import write_label_map, write_volume
from medseg.data.parallel import run_each
from medseg.data.resampling import body_box, crop, resample
from medseg.data.store import IMAGE_SUFFIX, LABEL_SUFFIX, write_store
from medseg.data.volumes import read_volume
from medseg.errors import DataError, LabelError, MedsegError, OutputError, RunError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap

STORE = "store"


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set is to be prepared.

    Args:
        structures: structures or groups to keep, see `DatasetIndex.choose`.
        precedence: structures that win where masks overlap, the first before the second and all before
            those that are not named; among these the smaller structure wins.
        spacing: mm along each axis (RAS) to resample to, 0 or less to leave an axis; None leaves all, and the
            image is then copied as it is.
        crop: whether to cut away what is not body, nor labelled.
        store: whether to write the slice store, too.
        axis: the axis (RAS) along which its slices lie: 2 for axial ones.
    """

    structures: str | tuple[str, ...] = "all"
    precedence: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None
    crop: bool = False
    store: bool = False
    axis: int = 2

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise DataError("axis", "must be 0, 1 or 2", str(self.axis))
        if self.spacing is not None and (len(self.spacing) != 3 or not all(np.isfinite(self.spacing))):
            raise DataError("spacing", "must be three lengths in mm", str(self.spacing))


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Args:
        datalist: the datalist that names it all.
        cases: the ids that are in it.
        overlaps: the voxels that overlapped, by pair of structures: `{(winner, loser): voxels}`.
        failed: why a case is not in it, by id.
        kept: how many cases were there from before.
    """

    datalist: Path
    cases: tuple[str, ...]
    overlaps: Mapping[tuple[str, str], int]
    failed: Mapping[str, str] = field(default_factory=dict)
    kept: int = 0


@dataclass(frozen=True)
class _Job:
    case: Case
    own: LabelMap | None
    labels: LabelMap
    how: PrepareConfig
    out: Path
    key: str
    labelled: bool  # a test case may come without


def prepare(
    root: str | Path,
    out: str | Path,
    how: PrepareConfig | None = None,
    exclude: Mapping[str, str] | None = None,
    workers: int = 0,
) -> Prepared:
    """Write a data set that training reads at once.

    `out` gets `images/`, `labels/`, `cases/` (figures of each), `datalist.json` (MONAI's Decathlon keys),
    `label_map.json`, `fingerprint.json` and, if wanted, `store/`. A case that fails is listed and the rest goes
    on. What was stopped in the middle goes on where it was, and comes out the same to the byte.

    Args:
        root: a data set in any layout that `discover` knows.
        out: where to write; made if need be, and never inside `root`.
        how: what to do with each case.
        exclude: ids to leave out, with the reason.
        workers: processes, see `run_each`.

    Raises:
        DataError: `out` lies inside `root` or holds it; no case could be prepared.
        LabelError: a structure that does not exist.
        OutputError: `out` cannot be written, or is full.
        RunError: another process prepares into `out`, or a worker died.
    """
    root, out, how = Path(root), Path(out), how or PrepareConfig()
    if out.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(out.resolve()):
        raise DataError(out, "must not lie inside the source, nor hold it", str(root), "Choose a folder beside it.")
    dataset = discover_volumes(root).without(exclude or {}).with_split()
    labels = _labels_of(dataset, how)
    writable_folder(out)
    with _alone(out):
        return _prepare(dataset, labels, how, out, workers)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = filelock.FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(out, "must be prepared by one process at a time", "another at it", "Wait for it.") from error
    try:
        remove_partial(out)
        yield
    finally:
        lock.release()


def _prepare(dataset: DatasetIndex, labels: LabelMap, how: PrepareConfig, out: Path, workers: int) -> Prepared:
    jobs = [_job(case, dataset, labels, how, out) for case in dataset.cases]
    todo = [job for job in jobs if _record(job) is None]
    failed: dict[str, str] = {}
    for job, error in run_each(_prepare_case, todo, workers, "Preparing"):
        if isinstance(error, OutputError):
            raise error  # what cannot be written for one case cannot for the others
        if isinstance(error, MedsegError):
            failed[job.case.id] = str(error)
    records = {job.case.id: record for job in jobs if (record := _record(job)) is not None}
    if not records:
        raise DataError(
            dataset.root, "must hold at least one case that can be prepared", "none", next(iter(failed.values()))
        )
    return _finish(out, dataset, labels, how, records, dict(sorted(failed.items())), len(jobs) - len(todo))


def _labels_of(dataset: DatasetIndex, how: PrepareConfig) -> LabelMap:
    labels = dataset.choose(how.structures)
    for name in how.precedence:
        labels.index(name)
    if len(set(how.precedence)) < len(how.precedence):
        raise LabelError("precedence", "must name a structure once", ", ".join(how.precedence))
    return labels


def _job(case: Case, dataset: DatasetIndex, labels: LabelMap, how: PrepareConfig, out: Path) -> _Job:
    stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in case.sources()]
    numbering = dataset.labels.names if dataset.labels is not None else None
    text = json.dumps([case.id, stats, numbering, labels.names, asdict(how)], sort_keys=True)
    labelled = bool(case.masks) or case.label is not None or case.id not in dataset.split.test
    return _Job(case, dataset.labels, labels, how, out, hashlib.sha256(text.encode()).hexdigest()[:16], labelled)


def _files(job: _Job) -> list[Path]:
    id, out = job.case.id, job.out
    files = [out / "images" / f"{id}.nii.gz"]
    if not job.labelled:
        return files
    files.append(out / "labels" / f"{id}.nii.gz")
    if job.how.store:
        files += [out / STORE / f"{id}{IMAGE_SUFFIX}", out / STORE / f"{id}{LABEL_SUFFIX}"]
    return files


def _record(job: _Job) -> dict[str, Any] | None:
    """What was written of this case in the same way and is still whole; None where it must be made."""
    try:
        content = json.loads((job.out / "cases" / f"{job.case.id}.json").read_text(encoding="utf-8"))
        sizes = [path.stat().st_size for path in _files(job)]
    except (OSError, ValueError):
        return None
    return dict(content) if content.get("key") == job.key and content.get("sizes") == sizes else None


def _prepare_case(job: _Job) -> None:
    """Make one case; its record is written last and says that all the rest is there."""
    case, labels, how = job.case, job.labels, job.how
    hu, grid = read_volume(case.image)
    files, empty = _files(job), np.zeros(grid.shape, np.uint8)
    label, overlaps, missing = _label(job) if job.labelled else (empty, {}, ())
    if how.crop or how.spacing is not None:
        hu, label, grid = _changed(hu, label, grid, how)
        write_volume(files[0], hu, grid)
    elif case.image.name.lower().endswith(".nii.gz"):
        with atomic_path(files[0]) as partial:
            shutil.copyfile(case.image, partial)
    else:
        write_volume(files[0], hu, grid)
    record: dict[str, Any] = {"key": job.key, "overlaps": [], "annotated": []}
    if job.labelled:
        write_label_map(files[1], label, files[0], labels)
        if how.store:
            write_store(job.out / STORE, case.id, hu, label, grid, labels, how.axis)
        annotated = case.annotated if case.annotated is not None else tuple(labels)
        record |= {
            "overlaps": [[winner, loser, voxels] for (winner, loser), voxels in sorted(overlaps.items())],
            "annotated": [name for name in labels if name in annotated and name not in missing],
            **case_statistics(hu, label, grid, labels),
        }
    record["sizes"] = [path.stat().st_size for path in files]
    write_json(job.out / "cases" / f"{case.id}.json", record)


def _label(job: _Job) -> tuple[npt.NDArray[Any], Mapping[tuple[str, str], int], Sequence[str]]:
    if not job.case.masks:
        return renumbered(job.case, job.own, job.labels), {}, ()
    merged = merge_masks(job.case.image, job.case.masks, job.labels, job.how.precedence)
    return merged.label, merged.overlaps, merged.missing


def _changed(
    hu: npt.NDArray[Any], label: npt.NDArray[Any], grid: Grid, how: PrepareConfig
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Grid]:
    """Image and labels cropped and resampled as asked for, in RAS; HU rounded where they were whole before."""
    (hu, label), grid = to_ras([hu, label], grid)
    if how.crop:
        (hu, label), grid = crop([hu, label], grid, body_box(hu, label, grid))
    if how.spacing is not None:
        whole = hu.dtype if hu.dtype.kind in "iu" else None
        (hu, label), grid = resample([hu.astype(np.float32), label], grid, how.spacing)
        hu = np.rint(hu).astype(whole) if whole is not None else hu
    return hu, label, grid


def _finish(
    out: Path,
    dataset: DatasetIndex,
    labels: LabelMap,
    how: PrepareConfig,
    records: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
    kept: int,
) -> Prepared:
    """Write what speaks of the set as a whole."""
    cases, overlaps = [], Counter[tuple[str, str]]()
    for id, record in sorted(records.items()):
        label = out / "labels" / f"{id}.nii.gz" if "voxels" in record else None
        annotated = tuple(record["annotated"]) if label is not None else None
        cases.append(Case(id, out / "images" / f"{id}.nii.gz", label, annotated=annotated))
        overlaps.update({(winner, loser): voxels for winner, loser, voxels in record["overlaps"]})
    split = Split(*(tuple(id for id in side if id in records) for side in _sides(dataset.split)))
    store = out / STORE if how.store else None
    ready = replace(
        dataset, root=out, cases=tuple(cases), structures=labels.structures, labels=labels, split=split, store=store
    )
    figures = fingerprint([record for record in records.values() if "voxels" in record], labels)
    pairs = [[winner, loser, voxels] for (winner, loser), voxels in overlaps.most_common()]
    write_json(out / "fingerprint.json", {**figures, "overlaps": pairs, "failed": failed, "prepared": asdict(how)})
    labels.save(out / "label_map.json")
    write_datalist(out / DATALIST, ready, labels)
    return Prepared(out / DATALIST, tuple(sorted(records)), dict(overlaps), failed, kept)


def _sides(split: Split) -> tuple[tuple[str, ...], ...]:
    return split.train, split.val, split.test
