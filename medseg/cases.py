"""What a data set is: cases, their split, and the datalist that writes both down."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.atomic import write_json
from medseg.errors import DataError, LabelError, did_you_mean
from medseg.image_io_2d import ClassColors, SliceInfo, neighbours
from medseg.labels import BACKGROUND, LabelMap, groups

SPLITS = ("train", "val", "test")
_KEYS = {"train": "training", "val": "validation", "test": "test"}  # the names of MONAI's Decathlon datalists


@dataclass(frozen=True)
class Case:
    """One image and what is known about it.

    Args:
        id: the name under which it is reported; unique in its data set.
        image: the image file.
        label: its label map, where there is one.
        masks: its binary masks by structure name, where it comes with these instead.
        annotated: the structures somebody looked for; None where that is not known.
        combinations: where the label map holds combinations of overlapping structures: for each of its codes
            the channels that meet there.
        slice: where the image is a picture and not a volume: whose it is, and its place in its scan.

    Raises:
        DataError: an id that is empty or cannot be the name of a file.
    """

    id: str
    image: Path
    label: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None
    combinations: tuple[tuple[int, ...], ...] | None = None
    slice: SliceInfo | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise DataError(self.image, "needs a case id", "an empty one")
        if self.id.startswith(".") or set(self.id) & set("/\\\0"):
            raise DataError(self.image, "needs a case id that can be the name of a file", repr(self.id), "Rename it.")

    def sources(self) -> list[Path]:
        """The files the case was found as: its image, and its masks or else its label map."""
        if self.masks:
            return [self.image, *(self.masks[name] for name in sorted(self.masks))]
        return [self.image] if self.label is None else [self.image, self.label]


@dataclass(frozen=True)
class Split:
    """Which case ids train, validate and test. A case may stand on two sides only where somebody asked for it.

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
        """Split by the hash of each id, so that a case keeps its side when others join.

        At least one case validates where there are two or more; the rest train. Cases of one patient, where
        `patients` says whose they are, stay together.
        """
        members: dict[str, list[str]] = {}
        for id in ids:
            members.setdefault((patients or {}).get(id, id), []).append(id)
        ranked = sorted(members, key=lambda whose: hashlib.sha256(f"{seed}/{whose}".encode()).hexdigest())
        count = max(1, round(len(ranked) * validation)) if len(ranked) > 1 else 0
        train, val = ([id for whose in part for id in members[whose]] for part in (ranked[count:], ranked[:count]))
        return cls(tuple(sorted(train)), tuple(sorted(val)))

    def __bool__(self) -> bool:
        """Whether anything is on any side."""
        return bool(self.train or self.val or self.test)

    def both_sides(self) -> tuple[str, ...]:
        """The ids that train and also validate or test."""
        return tuple(sorted(set(self.train) & (set(self.val) | set(self.test))))


