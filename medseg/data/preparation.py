"""From a data set as it was found to one that training reads: an image and one label map for each case."""

from __future__ import annotations

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
from tqdm import tqdm

from medseg.atomic import atomic_path, writable_folder, write_json
from medseg.cases import Case, Dataset, write_datalist
from medseg.data.layouts import DATALIST, discover
from medseg.data.masks import combine_masks, merge_masks
from medseg.data.nifti import label_dtype, open_image, read_volume, voxels, write_label_map, write_like
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.errors import DataError, LabelError
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

OVERLAPS = ("precedence", "keep")


def open_dataset(
    root: str | Path | None,
    labels: LabelMap,
    cache_dir: str | Path,
    split: Mapping[str, Sequence[str] | None] | None = None,
    overlaps: str = "precedence",
    phantom: Mapping[str, Any] | None = None,
) -> Dataset:
    """The data set under `root`, ready for training: every case with a label map numbered as `labels`.

    Label maps that are not there in that numbering are made once and kept in `cache_dir`, under a name that
    changes with the masks, the structures and the way of merging. The source is never written to.

    Args:
        root: the folder; None for the phantom that comes with medseg.
        labels: the classes of the network.
        cache_dir: where label maps and the phantom are kept.
        split: case ids by side (`train`, `val`, `test`) that overrule the set's own.
        overlaps: `precedence` (one label a voxel) or `keep` (combinations, for multi-label networks).
        phantom: arguments of `PhantomSpec`, used only where `root` is None.

    Raises:
        DataError, LabelError, GeometryError, OutputError: see `discover`, `merge_masks`.
    """
    if overlaps not in OVERLAPS:
        raise DataError("overlaps", f"must be one of {', '.join(OVERLAPS)}", f"'{overlaps}'")
    cache = writable_folder(cache_dir)
    if root is None:
        spec = PhantomSpec(**(phantom or {}))
        root = cache / f"phantom-{spec.digest()}"
        logger.info("No data set was named (dataset_dir): using the phantom that comes with medseg, %s", root)
        write_phantom(root, spec)
    dataset = discover(root).with_split(split)
    unknown = [name for name in labels if name not in dataset.structures]
    if len(unknown) == len(labels) - 1:
        raise LabelError(
            dataset.root, "must have masks of at least one structure of the network", f"none of its {len(unknown)}"
        )
    if unknown:
        logger.warning(
            "%s: no case has a mask of %d of the %d structures: %s",
            dataset.root,
            len(unknown),
            len(labels) - 1,
            ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else ""),
        )
    _warn_of_split(dataset)
    used = {id for side in ("train", "val", "test") for id in getattr(dataset.split, side)}
    todo = [case for case in dataset.cases if case.id in used]
    ready = {case.id: _with_label(case, dataset.labels, labels, cache, overlaps) for case in _bar(todo, "Label maps")}
    return replace(dataset, cases=tuple(ready.get(case.id, case) for case in dataset.cases))


def _bar(cases: Sequence[Case], what: str) -> Any:
    return tqdm(cases, desc=what, unit="case", disable=None, leave=False)


def _warn_of_split(dataset: Dataset) -> None:
    both = dataset.split.both_sides()
    if both:
        logger.warning(
            "%s: %s on both sides of the split: its Dice says whether the network learns, not how good it is",
            dataset.root,
            ", ".join(both),
        )


def _with_label(case: Case, own: LabelMap | None, labels: LabelMap, cache: Path, overlaps: str) -> Case:
    """The case with a label map numbered as `labels`, made where it is not there yet."""
    if case.label is not None and own == labels and overlaps == "precedence":
        return case
    path = cache / f"{case.id}-{_source_key(case, own, labels, overlaps)}.nii.gz"
    side = path.with_name(path.name.replace(".nii.gz", ".json"))
    if not (path.is_file() and (overlaps == "precedence" or side.is_file())):
        read_volume(case.image)  # a damaged image shows here, before training
        if overlaps == "keep":
            _write_combined(path, side, case, labels)
        elif case.masks:
            write_label_map(path, merge_masks(case.image, case.masks, labels).label, case.image, labels)
        else:
            _write_renumbered(path, case, own, labels)
    combinations = tuple(map(tuple, json.loads(side.read_text())["combinations"])) if overlaps == "keep" else None
    return replace(case, label=path, combinations=combinations)


