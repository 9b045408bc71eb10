"""Open a data set for training: an image and one label map for each case."""

from __future__ import annotations

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
from medseg.cases import SPLITS, Case, DatasetIndex
from medseg.data.case_jobs import source_key
from medseg.data.case_list import read_exclude
from medseg.data.classes import require_learned
from medseg.data.layouts import discover
from medseg.data.masks import Merged, combine_masks, label_values, merge_masks
from medseg.data.nifti_writer import label_dtype, write_label_map, write_like
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.data.slice_labels import open_slices
from medseg.data.slice_phantom import SlicePhantomSpec, write_slice_phantom
from medseg.data.store import read_store
from medseg.data.subsets import check_subsets, require_apart
from medseg.data.volumes import read_grid, read_volume
from medseg.errors import ConfigError, DataError
from medseg.findings import names_of
from medseg.grid import Grid
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
    ignore_labels: str | Sequence[str] = (),
    allow_repeats: bool = False,
    training: bool = True,
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> DatasetIndex:
    """Return the data set under `root`, ready for training: every case with a label map numbered as `labels`.

    Label maps that do not exist in that numbering are made once and cached in `cache_dir`, under a name that
    changes with the masks, the structures and the way of merging. The source is never written to.

    Args:
        root: the folder; None for the phantom that comes with medseg.
        labels: the classes of the network.
        cache_dir: the folder for label maps and the phantom.
        split: case ids or patients by subset (`train`, `val`, `test`) that overrule the set's own.
        overlaps: `precedence` (one label per voxel) or `keep` (combinations, for multi-label networks).
        phantom: arguments of `PhantomSpec` (of `SlicePhantomSpec` for slices), used only if `root` is None.
        use_store: whether training reads the set's slice store; None for yes if it has one.
        exclude: a file that lists cases to leave out, as `medseg data check --write-exclude` writes it.
        slices: whether the network takes 2D slices from images; else volumes.
        patient: of slices: a pattern that finds the patient in an image's name.
        ignore_labels: labels of the set that the network does not learn and takes for background.
        allow_repeats: whether a case may train and validate, see `medseg.data.subsets.require_apart`.
        training: whether it is to train, and not only to be evaluated: checks labels and split, see
            `medseg.data.classes.require_learned` and `medseg.data.subsets.check_subsets`.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes scans and label maps that break a rule, by its code, see `medseg.data.scan_rules`.

    Raises:
        ConfigError: a store is required and the set has none, or overlaps are to be kept; volumes instead of slices, or
            the reverse.
        DataError: a case, a patient or a picture is in two subsets of the split, or all masks are empty; see also
            `discover`.
        LabelError: a label that would be taught as background; GeometryError, OutputError: see `discover`,
            `merge_masks`.
    """
    if overlaps not in OVERLAPS:
        raise DataError("overlaps", f"it must be one of {', '.join(OVERLAPS)}", f"got '{overlaps}'")
    cache = writable_folder(cache_dir)
    if root is None:
        root = _write_phantom(cache, phantom or {}, slices)
    dataset = discover(root, patient, read_exclude(exclude) if exclude is not None else (), binarize, accept)
    if slices != (dataset.class_colors is not None):
        needed, present = ("2D slices", "volumes") if slices else ("volumes", "2D slices")
        raise ConfigError(dataset.root, f"the network takes {needed}, but the data set consists of {present}")
    dataset = _with_store(dataset.with_split(split), use_store, overlaps)
    require_learned(dataset, labels, ignore_labels if training else None)
    require_apart(dataset, allow_repeats or not training)
    if slices:
        ready = open_slices(dataset, labels, cache, overlaps == "keep")
    else:
        ready = _with_labels(dataset, labels, cache, overlaps)
    if training:
        check_subsets(ready, labels, cache)
    return ready


