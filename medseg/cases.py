"""Hold cases, their patients, and the split of a data set into training, validation and test."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.catalogue import expand_names
from medseg.errors import DataError, InputError, did_you_mean
from medseg.file_names import composed, name_key
from medseg.image_io_2d import ClassColors, SliceInfo, slice_neighbors
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_VERBS = {"train": "train on", "val": "validate on", "test": "test on"}


@dataclass(frozen=True)
class Case:
    """Hold the files of one image and what is known about it.

    Args:
        id: the name under which it is reported; unique in its data set.
        image: the image file.
        label: its label map, if it has one.
        masks: its binary masks by structure name, if it has these instead.
        annotated: the structures that were annotated; None if that is not known.
        combinations: if the label map holds combinations of overlapping structures: the channels of each code.
        slice: if the image is a 2D slice: its scan and its number in the scan.
        pieces: further files of a structure of `masks`, united with it.
        patient: the patient; None if the case is the only one of its patient. No patient is in two subsets of a split.
        binarize: how masks that hold more than 0 and 1 are read, see `medseg.data.masks.binary_mask`.
        accept: codes of the rules for scans that the user accepts, see `medseg.data.scan_rules`.

    Raises:
        DataError: the id is empty or cannot be the name of a file.
        InputError: `binarize` is no share.

    Example:
        >>> Case("s0001", Path("s0001/ct.nii.gz"), patient="p17").patient_id
        'p17'
    """

    id: str
    image: Path
    label: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None
    combinations: tuple[tuple[int, ...], ...] | None = None
    slice: SliceInfo | None = None
    patient: str | None = None
    binarize: float | None = None
    pieces: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.binarize is not None and not (isinstance(self.binarize, (int, float)) and 0 < self.binarize < 1):
            raise InputError("binarize", "it must be between 0 and 1", f"got {self.binarize}", "Use for example 0.5.")
        object.__setattr__(self, "id", composed(self.id))
        object.__setattr__(self, "patient", composed(self.patient) if self.patient else None)
        if not self.id:
            raise DataError(self.image, "the case id is empty")
        if self.id.startswith(".") or set(self.id) & set("/\\\0"):
            raise DataError(self.image, "the case id cannot be the name of a file", f"got {self.id!r}", "Rename it.")

    @property
    def patient_id(self) -> str:
        """Return the patient, or the case's own id if it is the only case of its patient."""
        return self.patient or self.id

    def files(self) -> list[Path]:
        """List the image and the masks, or else the label map."""
        if self.masks:
            pieces = [path for name in sorted(self.pieces) for path in self.pieces[name]]
            return [self.image, *(self.masks[name] for name in sorted(self.masks)), *pieces]
        return [self.image] if self.label is None else [self.image, self.label]

    def files_of(self, structure: str) -> tuple[Path, ...]:
        """Return the files of a structure's mask."""
        return (self.masks[structure], *self.pieces.get(structure, ()))

    def annotation_flags(self, labels: LabelMap) -> npt.NDArray[np.bool_]:
        """Return which classes were annotated, `(len(labels),)`; the background and cases without a record always."""
        annotated = labels.structures if self.annotated is None else self.annotated
        return np.array([True, *(name in annotated for name in labels)])


@dataclass(frozen=True)
class Split:
    """Hold the case ids of each subset.

    Example:
        >>> Split.by_hash(["a", "b", "c", "d"], validation=0.25).val
        ('c',)
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @classmethod
    def by_hash(
        cls, ids: Iterable[str], *, validation: float = 0.1, seed: int = 0, patients: Mapping[str, str] | None = None
    ) -> Split:
        """Split by the hash of each patient, so that a case keeps its subset when others join.

        If there are two patients or more, at least one trains and at least one validates.

        Args:
            ids: the case ids.
            validation: the fraction of patients that validate.
            seed: changes the ranking.
            patients: the patient of each case; a case that is not listed is its own patient.
        """
        cases_of: dict[str, list[str]] = {}
        for id in ids:
            cases_of.setdefault((patients or {}).get(id, id), []).append(id)
        ranked = sorted(cases_of, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest())
        count = min(max(1, round(len(ranked) * validation)), len(ranked) - 1) if len(ranked) > 1 else 0
        train = sorted(id for patient in ranked[count:] for id in cases_of[patient])
        val = sorted(id for patient in ranked[:count] for id in cases_of[patient])
        return cls(tuple(train), tuple(val))

    def __bool__(self) -> bool:
        """Return whether any subset has a case."""
        return bool(self.train or self.val or self.test)

    def repeated_cases(self) -> tuple[str, ...]:
        """Return the ids that train and also validate or test."""
        return tuple(sorted(set(self.train) & (set(self.val) | set(self.test))))

    def leaks(self, patients: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Return the patients whose cases are spread over two subsets, each with two such cases.

        A case that is itself in both subsets is no leak but a repeated case, see `repeated_cases`.

        Args:
            patients: the patient of each case; a case that is not listed is its own patient.

        Example:
            >>> Split(train=("ct1",), val=("ct2",)).leaks({"ct1": "ann", "ct2": "ann"})
            {'ann': ('ct1', 'ct2')}
        """
        pairs: dict[str, tuple[str, str]] = {}
        for subset in SPLITS:
            ids = set(getattr(self, subset))
            member = {patients.get(id, id): id for id in ids}
            for later in SPLITS[SPLITS.index(subset) + 1 :]:
                later_ids = set(getattr(self, later))
                later_member = {patients.get(id, id): id for id in later_ids}
                for id in sorted(ids - later_ids):
                    patient = patients.get(id, id)
                    if patient in later_member:
                        pairs.setdefault(patient, (id, later_member[patient]))
                for id in sorted(later_ids - ids):
                    patient = patients.get(id, id)
                    if patient in member:
                        pairs.setdefault(patient, (member[patient], id))
        return pairs

    def without(self, ids: Iterable[str]) -> Split:
        """Return the same split without some ids."""
        removed = set(map(name_key, ids))
        return Split(*(tuple(id for id in getattr(self, subset) if name_key(id) not in removed) for subset in SPLITS))


