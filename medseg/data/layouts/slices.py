"""Read 2D slices: train/ and valid/, or one folder; images and masks paired by name, never by order."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.cases import SPLITS, Case, Split
from medseg.data.class_colors import CLASSES, NAMES, infer_class_colors, read_class_colors
from medseg.data.layouts.listed_cases import Listing
from medseg.errors import ConfigError, MedsegError, did_you_mean, nearest
from medseg.file_names import NIFTI, UNREAD_PICTURES, composed, entries, has_suffix, list_files, name_key, stem
from medseg.findings import Finding, error, note, warning
from medseg.image_io_2d import SUFFIXES, ClassColors, SliceInfo
from medseg.labels import BACKGROUND, LabelMap

logger = logging.getLogger(__name__)

IMAGES, MASKS = "images", ("masks", "labels")
SUBSETS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
PATIENT = r"[^_]+"  # the text before the first underscore: `case101` of `case101_day20_slice_0078`
_ENDINGS = ("mask", "masks", "seg", "label", "labels", "segmentation", "gt")
_NUMBERED = re.compile(
    r"(?P<scan>.*?)[_-]?(?:slice[_-]?)?(?P<number>\d+)(?:_\d+_\d+_(?P<rows>\d+\.\d+)_(?P<columns>\d+\.\d+))?"
)
_TELL_PATIENTS = "Say how names tell the patient: --patient, or data#patient of a bundle."
_PIECE = re.compile(r"(?:(?P<structure>.*)_)?\d{3,}")  # as SAM-Med2D has it: liver_000, liver_001
Masks = dict[str, list[Path]]  # by structure, in pieces; "" is one mask of all of them
Pairs = dict[str, tuple[Path, Masks]]  # by the image's name
Listed = tuple[dict[str, Path], list[Finding]]  # see `list_files`


def collect(root: Path, patient: str | None = None) -> Listing | None:
    """List the 2D slices of a folder; None if it holds none. Masks are read only if no file names their classes.

    An image and its mask have the same name, but for an ending of the mask (`_mask`, `_seg`, `_label`). Masks of
    one structure each lie in a folder of its name (`masks/liver/a.png`) or end in it (`masks/a_liver.png`); files with
    a number of three digits more (`a_liver_000.png`) are pieces of it. A structure without a file counts as not
    annotated. A set without subsets of its own has no split: see `DatasetIndex.with_split`, which keeps the slices of a
    patient together.

    Args:
        root: the folder.
        patient: a pattern (`re`) that finds the patient in an image's name, its first group if it has one;
            by default the text before the first underscore.

    Raises:
        ConfigError: the pattern is no regular expression.
        DataError, LabelError: classes whose names cannot be read.
    """
    subset_folders = {root / name: SUBSETS[name] for name in SUBSETS if (root / name / IMAGES).is_dir()}
    image_folders = [folder for folder in (root, *subset_folders) if (folder / IMAGES).is_dir()]
    files = {folder: list_files(folder, SUFFIXES) for folder in (root, *(folder / IMAGES for folder in image_folders))}
    first = next((folder for folder in image_folders if files[folder / IMAGES][0]), None)
    colors = None
    if first is not None:
        mask_folders = [first / name for name in MASKS if (first / name).is_dir()]
        if any(has_suffix(path, NIFTI) for folder in mask_folders for path in entries(folder)):
            return None
    elif files[root][0]:
        colors = _class_colors(root)
        if not _separate(files[root][0], colors.structures if colors else ())[1]:
            return None
    else:
        listed = [finding for folder in image_folders for finding in files[folder / IMAGES][1]]
        unread = [finding for finding in listed if has_suffix(finding.location, UNREAD_PICTURES)]
        if not unread:
            return None
        message = f"none of its {len(unread)} images is in a format that is read ({', '.join(SUFFIXES)})"
        lacking = error("layout", image_folders[0] / IMAGES, message, "Convert them to PNG.")
        return Listing("slices", root, findings=[lacking, *unread], class_colors=ClassColors.indexed((BACKGROUND,)))
    pattern = compile_patient(patient)
    listing = Listing("slices", root, class_colors=colors or _class_colors(root))
    folders = list(subset_folders) or [root]
    parts = {folder: _pair_folder(folder, files, listing) for folder in folders}
    listing.structures = _name_structures(root, parts.values(), listing)
    listing.labels = LabelMap(listing.structures)
    counts = Counter(name.lower() for part in parts.values() for name in part)
    # Two subsets have images of one name: their numbering starts again, so that equal names are not of one scan.
    restarts = any(count > 1 for count in counts.values())
    ids: dict[str, list[str]] = {subset: [] for subset in SPLITS}
    subsets_of: dict[str, set[str]] = {}  # by the patient that a name tells, where names restart
    for folder, part in parts.items():
        subset = subset_folders.get(folder, "")
        prefix = f"{folder.name}_" if restarts and subset else ""
        for name, (image, masks) in part.items():
            if not masks and subset != "test":
                fix = "Add it, or move this file elsewhere."
                listing.findings.append(error("image-alone", image, "the image has no mask of its name", fix))
                continue
            info, owner = slice_info(name), patient_of(name, pattern)
            if prefix and info.scan:
                info = replace(info, scan=prefix + info.scan)
            if prefix and owner and patient is None:
                subsets_of.setdefault(owner, set()).add(subset)
                owner = prefix + owner
            listing.cases.append(_case(prefix + name, image, masks, listing.structures, info, owner))
            if subset:
                ids[subset].append(prefix + name)
    listing.split = Split(*(tuple(ids[subset]) for subset in SPLITS))
    if not listing.cases and not listing.findings:
        listing.findings.append(error("layout", root, "the folder must hold images with masks, and holds none"))
    _check_patients(listing, guessed=patient is None)
    shared = sorted(owner for owner, subsets in subsets_of.items() if len(subsets) > 1)
    if shared and len(subsets_of) > 1:  # a single one is a beginning of all names that tells nothing
        message = f"images of equal names are in several subsets, so '{shared[0]}' is taken for another patient in each"
        listing.findings.append(warning("patients-unclear", root, message, _TELL_PATIENTS))
    return listing


def _class_colors(root: Path) -> ClassColors | None:
    """Return what names the classes of a set, or of the set that a subset's folder is a part of."""
    return read_class_colors(root) or (read_class_colors(root.parent) if root.name in SUBSETS else None)


