"""From a data set as it was found to one that training reads: an image and one label map for each case."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from medseg.atomic import writable_folder, write_json
from medseg.cases import Case, DatasetIndex
from medseg.data.case_list import read_exclude
from medseg.data.layouts import discover
from medseg.data.masks import combine_masks, merge_masks
from medseg.data.nifti import label_dtype, write_label_map, write_like
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.data.slice_labels import open_slices
from medseg.data.slice_phantom import SlicePhantomSpec, write_slice_phantom
from medseg.data.store import read_store
from medseg.data.volumes import read_grid, read_volume
from medseg.errors import ConfigError, DataError, LabelError
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
    use_store: bool | None = None,
    exclude: str | Path | None = None,
    slices: bool = False,
    patient: str | None = None,
) -> DatasetIndex:
    """The data set under `root`, ready for training: every case with a label map numbered as `labels`.

    Label maps that are not there in that numbering are made once and kept in `cache_dir`, under a name that
    changes with the masks, the structures and the way of merging. The source is never written to.

    Args:
        root: the folder; None for the phantom that comes with medseg.
        labels: the classes of the network.
        cache_dir: where label maps and the phantom are kept.
        split: case ids by side (`train`, `val`, `test`) that overrule the set's own.
        overlaps: `precedence` (one label a voxel) or `keep` (combinations, for multi-label networks).
        phantom: arguments of `PhantomSpec` (of `SlicePhantomSpec` for slices), used only where `root` is None.
        use_store: whether training reads the set's slice store; None for wherever it has one.
        exclude: a file that lists cases to leave out, as `medseg data check --write-exclude` writes it.
        slices: whether the network takes 2D slices from pictures; else volumes.
        patient: of slices: a pattern that finds the patient in a picture's name.

    Raises:
        ConfigError: a store is asked for and the set has none, or overlaps are to be kept; volumes where slices
            are wanted, or the reverse.
        DataError, LabelError, GeometryError, OutputError: see `discover`, `merge_masks`.
    """
    if overlaps not in OVERLAPS:
        raise DataError("overlaps", f"must be one of {', '.join(OVERLAPS)}", f"'{overlaps}'")
    cache = writable_folder(cache_dir)
    if root is None:
        spec = (SlicePhantomSpec if slices else PhantomSpec)(**(phantom or {}))
        root = cache / f"phantom-{spec.digest()}"
        logger.info("No data set was named (dataset_dir): using the phantom that comes with medseg, %s", root)
        if isinstance(spec, SlicePhantomSpec):
            write_slice_phantom(root, spec)
        else:
            write_phantom(root, spec)
    dataset = discover(root, patient)
    if slices != (dataset.palette is not None):
        wanted, found = ("2D slices", "volumes") if slices else ("volumes", "2D slices")
        raise ConfigError(dataset.root, f"must hold {wanted}, for that is what the network takes", found)
    if exclude is not None:
        dataset = dataset.without(read_exclude(exclude))
    dataset = _with_store(dataset.with_split(split), use_store, overlaps)
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
    if slices:
        return open_slices(dataset, labels, cache, overlaps == "keep")
    sides = ("val", "test") if dataset.store is not None else ("train", "val", "test")
    used = {id for side in sides for id in getattr(dataset.split, side)}
    bare = {case.id for case in dataset.cases if not case.masks and case.label is None}
    used -= bare & set(dataset.split.test)  # test images of the Decathlon and of nnU-Net come without labels
    todo = [case for case in dataset.cases if case.id in used]
    ready = {case.id: _with_label(case, dataset.labels, labels, cache, overlaps) for case in _bar(todo, "Label maps")}
    # A label map that was not renumbered is not given out: its numbers may mean something else.
    return replace(dataset, cases=tuple(ready.get(case.id, replace(case, label=None)) for case in dataset.cases))


def _with_store(dataset: DatasetIndex, use_store: bool | None, overlaps: str) -> DatasetIndex:
    """The data set with its store, if training shall read it, else without."""
    if use_store and (dataset.store is None or overlaps == "keep"):
        why = "overlaps to be kept" if overlaps == "keep" else f"none in {dataset.root}"
        raise ConfigError(
            "use_store", "needs a data set with a slice store", why, "Make one: medseg data prepare --store"
        )
    return replace(dataset, store=None) if use_store is False or overlaps == "keep" else dataset


def _bar(cases: Sequence[Case], what: str) -> Any:
    return tqdm(cases, desc=what, unit="case", disable=None, leave=False)


def _warn_of_split(dataset: DatasetIndex) -> None:
    both = dataset.split.both_sides()
    if both:
        logger.warning(
            "%s: %s on both sides of the split: its Dice says whether the network learns, not how good it is",
            dataset.root,
            ", ".join(both),
        )
    patients = dataset.patients
    held_out = {patients[id] for id in (*dataset.split.val, *dataset.split.test) if id in patients}
    shared = sorted(held_out & {patients[id] for id in dataset.split.train if id in patients})
    if shared:
        logger.warning(
            "%s: by their names %d patients stand on both sides of the split, %s first: scores would be too good",
            dataset.root,
            len(shared),
            shared[0],
        )


def annotated_classes(case: Case, labels: LabelMap) -> npt.NDArray[np.bool_]:
    """Which classes of the network somebody looked for in a case, `(len(labels),)`; the background always.

    A case of which nothing is known counts as annotated in full.
    """
    known = [case.annotated is None or name in case.annotated for name in labels]
    return np.array([True, *known])


def training_items(
    dataset: DatasetIndex, labels: LabelMap, spacing: Sequence[float] = (-1, -1, -1), context: int = 0
) -> list[dict[str, Any]]:
    """What training draws from: the volumes in the slice store where the data set has one, else the files.

    Every item says which classes are annotated in it (`annotated`, bool, `(len(labels),)`). A structure that no case
    of the training side has annotated counts as looked for and not found: nothing could keep a network from
    predicting it anywhere otherwise. A case in which nobody looked for any of the structures is left out, with a
    warning.

    Args:
        dataset: as `open_dataset` gives it.
        labels: the classes of the network.
        spacing: mm along each axis that the bundle trains at, 0 or less for any; a store must have it.
        context: of slices: how many neighbours on each side an item names.

    Raises:
        ConfigError: the store lies at another spacing.
        DataError: nothing is annotated in any case; see `DatasetIndex.items` and `read_store`.
    """
    known = {case.id: annotated_classes(case, labels) for case in dataset.side("train")}
    ids = [id for id, row in known.items() if row[1:].any()]
    if not ids:
        raise DataError(
            dataset.root, "must have a training case in which a structure of the network is annotated", "none"
        )
    if len(ids) < len(known):
        left = sorted(set(known) - set(ids))
        logger.warning(
            "%s: left out of training, for nobody annotated any of the network's structures there: %d cases: %s",
            dataset.root,
            len(left),
            ", ".join(left[:8]) + (", ..." if len(left) > 8 else ""),
        )
    nowhere = ~np.any(list(known.values()), axis=0)
    store = dataset.store
    found = dataset.items("train", context=context) if store is None else _stored_items(dataset, store, labels, spacing)
    return [{**item, "annotated": known[item["case"]] | nowhere} for item in found if item["case"] in ids]


def _stored_items(
    dataset: DatasetIndex, store: Path, labels: LabelMap, spacing: Sequence[float]
) -> list[dict[str, Any]]:
    items = []
    for case in dataset.side("train"):
        held = read_store(store, case.id, labels)
        off = [new for new, old in zip(spacing, held.grid.spacing, strict=True) if new > 0 and abs(new - old) > 1e-3]
        if off:
            raise ConfigError(
                f"slice store of case {case.id}",
                f"must have the spacing {list(spacing)} that the bundle trains at",
                ", ".join(f"{length:.4g}" for length in held.grid.spacing),
                f"Prepare with --spacing {' '.join(f'{one:g}' for one in spacing)}, or train with use_store=false.",
            )
        items.append({"image": held.image, "label": held.label, "slice_index": held.index, "case": case.id})
    return items


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
    key = json.dumps([stats, numbering, labels.names, labels.overlap_priority(), overlaps])
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
    write_label_map(path, renumbered(case, own, labels), case.image, labels)


def renumbered(case: Case, own: LabelMap | None, labels: LabelMap) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The label map of a case, `(I, J, K)`, in another numbering; structures that it does not hold become background.

    Raises:
        DataError: the case has no label map, or it cannot be read.
        GeometryError: it does not lie where the image lies.
        LabelError: it holds a value that is no whole number, or has no name.
    """
    if case.label is None or own is None:
        raise DataError(f"case {case.id}", "needs masks or a label map", "neither")
    data, grid = read_volume(case.label)
    read_grid(case.image).require(grid, case.label, case.image)
    return renumber(data, own, labels, f"{case.label}, case {case.id}")


def renumber(
    values: npt.NDArray[Any], own: LabelMap, labels: LabelMap, thing: object
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return label values in another numbering, matched by name; structures that `labels` lacks become background.

    Args:
        values: class indices of any number type and shape.
        own: what they mean.
        labels: the numbering that comes out.
        thing: what errors name.

    Raises:
        LabelError: a value that is no whole number, or has no name in `own`.

    >>> renumber(np.array([0, 1, 2]), LabelMap(["liver", "spleen"]), LabelMap(["spleen"]), "mask").tolist()
    [0, 0, 1]
    """
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low >= 0 and high < len(own)):  # NaN fails, too
        raise LabelError(thing, f"labels must be between 0 and {len(own) - 1}", f"got {low:g} to {high:g}")
    indices = values.astype(label_dtype(len(own)), copy=False)
    if not np.array_equal(indices, values):
        fix = "It may have been resampled with interpolation; label maps need the nearest neighbor."
        raise LabelError(thing, "label values must be whole numbers", fix=fix)
    lookup = np.array([labels.index(name) if name in labels else 0 for name in own.names])
    lookup[0] = 0
    return np.asarray(lookup.astype(label_dtype(len(labels)))[indices])
