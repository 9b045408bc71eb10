"""2D slices as pictures: train/ and valid/, or one folder; images and masks paired by name, never by order."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.cases import SPLITS, Case, DatasetIndex, Split
from medseg.data import kaggle
from medseg.data.class_colors import CLASSES, NAMES, generic_palette, read_palette
from medseg.data.nifti import SUFFIXES as VOLUMES
from medseg.errors import ConfigError, DataError, LabelError, did_you_mean, nearest
from medseg.findings import Finding, error
from medseg.image_io_2d import ClassColors, SliceInfo, is_picture
from medseg.labels import BACKGROUND, LabelMap

logger = logging.getLogger(__name__)

IMAGES, MASKS = "images", ("masks", "labels")
SIDES = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
PATIENT = r"[^_]+"  # what stands before the first underscore: `case101` of `case101_day20_slice_0078`
_ENDINGS = ("mask", "masks", "seg", "label", "labels", "segmentation", "gt")
_NUMBERED = re.compile(
    r"(?P<scan>.*?)[_-]?(?:slice[_-]?)?(?P<number>\d+)(?:_\d+_\d+_(?P<rows>\d+\.\d+)_(?P<columns>\d+\.\d+))?"
)


@dataclass
class Collected:
    """A set of slices as it was found: cases, and what is wrong with their names."""

    kind: str
    cases: list[Case] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    palette: ClassColors | None = None
    structures: tuple[str, ...] = ()
    split: Split = field(default_factory=Split)


def is_dataset(root: Path) -> bool:
    """Whether a folder holds slices as pictures, in one of the layouts that are known."""
    if kaggle.is_dataset(root):
        return True
    for folder in (root, *(root / side for side in SIDES)):
        if (folder / IMAGES).is_dir() and _has_pictures(folder / IMAGES):
            masks = [folder / name for name in MASKS if (folder / name).is_dir()]
            return not any(path.name.lower().endswith(VOLUMES) for one in masks for path in one.iterdir())
    return _has_pictures(root) and bool(_apart(pictures(root)[0], _names(root))[1])


def read(root: Path, patient: str | None = None) -> DatasetIndex:
    """Find the slices of a folder. Only names and tables are read; masks only where nothing says what they hold.

    An image and its mask have the same name, but for an ending of the mask (`_mask`, `_seg`, `_label`). Masks of
    one structure each lie in a folder of its name (`masks/liver/a.png`) or end in it (`masks/a_liver.png`); a
    structure whose file is missing counts as not annotated. A set without sides of its own has none: see
    `DatasetIndex.with_split`, which keeps the slices of a patient together.

    Args:
        root: the folder.
        patient: a pattern (`re`) that finds the patient in a picture's name, its first group where it has one;
            by default what stands before the first underscore.

    Raises:
        ConfigError: a pattern that is none.
        DataError: an image without a mask, or the reverse; a table that cannot be read.
        LabelError: a class that nobody named.
    """
    found = collect(root, patient)
    for finding in found.findings:
        if finding.severity == "error":
            kind = LabelError if finding.code == "unknown-class" else DataError
            raise kind(finding.location, finding.message, "", finding.fix)
        logger.warning("%s: %s. %s", finding.location, finding.message, finding.fix)
    cases = tuple(sorted(found.cases, key=lambda case: case.id))
    labels = LabelMap(found.structures)
    owners = Counter(case.slice.patient for case in cases if case.slice)
    if not found.split and len(owners) == 1 and len(cases) > 1:
        logger.warning("%s: all of it is taken for one patient, '%s'; say how names tell patients", root, *owners)
    elif not found.split and len(owners) == len(cases) > 1:
        logger.warning("%s: every picture is taken for a patient of its own, by its name", root)
    return DatasetIndex(root, cases, found.structures, labels, found.split, palette=found.palette)


def collect(root: Path, patient: str | None = None) -> Collected:
    """List what a folder of slices holds, without refusing anything that a check could report.

    Raises:
        ConfigError: a pattern that is none; DataError, LabelError: names of classes that cannot be read.
    """
    pattern = _pattern(patient)
    palette = read_palette(root)
    if kaggle.is_dataset(root):
        cases, test, structures, findings = kaggle.collect(root, palette, lambda name: owner(name, pattern))
        names = (BACKGROUND, *structures)
        palette = palette or ClassColors(names, tuple((index,) for index in range(len(names))))
        split = Split(test=tuple(case.id for case in test))
        return Collected("slices in Kaggle's layout", [*cases, *test], findings, palette, structures, split)
    found = Collected("slices", palette=palette)
    sides = [(SIDES[name], root / name) for name in SIDES if (root / name / IMAGES).is_dir()]
    parts = {folder: _part(folder, found) for _, folder in sides} if sides else {root: _part(root, found)}
    structures = _structures(root, parts.values(), found)
    stems = Counter(stem.lower() for part in parts.values() for stem in part)
    again = any(count > 1 for count in stems.values())
    ids: dict[str, list[str]] = {side: [] for side in SPLITS}
    for folder, part in parts.items():
        side = next((side for side, location in sides if location == folder), "")
        for stem, (image, masks) in part.items():
            if not masks and side != "test":
                found.findings.append(_alone(image))
                continue
            id = f"{folder.name}_{stem}" if again and side else stem
            said = info(stem, pattern, id)
            if again and side and said.scan:  # two sides have slices of one name: they are not of one scan
                said = replace(said, scan=f"{folder.name}_{said.scan}")
            found.cases.append(_case(id, image, masks, structures, said))
            if side:
                ids[side].append(id)
    found.structures, found.split = structures, Split(*(tuple(ids[side]) for side in SPLITS))
    if not found.cases and not found.findings:
        found.findings.append(error("layout", root, "it must hold images with masks, and holds none"))
    return found


def owner(name: str, pattern: re.Pattern[str]) -> str:
    """The patient that a picture's name tells; the name itself where it tells none.

    >>> owner("case101_day20_slice_0078", re.compile(PATIENT))
    'case101'
    """
    match = pattern.search(name)
    return (match[1] if pattern.groups else match[0]) if match else name


def info(stem: str, pattern: re.Pattern[str] | None = None, id: str = "") -> SliceInfo:
    """What a picture's name tells: patient, scan and number.

    >>> info("case101_day20_slice_0078")
    SliceInfo(patient='case101', scan='case101_day20', number=78, spacing=None, limits=None, runs=None)
    """
    patient = owner(stem, pattern or re.compile(PATIENT))
    match = _NUMBERED.fullmatch(stem)
    scan = match["scan"] if match else ""
    number = int(match["number"]) if match and scan else None
    named = (float(match["rows"]), float(match["columns"])) if match and match["rows"] else (0.0, 0.0)
    # as Kaggle writes it; where the two differ, only the file could say which of its sides is meant
    spacing = named if named[0] == named[1] > 0 else None
    return SliceInfo(id or stem if patient == stem else patient, scan, number, spacing)


def pictures(folder: Path) -> tuple[dict[str, Path], list[Finding]]:
    """The pictures of a folder by their names without extension, and two of one name."""
    found: dict[str, Path] = {}
    twice = []
    for path in sorted(folder.iterdir()):
        if is_picture(path):
            if path.stem in found:
                message = f"{found[path.stem].name} beside it has the same name"
                twice.append(error("same-id", path, message, "Remove or rename one of them."))
            found.setdefault(path.stem, path)
    return found, twice


def _pattern(patient: str | None) -> re.Pattern[str]:
    try:
        return re.compile(PATIENT if patient is None else patient)
    except re.error as fault:
        raise ConfigError("patient", "must be a regular expression", f"'{patient}' ({fault})") from fault


def _names(root: Path) -> tuple[str, ...]:
    palette = read_palette(root)
    return palette.names[1:] if palette else ()


def _has_pictures(folder: Path) -> bool:
    return any(is_picture(path) for path in folder.iterdir())


Masks = dict[str, Path]  # by structure; "" is a mask of all of them
Part = dict[str, tuple[Path, Masks]]


def _part(folder: Path, found: Collected) -> Part:
    """The images of one folder, each with its masks."""
    names = found.palette.names[1:] if found.palette else ()
    places = [folder / name for name in MASKS if (folder / name).is_dir()]
    if not (folder / IMAGES).is_dir():
        every, twice = pictures(folder)
        images, masks = _apart(every, names)
        found.findings += twice
        return _pair(images, {name: (masks[name], "") for name in masks}, found)
    if len(places) > 1:
        found.findings.append(error("layout", folder, f"it has {MASKS[0]}/ and {MASKS[1]}/", "Move one elsewhere."))
    images, twice = pictures(folder / IMAGES)
    listed: dict[str, tuple[Path, str]] = {}
    for location in places[:1]:
        masks, again = pictures(location)
        listed |= {name: (path, "") for name, path in masks.items()}
        twice = [*twice, *again]
        for inner in sorted(path for path in location.iterdir() if path.is_dir() and not path.name.startswith(".")):
            masks, again = pictures(inner)
            listed |= {f"{inner.name}/{name}": (path, inner.name) for name, path in masks.items()}
            twice = [*twice, *again]
    found.findings += twice
    return _pair(images, listed, found)


def _apart(every: Mapping[str, Path], names: Sequence[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks that lie in one folder: a mask is called like an image, with an ending."""
    masks = {}
    for name in every:
        image, rest = _whose(name, every.keys() - {name})
        if image and (rest in names or rest.split("_")[0].lower() in _ENDINGS):
            masks[name] = every[name]
    return {name: path for name, path in every.items() if name not in masks}, masks