def _check_patients(listing: Listing, guessed: bool) -> None:
    """Warn of patients that names may not tell; ignore guesses that tell nothing."""
    patients = set(listing.patients.values())
    if len(listing.cases) < 2:
        return
    if len(patients) == 1 and listing.split and guessed:
        # All names begin alike, so that the beginning tells nothing; the subsets are taken as they are.
        listing.cases = [replace(case, patient=None) for case in listing.cases]
    elif len(patients) == 1 and not listing.split:
        message = f"all slices are taken for those of one patient, '{next(iter(patients))}'"
        listing.findings.append(warning("patients-unclear", listing.root, message, _TELL_PATIENTS))
    elif len(patients) == len(listing.cases) and not listing.split:
        message = "by its name, every image is taken for one of another patient"
        listing.findings.append(warning("patients-unclear", listing.root, message, _TELL_PATIENTS))


def compile_patient(pattern: str | None) -> re.Pattern[str]:
    """Compile the pattern that finds a patient in a name; None for the text before the first underscore.

    Raises:
        ConfigError: it is no regular expression.
    """
    try:
        return re.compile(PATIENT if pattern is None else pattern)
    except re.error as fault:
        raise ConfigError("patient", f"this is no regular expression: {fault}", f"got '{pattern}'") from fault


def without_ending(name: str) -> str:
    """Return a mask's name without an ending that says that it is one: `a_1` of `a_1_mask`."""
    head, _, tail = name.rpartition("_")
    return head if head and tail.lower() in _ENDINGS else name


def patient_of(name: str, pattern: re.Pattern[str]) -> str | None:
    """Return the patient in an image's name; None if the name tells none, or nothing else.

    Example:
        >>> patient_of("case101_day20_slice_0078", re.compile(PATIENT))
        'case101'
    """
    match = pattern.search(name)
    patient = (match[1] if pattern.groups else match[0]) if match else None
    return patient if patient and patient != name else None


