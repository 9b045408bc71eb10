"""The label maps of a folder, predicted or true, in whatever layout: which cases, which structures, numbered how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.data.folders import volumes
from medseg.data.layouts import DATALIST, discover
from medseg.data.nifti import read_label_names, read_looked_for, stem
from medseg.data.nnunet import DESCRIPTION
from medseg.data.totalsegmentator import IMAGE, MASKS, in_order
from medseg.errors import DataError, LabelError
from medseg.labels import BACKGROUND, LabelMap

NAMES = "label_map.json"
_SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class Source:
    """The label map of one case as it lies on disk.

    Args:
        case: its id.
        label: a file with one label for each voxel; None where there are masks.
        masks: binary masks by structure, instead.
        labels: how `label` is numbered.
        structures: what may be in it; of a truth, what somebody looked for.
        image: the scan, where it is known.
    """

    case: str
    label: Path | None
    masks: Mapping[str, Path] = field(default_factory=dict)
    labels: LabelMap | None = None
    structures: tuple[str, ...] = ()
    image: Path | None = None

    @property
    def path(self) -> Path:
        """The file, or the folder of the masks."""
        return self.label if self.label is not None else next(iter(self.masks.values())).parent


def find_sources(root: str | Path, names: LabelMap | None = None) -> dict[str, Source]:
    """The label maps under `root`, by case id.

    Args:
        root: a folder of NIfTI label maps `<case>.nii.gz`; a folder of `<case>/<structure>.nii.gz` or
            `<case>/segmentations/<structure>.nii.gz`; or a data set in any layout that `discover` knows.
        names: how the label maps are numbered, where that is not written into their headers, in `label_map.json` or
            in `dataset.json` beside or above them. It overrules what is written.

    Raises:
        DataError: nothing of that kind; LabelError: label maps whose numbers nobody names.
    """
    root = Path(root)
    if not root.is_dir():
        if root.suffix == ".json" and root.is_file():
            return _of_dataset(root, names)
        raise DataError(root, "must be a folder of label maps", "a file" if root.exists() else "no such folder")
    described = any((root / name).is_file() for name in (DATALIST, DESCRIPTION))
    files = volumes(root)
    if files:
        above = _of_dataset_above(root, names) if not described else {}
        return {case: above.get(case) or _of_file(case, path, names) for case, path in files.items()}
    if not described:
        folders = {folder.name: masks for folder in sorted(root.iterdir()) if (masks := _masks_in(folder))}
        if folders:
            return {
                case: Source(case, None, masks, structures=ordered(masks), image=_image_of(root / case))
                for case, masks in folders.items()
            }
    return _of_dataset(root, names)


def ordered(names: Sequence[str] | Mapping[str, Path]) -> tuple[str, ...]:
    """The names in TotalSegmentator's order, those that it does not know after them, in theirs."""
    known = in_order(names)
    return (*known, *(name for name in names if name not in known))


def read_names(path: str | Path) -> LabelMap:
    """A numbering from `label_map.json`, from `dataset.json` of nnU-Net or the Decathlon, or TotalSegmentator's own.

    Args:
        path: the file, or the word `totalsegmentator` for the 117 structures of version 2.

    Raises:
        LabelError: it holds none.
    """
    if str(path).lower() == "totalsegmentator":
        return LabelMap.totalsegmentator()
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        labels = content.get("labels", content)
        if any(isinstance(value, int) for value in labels.values()):
            labels = {str(value): name for name, value in labels.items()}
        named = {str(index): str(name) for index, name in labels.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise LabelError(path, "must be a readable JSON file with the names of labels", str(error)) from error
    return LabelMap.from_dict({**named, "0": BACKGROUND}, source=path)


def _of_file(case: str, path: Path, names: LabelMap | None) -> Source:
    own = names or read_label_names(path)
    if own is None:
        places = [folder / name for folder in (path.parent, path.parent.parent) for name in (NAMES, DESCRIPTION)]
        beside = next((location for location in places if location.is_file()), None)
        if beside is None:
            raise LabelError(
                path,
                "must say what its labels mean: label maps are matched by name, never by number",
                f"no names in its header, and neither {NAMES} nor {DESCRIPTION} beside it",
                "Give them: --truth-labels or --prediction-labels with such a file, or the word totalsegmentator.",
            )
        own = read_names(beside)
    return Source(case, path, labels=own, structures=read_looked_for(path) or own.structures)


def _masks_in(folder: Path) -> dict[str, Path]:
    """The masks of one case: `segmentations/*.nii.gz`, or `*.nii.gz` where the folder holds nothing but masks."""
    inside = folder / MASKS
    if inside.is_dir():
        return {stem(path): path for path in sorted(inside.glob(f"*{_SUFFIX}")) if not path.name.startswith(".")}
    if not folder.is_dir() or folder.name.startswith("."):
        return {}
    files = {stem(path): path for path in sorted(folder.glob(f"*{_SUFFIX}")) if not path.name.startswith(".")}
    files.pop(stem(IMAGE), None)
    return files if not any(name.endswith("_0000") for name in files) and in_order(files) else {}


def _image_of(folder: Path) -> Path | None:
    return folder / IMAGE if (folder / IMAGE).is_file() else None


def _of_dataset(root: Path, names: LabelMap | None) -> dict[str, Source]:
    dataset = discover(root)
    found = {}
    for case in dataset.cases:
        if case.masks:
            structures = ordered(case.masks)
            found[case.id] = Source(case.id, None, dict(case.masks), structures=structures, image=case.image)
        elif case.label is not None:
            own = names or dataset.labels
            structures = case.annotated if case.annotated is not None else own.structures if own else ()
            found[case.id] = Source(case.id, case.label, labels=own, structures=tuple(structures), image=case.image)
    if not found:
        raise DataError(root, "must hold label maps or masks", f"{len(dataset.cases)} cases without")
    return found


def _of_dataset_above(folder: Path, names: LabelMap | None) -> dict[str, Source]:
    """What the data set says of its own label maps, where the folder is a part of one; it knows what is annotated."""
    if not any((folder.parent / name).is_file() for name in (DATALIST, DESCRIPTION)):
        return {}
    try:
        found = _of_dataset(folder.parent, names)
    except (DataError, LabelError):
        return {}  # not a whole data set: its label maps have to speak for themselves
    here = folder.resolve()
    return {stem(one.label): one for one in found.values() if one.label and one.label.parent.resolve() == here}