def _whose(name: str, images: Iterable[str]) -> tuple[str, str]:
    """The image that a mask's name begins with, and the rest of the name; two empty texts where there is none."""
    known = images if isinstance(images, (set, dict)) else set(images)
    if name in known:
        return name, ""
    at = name.rfind("_")
    while at > 0:
        if name[:at] in known:
            return name[:at], name[at + 1 :]
        at = name.rfind("_", 0, at)
    return "", ""


def _pair(images: dict[str, Path], masks: Mapping[str, tuple[Path, str]], found: Collected) -> Part:
    part: Part = {name: (path, {}) for name, path in images.items()}
    for path, structure in masks.values():
        image, rest = _whose(path.stem, part)
        head, _, tail = rest.partition("_")
        named = tail if head.lower() in _ENDINGS else rest
        if not image:
            near = nearest(path.stem, part)
            fix = f"Is '{part[near[0]][0].name}' meant?" if near else "Add it, or move this file elsewhere."
            found.findings.append(error("mask-alone", path, "the mask has no image of its name", fix))
            continue
        held = part[image][1]
        key = structure or named
        if key in held:
            message = f"'{image}' has this mask already, {held[key].name}"
            found.findings.append(error("same-id", path, message, "Move one of them elsewhere."))
        held.setdefault(key, path)
    return part