def masks_among(files: Iterable[Path], structures: Sequence[str] = ()) -> set[Path]:
    """Return those of some images that `collect` would take for masks.

    Args:
        files: images.
        structures: names that a mask's name may end in, beside those of a `classes.json` in its folder.
    """
    groups: dict[Path, dict[str, Path]] = {}
    for file in files:
        groups.setdefault(file.parent, {})[stem(file)] = file
    masks: set[Path] = set()
    for folder, group in groups.items():
        if any(above.name in MASKS and (above.parent / IMAGES).is_dir() for above in (folder, folder.parent)):
            masks.update(group.values())
            continue
        try:
            colors = read_class_colors(folder)
        except MedsegError:
            colors = None
        masks.update(_separate(group, (*structures, *(colors.structures if colors else ())))[1].values())
    return masks


def slice_info(name: str) -> SliceInfo:
    """Return scan, number and spacing that an image's name tells.

    Example:
        >>> slice_info("case101_day20_slice_0078")
        SliceInfo(scan='case101_day20', number=78, spacing=None, limits=None, runs=None)
    """
    match = _NUMBERED.fullmatch(name)
    scan = match["scan"] if match else ""
    number = int(match["number"]) if match and scan else None
    spacing = (float(match["rows"]), float(match["columns"])) if match and match["rows"] else (0.0, 0.0)
    # As Kaggle writes it. If the two differ, only the file could tell which of its axes is meant.
    return SliceInfo(scan, number, spacing if spacing[0] == spacing[1] > 0 else None)


def _pair_folder(folder: Path, files: Mapping[Path, Listed], listing: Listing) -> Pairs:
    """Return the images of one folder, each with its masks."""
    structures = listing.class_colors.structures if listing.class_colors else ()
    if not (folder / IMAGES).is_dir():
        both, findings = files[folder]
        images, masks = _separate(both, structures)
        listing.findings += findings
        return _pair(images, [(name, path, "") for name, path in masks.items()], structures, listing.findings)
    mask_folders = [folder / name for name in MASKS if (folder / name).is_dir()]
    if len(mask_folders) > 1:
        message = f"the folder has both {MASKS[0]}/ and {MASKS[1]}/"
        listing.findings.append(error("layout", folder, message, "Move one of them elsewhere."))
    images, findings = files[folder / IMAGES]
    listing.findings += findings
    masks_listed: list[tuple[str, Path, str]] = []
    for mask_folder in mask_folders[:1]:
        inner = [path for path in entries(mask_folder) if path.is_dir()]
        for structure, group in (("", mask_folder), *((composed(path.name), path) for path in inner)):
            masks, findings = list_files(group, SUFFIXES)
            listing.findings += findings
            masks_listed += [(name, path, structure) for name, path in masks.items()]
    return _pair(images, masks_listed, structures, listing.findings)