def _with_labels(dataset: DatasetIndex, labels: LabelMap, cache: Path, overlaps: str) -> DatasetIndex:
    """Return volumes with label maps numbered as `labels`, where they are needed."""
    # The store replaces the files for training only; validation reads whole volumes.
    subsets = SPLITS if dataset.store is None else ("val", "test")
    used = {id for subset in subsets for id in getattr(dataset.split, subset)}
    unlabeled = {case.id for case in dataset.cases if not case.masks and case.label is None}
    used -= unlabeled & set(dataset.split.test)  # test images of the Decathlon and of nnU-Net come without labels
    cases = [case for case in dataset.cases if case.id in used]
    bar = tqdm(cases, desc="Label maps", unit="case", disable=None, leave=False)
    ready = {case.id: _with_label(case, dataset.labels, labels, cache, overlaps) for case in bar}
    # A label map that was not renumbered is not passed on: its numbers may mean something else.
    return replace(dataset, cases=tuple(ready.get(case.id, replace(case, label=None)) for case in dataset.cases))


def _write_phantom(cache: Path, arguments: Mapping[str, Any], slices: bool) -> Path:
    spec = (SlicePhantomSpec if slices else PhantomSpec)(**arguments)
    root = cache / f"phantom-{spec.digest()}"
    logger.info("No data set was named (dataset_dir): using the phantom that comes with medseg, %s", root)
    return write_slice_phantom(root, spec) if isinstance(spec, SlicePhantomSpec) else write_phantom(root, spec)


def _with_store(dataset: DatasetIndex, use_store: bool | None, overlaps: str) -> DatasetIndex:
    """Return the data set with its store if training is to read it, else without."""
    if use_store and overlaps == "keep":
        raise ConfigError(
            "data#use_store", "a slice store cannot keep overlaps", "", "Train without it: data#use_store=false."
        )
    if use_store and dataset.store is None:
        fix = "Make one: medseg data prepare --store."
        raise ConfigError("data#use_store", f"{dataset.root} has no slice store", "", fix)
    return replace(dataset, store=None) if use_store is False or overlaps == "keep" else dataset


def training_items(
    dataset: DatasetIndex, labels: LabelMap, spacing: Sequence[float] = (-1, -1, -1), context: int = 0
) -> list[dict[str, Any]]:
    """Return the items that training draws from: volumes in the slice store if the data set has one, else files.

    Every item says which classes are annotated in it (`annotated`, bool, `(len(labels),)`). A structure that no
    training case has annotated counts as annotated and absent: nothing could keep a network from
    predicting it anywhere otherwise. A case in which none of the structures is annotated is left out, with a warning.

    Args:
        dataset: see `open_dataset`.
        labels: the classes of the network.
        spacing: mm along each axis that the bundle trains at, 0 or less for any; a store must have it.
        context: of slices: how many neighbors on each side an item names.

    Raises:
        ConfigError: the store lies at another spacing.
        DataError: nothing is annotated in any case; see `DatasetIndex.items` and `read_store`.
    """
    flags = {case.id: case.annotation_flags(labels) for case in dataset.subset("train")}
    ids = {id for id, row in flags.items() if row[1:].any()}
    if not ids:
        raise DataError(dataset.root, "no training case has an annotation of any structure of the network")
    unused = sorted(set(flags) - ids)
    if unused:
        logger.warning(
            "%s: %d cases are left out of training, because none of the network's structures is annotated there: %s",
            dataset.root,
            len(unused),
            names_of(unused),
        )
    nowhere_annotated = ~np.any(list(flags.values()), axis=0)
    if dataset.store is None:
        items = dataset.items("train", context=context)
    else:
        items = _stored_items(dataset, dataset.store, labels, spacing)
    return [{**item, "annotated": flags[item["case"]] | nowhere_annotated} for item in items if item["case"] in ids]


def _stored_items(
    dataset: DatasetIndex, store: Path, labels: LabelMap, spacing: Sequence[float]
) -> list[dict[str, Any]]:
    items = []
    for case in dataset.subset("train"):
        stored = read_store(store, case.id, labels)
        pairs = list(zip(spacing, stored.grid.spacing, strict=True))
        if any(length > 0 and abs(length - stored_length) > 1e-3 for length, stored_length in pairs):
            stored_spacing = ", ".join(f"{length:.4g}" for length in stored.grid.spacing)
            problem = f"its spacing is {stored_spacing} mm, and the bundle trains at {list(spacing)}"
            wanted_spacing = " ".join(f"{length:g}" for length in spacing)
            fix = f"Prepare with --spacing {wanted_spacing}, or train with data#use_store=false."
            raise ConfigError(f"slice store of case {case.id}", problem, "", fix)
        items.append({"image": stored.image, "label": stored.label, "slice_index": stored.index, "case": case.id})
    return items