def _source_key(case: Case, own: LabelMap | None, labels: LabelMap, overlaps: str) -> str:
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in case.sources()]
    numbering = own.names if own is not None else None
    key = json.dumps([stats, numbering, labels.names, labels.painting_order(), overlaps])
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _write_combined(path: Path, side: Path, case: Case, labels: LabelMap) -> None:
    if not case.masks:
        raise DataError(
            f"case {case.id}",
            "needs binary masks where overlaps are to be kept",
            "a label map",
            "Train on the folder with the masks, or without overlaps.",
        )
    combined = combine_masks(case.image, case.masks, labels)
    write_like(path, combined.codes, case.image)
    write_json(side, {"combinations": combined.combinations})


def _write_renumbered(path: Path, case: Case, own: LabelMap | None, labels: LabelMap) -> None:
    if case.label is None or own is None:
        raise DataError(f"case {case.id}", "needs masks or a label map", "neither")
    image = open_image(case.label)
    data = np.asarray(voxels(image)).astype(np.int64)
    if data.min() < 0 or data.max() >= len(own):
        raise LabelError(
            f"{case.label}, case {case.id}",
            f"must hold labels from 0 to {len(own) - 1}",
            f"{data.min()} to {data.max()}",
        )
    lookup = np.array([labels.index(name) if name in labels else 0 for name in own.names])
    lookup[0] = 0
    write_label_map(path, lookup.astype(label_dtype(len(labels)))[data], case.image, labels)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made: the datalist, the cases, and the voxels that overlapped by pair of structures."""

    datalist: Path
    cases: tuple[str, ...]
    overlaps: Mapping[tuple[str, str], int]


def prepare(root: str | Path, out: str | Path, structures: str | Sequence[str] = "all") -> Prepared:
    """Write a data set that training reads at once: `images/`, `labels/`, `datalist.json`, `label_map.json`.

    Args:
        root: a data set in any layout that `discover` knows, with binary masks.
        out: where to write; made if need be, and never inside `root`.
        structures: structures or groups to keep, see `LabelMap.totalsegmentator`.

    Raises:
        DataError: `out` lies inside `root`, or a case is broken (nothing of it is left half-written).
        LabelError, GeometryError, OutputError: see `merge_masks`.
    """
    root, out = Path(root), Path(out)
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(out, "must not lie inside the source", str(root), "Choose a folder beside it.")
    dataset = discover(root).with_split()
    labels = LabelMap.totalsegmentator(structures)
    labels = LabelMap([name for name in labels if name in dataset.structures] or list(labels))
    writable_folder(out)
    overlaps: Counter[tuple[str, str]] = Counter()
    cases = []
    for case in _bar(dataset.cases, "Preparing"):
        if not case.masks:
            raise DataError(f"case {case.id}", "needs binary masks to prepare", "none", "It is prepared already.")
        read_volume(case.image)
        merged = merge_masks(case.image, case.masks, labels)
        overlaps.update(merged.overlaps)
        image = out / "images" / f"{case.id}.nii.gz"
        with atomic_path(image) as partial:
            shutil.copyfile(case.image, partial)
        label = write_label_map(out / "labels" / f"{case.id}.nii.gz", merged.label, case.image, labels)
        annotated = tuple(name for name in labels if name not in merged.missing)
        cases.append(Case(case.id, image, label, annotated=annotated))
    ready = Dataset(out, tuple(cases), labels.structures, labels, dataset.split)
    labels.save(out / "label_map.json")
    write_datalist(out / DATALIST, ready, labels)
    return Prepared(out / DATALIST, tuple(case.id for case in cases), dict(overlaps))
