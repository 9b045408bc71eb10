"""Read plain folders paired by name: images/<case>.nii.gz, labels/ (or masks/)<case>.nii.gz, label_map.json."""

from __future__ import annotations

from pathlib import Path

from medseg.cases import Case
from medseg.data.layouts.listed_cases import Listing
from medseg.errors import DataError, nearest
from medseg.file_names import existing, list_files, spelled_as
from medseg.findings import Finding, error
from medseg.labels import LabelMap

IMAGES, LABELS, NAMES = "images", ("labels", "masks"), "label_map.json"
_IMAGE_ENDINGS, _LABEL_ENDINGS = ("_0000",), ("_seg", "_label", "_mask", "_0000")


def collect(root: Path) -> Listing | None:
    """List the cases of plain folders; None if there are no images and labels side by side.

    An image and a label map belong together if their names are equal, see `name_key`. Endings that many tools add
    (`_0000` of an image; `_seg`, `_label`, `_mask`, `_0000` of a label map) are ignored if that leaves one partner.

    Raises:
        DataError: there are no names for the labels, no NIfTI files, or both labels/ and masks/.
        LabelError: `label_map.json` is no label map.
    """
    image_folder = existing(root / IMAGES)
    label_folders = [folder for folder in (existing(root / name) for name in LABELS) if folder.is_dir()]
    if not image_folder.is_dir() or not label_folders:
        return None
    if len(label_folders) > 1:
        raise DataError(root, "the folder has both labels/ and masks/", "", "Move one of them elsewhere.")
    images, image_findings = list_files(image_folder)
    label_maps, label_findings = list_files(label_folders[0])
    for folder, files in ((image_folder, images), (label_folders[0], label_maps)):
        if not files:
            raise DataError(folder, "the folder holds no NIfTI files (.nii.gz or .nii)")
    if not (root / NAMES).is_file():
        example = 'Write it, for example: {"0": "background", "1": "liver", "2": "spleen"}'
        raise DataError(
            root / NAMES, "this file must name the values of the label maps, but it is missing", "", example
        )
    labels = LabelMap.load(root / NAMES, gaps=True)
    pairs, pair_findings = pair(images, label_maps)
    cases = [Case(id, image, label, annotated=labels.structures) for id, (image, label) in sorted(pairs.items())]
    findings = [*image_findings, *label_findings, *pair_findings]
    return Listing("plain folders", root, cases, labels.structures, labels, findings=findings)


def pair(images: dict[str, Path], label_maps: dict[str, Path]) -> tuple[dict[str, tuple[Path, Path]], list[Finding]]:
    """Pair images and label maps by name: never by order, and only if there is no doubt.

    Returns:
        image and label map by case id, and a finding for each file without a partner or with two.

    Example:
        >>> pairs, findings = pair({"a_0000": Path("i/a_0000.nii")}, {"a_seg": Path("l/a_seg.nii")})
        >>> pairs["a"][1].name, findings
        ('a_seg.nii', [])
    """
    label_maps = spelled_as(label_maps, images)
    pairs = {name: (images[name], label_maps[name]) for name in images if name in label_maps}
    findings: list[Finding] = []
    unpaired = {name: path for name, path in images.items() if name not in pairs}
    unpaired_labels = {name: path for name, path in label_maps.items() if name not in pairs}
    image_by_id = _without_endings(unpaired, _IMAGE_ENDINGS, pairs, findings)
    label_by_id = spelled_as(_without_endings(unpaired_labels, _LABEL_ENDINGS, pairs, findings), image_by_id)
    for id in sorted(image_by_id.keys() - label_by_id):
        message = f"the image has no label map named {id}"
        findings.append(error("image-alone", image_by_id[id], message, _suggest(id, label_by_id)))
    for id in sorted(label_by_id.keys() - image_by_id):
        message = f"the label map has no image named {id}"
        findings.append(error("mask-alone", label_by_id[id], message, _suggest(id, image_by_id)))
    for id, image in image_by_id.items():
        if id in label_by_id:
            pairs[id] = (image, label_by_id[id])
    return pairs, findings


def _suggest(id: str, partners: dict[str, Path]) -> str:
    similar = nearest(id, partners)
    return f"Is '{partners[similar[0]].name}' meant?" if similar else "Add it, or move this file elsewhere."


def _without_endings(
    files: dict[str, Path], endings: tuple[str, ...], pairs: dict[str, tuple[Path, Path]], findings: list[Finding]
) -> dict[str, Path]:
    """Return files by their names without an ending; a second file of a case is a finding."""
    by_id: dict[str, Path] = {}
    for name, path in files.items():
        id = next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)
        if id in by_id or (id != name and id in pairs):
            first = by_id[id] if id in by_id else next(file for file in pairs[id] if file.parent == path.parent)
            message = f"it is a second file of its case, beside {first.name}"
            findings.append(error("same-id", path, message, "Move one of them elsewhere."))
        else:
            by_id[id] = path
    return by_id