def _structures(root: Path, parts: Iterable[Part], found: Collected) -> tuple[str, ...]:
    """The classes of the set, from what names them; fills in the palette."""
    whole: list[Path] = []
    single: dict[str, Path] = {}
    for part in parts:
        for _, masks in part.values():
            whole += [path for name, path in masks.items() if not name]
            single.update({name: path for name, path in masks.items() if name})
            if "" in masks and len(masks) > 1:
                found.findings.append(
                    error(
                        "masks-mixed", masks[""], "beside it the image has masks of single structures", "Keep either."
                    )
                )
    if found.palette is None and single and not whole:
        names = (BACKGROUND, *sorted(name for name in single if name.lower() != BACKGROUND))
        found.palette = ClassColors(names, tuple((index,) for index in range(len(names))))
    elif found.palette is None and whole:
        found.palette = generic_palette(whole)
        logger.warning("%s: neither %s nor %s says what masks hold: %s", root, CLASSES, NAMES, found.palette.names[1:])
    structures = found.palette.names[1:] if found.palette else ("class_1",)
    for name, path in sorted(single.items()):
        if name not in structures and name.lower() != BACKGROUND:
            fix = did_you_mean(name, structures, f"Name it in {CLASSES}, or move it elsewhere.")
            found.findings.append(error("unknown-class", path, f"'{name}' is none of the set's classes", fix))
    return structures


def _alone(image: Path) -> Finding:
    return error("image-alone", image, "the image has no mask of its name", "Add it, or move this file elsewhere.")


def _case(id: str, image: Path, masks: Masks, structures: tuple[str, ...], said: SliceInfo) -> Case:
    if "" in masks or not masks:
        return Case(id, image, masks.get(""), annotated=structures if masks else None, slice=said)
    single = {name: path for name, path in masks.items() if name in structures}
    return Case(id, image, masks=single, annotated=tuple(name for name in structures if name in single), slice=said)