def _separate(images: Mapping[str, Path], structures: Sequence[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Separate images and masks that lie in one folder: a mask is named like an image, with an ending."""
    masks, spelling = {}, {name_key(name): name for name in images}
    for name in images:
        image, ending = _split_name(name, spelling, proper=True)
        if image and (_structure(ending, structures)[0] in structures or ending.split("_")[0].lower() in _ENDINGS):
            masks[name] = images[name]
    return {name: path for name, path in images.items() if name not in masks}, masks


def _split_name(name: str, spelling: Mapping[str, str], proper: bool = False) -> tuple[str, str]:
    """Return the longest image name that a mask's name begins with, and the ending; two empty texts if there is none.

    Args:
        name: of the mask.
        spelling: names of images by `name_key`.
        proper: whether there must be an ending, because `spelling` holds the name itself.
    """
    if not proper and name_key(name) in spelling:
        return spelling[name_key(name)], ""
    for separator in re.finditer("_|--", name[::-1]):  # `--` in SA-Med2D-20M
        image, ending = name[: len(name) - separator.end()], name[len(name) - separator.start() :]
        if image and name_key(image) in spelling:
            return spelling[name_key(image)], ending
    return "", ""


def _structure(ending: str, structures: Sequence[str]) -> tuple[str, bool]:
    """Return the structure that the ending of a mask's name tells, and whether the mask is one of its pieces."""
    head, _, tail = ending.partition("_")
    name = tail if head.lower() in _ENDINGS else ending
    piece = None if name in structures else _PIECE.fullmatch(name)
    return (piece["structure"] or "", True) if piece else (name, False)


def _pair(
    images: Mapping[str, Path],
    masks: Iterable[tuple[str, Path, str]],
    structures: Sequence[str],
    findings: list[Finding],
) -> Pairs:
    """Give each image its masks; `masks` are names, files, and the structure that their folder names."""
    in_pieces = []
    pairs: Pairs = {name: (path, {}) for name, path in images.items()}
    spelling = {name_key(name): name for name in pairs}
    for name, path, folder_structure in masks:
        image, ending = _split_name(name, spelling)
        structure, is_piece = _structure(ending, structures)
        structure = folder_structure or structure
        if not image:
            similar = nearest(name, pairs)
            fix = f"Is '{pairs[similar[0]][0].name}' meant?" if similar else "Add it, or move this file elsewhere."
            findings.append(error("mask-alone", path, "the mask has no image of its name", fix))
            continue
        masks_of_image = pairs[image][1]
        if structure in masks_of_image and not (structure and is_piece):
            message = f"'{image}' has this mask already, {masks_of_image[structure][0].name}"
            findings.append(error("same-id", path, message, "Move one of them elsewhere."))
            continue
        if structure in masks_of_image:
            in_pieces.append((path, structure))
        masks_of_image.setdefault(structure, []).append(path)
    if in_pieces:
        path, structure = in_pieces[0]
        message = f"{len(in_pieces)} numbered files are taken for further pieces of one structure ('{structure}' first)"
        findings.append(note("mask-pieces", path, message))
    return pairs


def _name_structures(root: Path, parts: Iterable[Pairs], listing: Listing) -> tuple[str, ...]:
    """Return the classes of the set, and fill in their colors."""
    combined: list[Path] = []
    single: dict[str, Path] = {}
    for _, masks in (pair for part in parts for pair in part.values()):
        combined += [paths[0] for name, paths in masks.items() if not name]
        single.update({name: paths[0] for name, paths in masks.items() if name})
        if "" in masks and len(masks) > 1:
            message = "the image has masks of single structures, too"
            listing.findings.append(error("masks-mixed", masks[""][0], message, "Keep either."))
    if listing.class_colors is None and single and not combined:
        names = (BACKGROUND, *sorted(name for name in single if name.lower() != BACKGROUND))
        listing.class_colors = ClassColors.indexed(names)
    elif listing.class_colors is None and combined:
        listing.class_colors = infer_class_colors(combined)
        names = listing.class_colors.structures
        logger.warning("%s: neither %s nor %s names the classes of the masks: %s", root, CLASSES, NAMES, names)
    structures = listing.class_colors.structures if listing.class_colors else ("class_1",)
    for name, path in sorted(single.items()):
        if name not in structures and name.lower() != BACKGROUND:
            fix = did_you_mean(name, structures, f"Name it in {CLASSES}, or move it elsewhere.")
            message = f"'{name}' is not one of the set's classes"
            listing.findings.append(error("unknown-class", path, message, fix))
    return structures


def _case(
    id: str, image: Path, masks: Masks, structures: tuple[str, ...], info: SliceInfo, patient: str | None
) -> Case:
    if "" in masks or not masks:
        annotated = structures if masks else None
        label = masks[""][0] if masks else None
        return Case(id, image, label, annotated=annotated, slice=info, patient=patient)
    single = {name: paths[0] for name, paths in masks.items() if name in structures}
    pieces = {name: tuple(masks[name][1:]) for name in single if len(masks[name]) > 1}
    annotated = tuple(name for name in structures if name in single)
    return Case(id, image, masks=single, annotated=annotated, slice=info, patient=patient, pieces=pieces)