@dataclass(frozen=True)
class DatasetIndex:
    """Hold the cases under one root, with the structures that their labels hold. Not a torch or MONAI `Dataset`.

    Args:
        root: the folder of the data set.
        cases: all cases, sorted by id.
        structures: the names that occur among its labels or masks, in order.
        labels: the numbering of its label maps; None if it has binary masks instead.
        split: which cases train, validate and test.
        store: the folder of its slice store, if it has one.
        class_colors: if its cases are 2D slices: what the values or colors of their masks mean.

    Raises:
        DataError: there is no case, two have one id (see `name_key`), or a patient is in two subsets of the split.
    """

    root: Path
    cases: tuple[Case, ...]
    structures: tuple[str, ...]
    labels: LabelMap | None = None
    split: Split = field(default_factory=Split)
    store: Path | None = None
    class_colors: ClassColors | None = None

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError(self.root, "a data set needs at least one case")
        counts = Counter(name_key(case.id) for case in self.cases)
        repeated = [case.id for case in self.cases if counts[name_key(case.id)] > 1]
        if repeated:
            raise DataError(
                self.root,
                "two cases have the same id, or ids that differ only in accents or upper and lower case",
                ", ".join(id for id in repeated if name_key(id) == name_key(repeated[0])),
                "Rename one of them.",
            )
        leaks = self.split.leaks(self.patients)
        if leaks:
            raise DataError(self.root, *leak_message(leaks))

    @functools.cached_property
    def patients(self) -> dict[str, str]:
        """Return the patient of each case by case id."""
        return {case.id: case.patient_id for case in self.cases}

    @functools.cached_property
    def _by_id(self) -> dict[str, Case]:
        return {name_key(case.id): case for case in self.cases}

    def case(self, id: str) -> Case:
        """Return the case of that id.

        Raises:
            DataError: there is no such case; names the nearest id.
        """
        if name_key(id) in self._by_id:
            return self._by_id[name_key(id)]
        fix = did_you_mean(id, [case.id for case in self.cases])
        raise DataError(f"case '{id}'", f"{self.root} has {len(self.cases)} cases, but not this one", "", fix)

    def with_split(
        self, split: Mapping[str, Sequence[str] | None] | None = None, *, validation: float = 0.1
    ) -> DatasetIndex:
        """Return the same data set with every subset of its split decided.

        Subsets named in `split` hold exactly the ids given there; the name of a patient stands for all of its cases.
        The other subsets stay as the data set defines them. If it defines neither training nor validation, the
        remaining cases go to whichever of the two was not named, or are split by hash, patient by patient. A remaining
        case of a patient who is already in another subset is left out, with a warning.

        Args:
            split: case ids or patients by subset (`train`, `val`, `test`).
            validation: the fraction of patients that validate in a split by hash.

        Raises:
            DataError: a subset that does not exist, an id without a case, or a patient in two subsets.
        """
        chosen: dict[str, tuple[str, ...]] = {}
        for subset, names in (split or {}).items():
            if subset not in SPLITS:
                problem = f"the subsets of a split are {', '.join(SPLITS)}"
                raise DataError(f"split '{subset}'", problem, "", did_you_mean(subset, SPLITS))
            if names is not None:
                chosen[subset] = tuple(id for name in names for id in self._ids_of(name))
        base = self.split
        if not base.train and not base.val:
            base = replace(self._split_remaining(chosen, validation), test=base.test)
        return replace(self, split=Split(*(chosen.get(subset, getattr(base, subset)) for subset in SPLITS)))

    def _ids_of(self, name: str) -> list[str]:
        """Return the case of that id, else all cases of the patient of that name."""
        if name_key(name) not in self._by_id:
            ids = [id for id, patient in self.patients.items() if name_key(patient) == name_key(name)]
            if ids:
                return ids
        return [self.case(name).id]

    def _split_remaining(self, chosen: Mapping[str, Sequence[str]], validation: float) -> Split:
        """Split the cases that no subset has yet, without those of patients who are in one."""
        used = {id for ids in chosen.values() for id in ids}
        if "test" not in chosen:
            used |= set(self.split.test)
        used_patients = {self.patients.get(id, id) for id in used}
        remaining = [case.id for case in self.cases if case.patient_id not in used_patients]
        left_out = sorted(set(self.patients) - used - set(remaining))
        if left_out:
            logger.warning(
                "%s: %d cases are left out, because their patients are already in another subset: %s",
                self.root,
                len(left_out),
                ", ".join(left_out[:5]),
            )
        if "val" in chosen:
            return Split(train=tuple(remaining))
        if "train" in chosen:
            return Split(val=tuple(remaining))
        return Split.by_hash(remaining, validation=validation, patients=self.patients)

    def choose(self, structures: str | Sequence[str] = "all") -> LabelMap:
        """Number the named structures, in the order in which the data set has them.

        Args:
            structures: structures of the data set, groups of TotalSegmentator (`organs` ...), or `all`.

        Raises:
            LabelError: a name that is neither a structure of the data set nor a group; names the nearest.
        """
        chosen = expand_names(structures, self.structures, self.root)
        return LabelMap([name for name in self.structures if name in chosen])

    def without(self, ids: Iterable[str]) -> DatasetIndex:
        """Return the same data set without some of its cases; unknown ids are ignored.

        Raises:
            DataError: no case is left.
        """
        removed = set(map(name_key, ids))
        cases = tuple(case for case in self.cases if name_key(case.id) not in removed)
        return replace(self, cases=cases, split=self.split.without(removed))

    def subset(self, subset: str) -> tuple[Case, ...]:
        """Return the cases of one subset of the split.

        Raises:
            DataError: it is empty.
        """
        cases = tuple(self.case(id) for id in getattr(self.split, subset))
        if not cases:
            sizes = ", ".join(f"{len(getattr(self.split, name))} {name}" for name in SPLITS)
            fix = f"Name some with split#{subset}, or in the split column of meta.csv."
            if self.class_colors is not None:
                fix = f"Name some with split#{subset}, or say how names tell the patients: data#patient."
            raise DataError(self.root, f"there is no case to {_VERBS[subset]}", f"the split has {sizes}", fix)
        return cases

    def items(self, subset: str, labels: LabelMap | None = None, context: int = 0) -> list[dict[str, Any]]:
        """Return one subset as MONAI takes it: `[{"image": path, "label": path, "case": id}, ...]`.

        Args:
            subset: of the split.
            labels: the classes of the network: every item then also holds `annotated` (bool, `(len(labels),)`), see
                `Case.annotation_flags`.
            context: of slices: the number of neighbors on each side, see `SliceInfo.item`.

        Raises:
            DataError: the subset is empty, or a case has no label map.
        """
        items = []
        cases = self.subset(subset)
        neighbors = slice_neighbors({case.id: case.slice for case in cases if case.slice}, context)
        for case in cases:
            if case.label is None:
                raise DataError(f"case {case.id}", "it has no label map", "", "Run it through medseg data prepare.")
            item: dict[str, Any] = {"image": str(case.image), "label": str(case.label), "case": case.id}
            if case.slice is not None:
                images = [self.case(id).image for id in neighbors[case.id]]
                item |= {"patient": case.patient_id, **case.slice.item(images)}
            if labels is not None:
                item["annotated"] = case.annotation_flags(labels)
            if case.combinations is not None:
                item["combinations"] = case.combinations
            items.append(item)
        return items

    def fingerprint(self) -> str:
        """Return a hash of ids, subsets, file names and sizes; it does not depend on the folder's place.

        Raises:
            DataError: a file does not exist.
        """
        digest = hashlib.sha256(b"" if self.store is None else b"store")
        for case in self.cases:
            subsets = [subset for subset in SPLITS if case.id in getattr(self.split, subset)]
            digest.update(json.dumps([case.id, subsets]).encode())
            for path in case.files():
                try:
                    digest.update(json.dumps([path.name, path.stat().st_size]).encode())
                except OSError as error:
                    raise DataError(path, "the file cannot be read", error.strerror or str(error)) from error
        return digest.hexdigest()[:16]


def leak_message(leaks: Mapping[str, tuple[str, str]]) -> tuple[str, str, str]:
    """Return problem, value and fix for patients who are in two subsets of a split, see `Split.leaks`."""
    patient, pair = next(iter(leaks.items()))
    others = f", and {len(leaks) - 1} more patients" if len(leaks) > 1 else ""
    return (
        f"patient '{patient}' is in two subsets of the split",
        f"{pair[0]} and {pair[1]}{others}",
        "Keep all cases of a patient in one subset; otherwise the scores are too high. For 2D slices, the setting "
        "data#patient says how the patient is read from a file name.",
    )