def _with_label(case: Case, case_labels: LabelMap | None, labels: LabelMap, cache: Path, overlaps: str) -> Case:
    """Return the case with a label map numbered as `labels`; make it if it does not exist yet."""
    ready = case_labels == labels and case.binarize is None and overlaps == "precedence"
    if case.label is not None and ready:
        require_on_image(case, read_grid(case.label, case.accept))
        return case
    numbering = case_labels.to_dict() if case_labels is not None else None
    key = source_key(case, numbering, labels.names, labels.overlap_priority(), overlaps)
    path, combinations_path = cache / f"{case.id}-{key}.nii.gz", cache / f"{case.id}-{key}.json"
    if not (path.is_file() and (overlaps == "precedence" or combinations_path.is_file())):
        read_volume(case.image, case.accept)  # a damaged image is found here, before training
        if overlaps == "keep":
            _write_combined(path, combinations_path, case, labels)
        else:
            write_label_map(path, read_label(case, case_labels, labels).label, case.image, labels)
    if overlaps != "keep":
        return replace(case, label=path)
    combinations = json.loads(combinations_path.read_text(encoding="utf-8"))["combinations"]
    return replace(case, label=path, combinations=tuple(map(tuple, combinations)))


def _write_combined(path: Path, combinations_path: Path, case: Case, labels: LabelMap) -> None:
    if not case.masks:
        problem = "overlaps cannot be kept, because it has a label map instead of binary masks"
        raise DataError(f"case {case.id}", problem, "", "Train on the folder with the masks, or without overlaps.")
    combined = combine_masks(case.image, case.masks, labels, case.binarize, case.accept)
    write_like(path, combined.codes, case.image)
    write_json(combinations_path, {"combinations": combined.combinations})


def require_on_image(case: Case, grid: Grid) -> None:
    """Check that the label map of a case, whose grid is given, lies on its image.

    Raises:
        GeometryError: it does not.
    """
    read_grid(case.image, case.accept).require(grid, case.label, case.image)


def read_label(case: Case, case_labels: LabelMap | None, labels: LabelMap, precedence: Sequence[str] = ()) -> Merged:
    """Return the label map of a case, merged from its masks or renumbered; see `merge_masks` and `renumber`.

    Raises:
        DataError: the case has neither masks nor a label map, or they cannot be read.
        GeometryError: they do not lie on the image's grid.
        LabelError: the label map holds a value that is no integer, or has no name.
    """
    if case.masks:
        return merge_masks(case.image, case.masks, labels, precedence, case.binarize, case.accept)
    if case.label is None or case_labels is None:
        raise DataError(f"case {case.id}", "it has neither masks nor a label map")
    values, grid = read_volume(case.label, case.accept)
    require_on_image(case, grid)
    return Merged(renumber(values, case_labels, labels, f"{case.label}, case {case.id}", case.binarize), grid)


def renumber(
    values: npt.NDArray[Any],
    value_labels: LabelMap,
    labels: LabelMap,
    thing: object,
    binarize: float | None = None,
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return label values in another numbering, matched by name; structures that `labels` lacks become background.

    Args:
        values: class indices of any number type and shape.
        value_labels: the numbering of `values`.
        labels: the numbering that is returned.
        thing: the name in errors.
        binarize: if there is one structure alone, see `binary_mask`.

    Raises:
        DataError: see `binary_mask`.
        LabelError: a value that is no integer, or has no name in `value_labels`.

    Example:
        >>> renumber(np.array([0, 1, 2]), LabelMap(["liver", "spleen"]), LabelMap(["spleen"]), "mask").tolist()
        [0, 0, 1]
    """
    indices = label_values(values, value_labels, thing, binarize)
    lookup = np.array([labels.index(name) if name in labels else 0 for name in value_labels.names])
    lookup[0] = 0
    return np.asarray(lookup.astype(label_dtype(len(labels)))[indices])
