"""Plain folders paired by name: images/<case>.nii.gz, labels/ (or masks/)<case>.nii.gz, label_map.json beside them."""

from __future__ import annotations

from pathlib import Path

from medseg.cases import Case, DatasetIndex
from medseg.data.nifti import SUFFIXES, stem
from medseg.errors import DataError, nearest
from medseg.labels import LabelMap

IMAGES, LABELS, NAMES = "images", ("labels", "masks"), "label_map.json"
_IMAGE_ENDINGS, _LABEL_ENDINGS = ("_0000",), ("_seg", "_label", "_mask", "_0000")


def is_dataset(root: Path) -> bool:
    """Whether a folder has images and labels side by side."""
    return (root / IMAGES).is_dir() and any((root / name).is_dir() for name in LABELS)


def volumes(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by their names without extension; hidden ones (`._x.nii.gz`) are left out.

    Raises:
        DataError: two files of one name, upper and lower case not differing.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(SUFFIXES) or not path.is_file():
            continue
        contralaterals = [other for name, other in found.items() if name.lower() == stem(path).lower()]
        if contralaterals:
            raise DataError(
                path,
                "needs a name of its own (upper and lower case do not differ, nor .nii and .nii.gz)",
                f"{contralaterals[0].name} beside it",
                "Remove or rename one of them.",
            )
        found[stem(path)] = path
    return found


def read(root: Path) -> DatasetIndex:
    """Find the cases of plain folders. Only names are read, no image.

    An image and a label map belong together if their names are equal. Endings that many tools add (`_0000` of
    an image; `_seg`, `_label`, `_mask`, `_0000` of a label map) are passed over where that leaves one partner.

    Raises:
        DataError: no names for the labels, an image without a label map, a label map without an image, two
            label maps for one image.
        LabelError: `label_map.json` is no label map.
    """
    places = [root / name for name in LABELS if (root / name).is_dir()]
    if len(places) > 1:
        raise DataError(root, "must have labels/ or masks/", "both", "Move one of them elsewhere.")
    images, label_maps = volumes(root / IMAGES), volumes(places[0])
    for folder, files in ((root / IMAGES, images), (places[0], label_maps)):
        if not files:
            raise DataError(folder, "must hold NIfTI files (.nii.gz or .nii)", "none")
    if not (root / NAMES).is_file():
        raise DataError(
            root / NAMES,
            "must say what the values of the label maps mean",
            "no such file",
            'Write it, for example: {"0": "background", "1": "liver", "2": "spleen"}',
        )
    labels = LabelMap.load(root / NAMES)
    pairs = pair(images, label_maps)
    cases = tuple(Case(id, image, label, annotated=labels.structures) for id, (image, label) in sorted(pairs.items()))
    return DatasetIndex(root, cases, labels.structures, labels)


def pair(images: dict[str, Path], label_maps: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Which label map belongs to which image, by case id: never by order, and only where there is no doubt.

    Raises:
        DataError: a file without a partner, or with two; names it.

    >>> pair({"a_0000": Path("i/a_0000.nii")}, {"a_seg": Path("l/a_seg.nii")})["a"][1].name
    'a_seg.nii'
    """
    found = {name: (images[name], label_maps[name]) for name in images if name in label_maps}
    left = _by_id({name: path for name, path in images.items() if name not in found}, _IMAGE_ENDINGS, found)
    others = _by_id({name: path for name, path in label_maps.items() if name not in found}, _LABEL_ENDINGS, found)
    for path, id, partners, what in (
        *((path, id, others, "image needs its label map") for id, path in left.items()),
        *((path, id, left, "label map needs its image") for id, path in others.items()),
    ):
        if id not in partners:
            near = nearest(id, partners)
            fix = f"Is '{partners[near[0]].name}' meant?" if near else "Add it, or move this file elsewhere."
            raise DataError(path, f"every {what}", f"none named {id}", fix)
    return found | {id: (path, others[id]) for id, path in left.items()}


def _by_id(files: dict[str, Path], endings: tuple[str, ...], taken: dict[str, tuple[Path, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in files.items():
        id = next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)
        if id in found or (id != name and id in taken):
            other = found[id] if id in found else next(file for file in taken[id] if file.parent == path.parent)
            raise DataError(
                path, "must be the only file of its case", f"{other.name} beside it", "Move one of them elsewhere."
            )
        found[id] = path
    return found