@dataclass(frozen=True)
class DatasetIndex:
    """Cases under one root, with the structures that their labels hold.

    Args:
        root: the folder it was found in.
        cases: all cases, sorted by id.
        structures: the names that occur among its labels or masks, in order.
        labels: the numbering of its label maps; None where it has binary masks instead.
        split: which cases train, validate and test.
        store: the folder of its slice store, where it has one.
        palette: where its cases are pictures: what their masks mean.

    Raises:
        DataError: no case, or two cases of one id (upper and lower case count as the same: on some
            file systems they are the same file).
    """

    root: Path
    cases: tuple[Case, ...]
    structures: tuple[str, ...]
    labels: LabelMap | None = None
    split: Split = field(default_factory=Split)
    store: Path | None = None
    palette: ClassColors | None = None

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError(self.root, "must hold at least one case", "none")
        counts = Counter(case.id.lower() for case in self.cases)
        twice = sorted(id for id, count in counts.items() if count > 1)
        if twice:
            raise DataError(
                self.root,
                "needs a different id for every case (upper and lower case do not differ)",
                ", ".join(case.id for case in self.cases if case.id.lower() == twice[0]),
                "Rename one of them.",
            )

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each case of which that is known: slices."""
        return {case.id: case.slice.patient for case in self.cases if case.slice is not None}

    @functools.cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    def case(self, id: str) -> Case:
        """The case of that id.

        Raises:
            DataError: there is none; names the nearest.
        """
        if id in self._by_id:
            return self._by_id[id]
        raise DataError(
            f"case '{id}'",
            f"must be one of the {len(self.cases)} cases in {self.root}",
            "none of that name",
            did_you_mean(id, [case.id for case in self.cases]),
        )

    def with_split(
        self, split: Mapping[str, Sequence[str] | None] | None = None, *, validation: float = 0.1
    ) -> DatasetIndex:
        """The same data set with every side of its split decided.

        Sides named in `split` hold exactly the ids given there; a patient's name means all of its slices. The
        others stay as the set itself says; where it says nothing of training and validation, the cases that are left
        go to whichever of the two was not named, or are split by hash.

        Raises:
            DataError: a side that does not exist, or an id that is no case.
        """
        patients = self.patients
        named: dict[str, list[str]] = {}
        for case in self.cases:
            named.setdefault(patients.get(case.id, case.id), []).append(case.id)
        named |= {case.id: [case.id] for case in self.cases}
        sides = {side: ids for side, ids in (split or {}).items() if ids is not None}
        chosen = {side: [one for id in ids for one in named.get(id, [id])] for side, ids in sides.items()}
        for side in chosen:
            if side not in SPLITS:
                raise DataError(
                    f"split '{side}'", f"must be one of {', '.join(SPLITS)}", f"'{side}'", did_you_mean(side, SPLITS)
                )
        for ids in chosen.values():
            for id in ids:
                self.case(id)
        own = self.split
        if not own.train and not own.val:
            used = {id for ids in chosen.values() for id in ids} | set(() if "test" in chosen else own.test)
            rest = [case.id for case in self.cases if case.id not in used]
            parted = Split.by_hash(rest, validation=validation, patients=patients)
            if "val" in chosen:
                parted = Split(train=tuple(rest))
            elif "train" in chosen:
                parted = Split(val=tuple(rest))
            own = replace(parted, test=own.test)
        return replace(self, split=Split(*(tuple(chosen.get(side, getattr(own, side))) for side in SPLITS)))

    def choose(self, structures: str | Sequence[str] = "all") -> LabelMap:
        """A numbering for the structures that are named, in the order in which the set has them.

        Args:
            structures: names of the set, groups of TotalSegmentator's (`organs` ...), or `all`.

        Raises:
            LabelError: a name that is neither a structure of the set nor a group; names the nearest.
        """
        known, wanted = groups(), set[str]()
        for entry in [structures] if isinstance(structures, str) else structures:
            if entry in self.structures:
                wanted.add(entry)
            elif entry == "all":
                wanted.update(self.structures)
            elif entry in known and set(known[entry]) & set(self.structures):
                wanted.update(known[entry])
            else:
                fix = did_you_mean(entry, [*self.structures, *known], f"It has {', '.join(self.structures[:8])}.")
                raise LabelError(f"structure '{entry}'", f"must be one of those in {self.root}", "none there", fix)
        return LabelMap([name for name in self.structures if name in wanted])

    def without(self, ids: Iterable[str]) -> DatasetIndex:
        """The same data set without some of its cases; ids it does not hold are passed over.

        Raises:
            DataError: nothing is left.
        """
        out = set(ids)
        left = tuple(case for case in self.cases if case.id not in out)
        sides = ([id for id in getattr(self.split, side) if id not in out] for side in SPLITS)
        return replace(self, cases=left, split=Split(*map(tuple, sides)))

    def side(self, side: str) -> tuple[Case, ...]:
        """The cases that stand on one side of the split.

        Raises:
            DataError: there is none.
        """
        cases = tuple(self.case(id) for id in getattr(self.split, side))
        if not cases:
            sides = ", ".join(f"{len(getattr(self.split, name))} {name}" for name in SPLITS)
            raise DataError(
                f"{self.root}",
                f"needs at least one case to {_VERBS[side]}",
                f"none ({sides})",
                f"Name some with split#{side}, or in the split column of meta.csv.",
            )
        return cases

    def items(self, side: str, labels: LabelMap | None = None, context: int = 0) -> list[dict[str, Any]]:
        """One side as MONAI takes it: `[{"image": path, "label": path, "case": id}, ...]`; see `SliceInfo.item`.

        Args:
            side: of the split.
            labels: the classes of the network: every item then also says for each of them whether somebody looked
                for it in the case (`annotated`, bool, `(len(labels),)`), the background always. A case of which
                nothing is known counts as annotated in full.
            context: of slices, how many neighbours on each side are named.

        Raises:
            DataError: the side is empty, or a case has no label map.
        """
        items = []
        cases = self.side(side)
        around = neighbours({case.id: case.slice for case in cases if case.slice}, context)
        for case in cases:
            if case.label is None:
                raise DataError(f"case {case.id}", "needs a label map", "none", "Run it through medseg data prepare.")
            item: dict[str, Any] = {"image": str(case.image), "label": str(case.label), "case": case.id}
            if case.slice is not None:
                item |= case.slice.item([self.case(id).image for id in around[case.id]])
            if labels is not None:
                looked_for = labels.structures if case.annotated is None else case.annotated
                item["annotated"] = np.array([True, *(name in looked_for for name in labels)])
            items.append(item if case.combinations is None else {**item, "combinations": case.combinations})
        return items

    def fingerprint(self) -> str:
        """A hash of what the set consists of: ids, sides, file names and sizes; not of where it lies.

        Raises:
            DataError: a file is not there.
        """
        digest = hashlib.sha256(b"" if self.store is None else b"store")
        for case in self.cases:
            sides = [side for side in SPLITS if case.id in getattr(self.split, side)]
            digest.update(json.dumps([case.id, sides]).encode())
            for path in case.sources():
                try:
                    digest.update(json.dumps([path.name, path.stat().st_size]).encode())
                except OSError as error:
                    raise DataError(path, "must exist", str(error)) from error
        return digest.hexdigest()[:16]


_VERBS = {"train": "train on", "val": "validate on", "test": "test on"}


def write_datalist(path: Path, dataset: DatasetIndex, labels: LabelMap) -> None:
    """Write a datalist with MONAI's Decathlon keys; paths are relative to the file, with forward slashes.

    Raises:
        OutputError: the place cannot be written.
    """
    content: dict[str, Any] = {
        "name": dataset.root.name,
        "labels": labels.to_dict(),
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
    }
    for side in SPLITS:
        cases = [dataset.case(id) for id in getattr(dataset.split, side)]
        content[f"num{_KEYS[side].capitalize()}"] = len(cases)
        content[_KEYS[side]] = [_entry(case, path.parent) for case in cases]
    if dataset.store is not None:
        content["store"] = _relative(dataset.store, path.parent)
    write_json(path, content)


def _entry(case: Case, base: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"case": case.id, "image": _relative(case.image, base)}
    if case.label is not None:
        entry["label"] = _relative(case.label, base)
    if case.annotated is not None:
        entry["annotated"] = list(case.annotated)
    return entry


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()


def read_datalist(path: Path) -> DatasetIndex:
    """Read a datalist with MONAI's Decathlon keys: one of ours, or `dataset.json` of the Decathlon itself.

    A datalist that says nothing of validation has no split of its own but for its test cases. Everything that
    its labels name counts as annotated in a case with a label, unless the entry says otherwise (`annotated`).

    Raises:
        DataError: not JSON, no label names, several channels, an entry without an image, a file that is not there.
        LabelError: indices with gaps, one name twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbered = {str(int(index)): name for index, name in content["labels"].items()}
        channels = content.get("modality") or {}
        sides = {side: list(content.get(_KEYS[side]) or []) for side in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(path, "must be a datalist: JSON with 'labels' and 'training'", f"{error!r}") from error
    labels = LabelMap.from_dict({**numbered, "0": BACKGROUND}, source=path)
    if isinstance(channels, dict) and len(channels) > 1:
        names = ", ".join(str(name) for name in channels.values())
        raise DataError(path, "must have images of one channel", f"{len(channels)} ({names})", "Split them first.")
    cases: dict[str, Case] = {}
    ids: dict[str, list[str]] = {side: [] for side in SPLITS}
    for side, entries in sides.items():
        for entry in entries:
            case = _read_entry(path, entry, labels)
            if case.image.name.startswith("._"):
                continue  # what macOS leaves in archives beside every file
            if cases.setdefault(case.id, case) != case:
                raise DataError(
                    path,
                    "needs a different id for every case",
                    f"'{case.id}' for two",
                    "Rename one of them, or give each entry a 'case' of its own.",
                )
            ids[side].append(case.id)
    test = tuple(ids["test"])
    split = Split(tuple(ids["train"]), tuple(ids["val"]), test) if _KEYS["val"] in content else Split(test=test)
    ordered = tuple(cases[id] for id in sorted(cases))
    store = path.parent / content["store"] if "store" in content else None
    return DatasetIndex(path.parent, ordered, labels.structures, labels, split, store)


def _read_entry(path: Path, entry: Any, labels: LabelMap) -> Case:
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DataError(path, "needs an 'image' in every entry", repr(entry)[:80])
    image = path.parent / entry["image"]
    label = path.parent / entry["label"] if entry.get("label") else None
    for file in filter(None, (image, label)):
        if not file.is_file() and not image.name.startswith("._"):
            raise DataError(
                file,
                f"must exist, for {path.name} names it",
                "no such file",
                "Keep the datalist beside its images and labels, or prepare the set again.",
            )
    annotated = labels.structures if label is not None else None
    if "annotated" in entry:
        annotated = tuple(entry["annotated"])
    id = str(entry.get("case", image.name.removesuffix(".gz").removesuffix(".nii")))
    return Case(id.removeprefix("._"), image, label, annotated=annotated)
