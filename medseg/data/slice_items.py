"""Slices to segment, and the classes of a set of slices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medseg.data import kaggle
from medseg.data.layouts import discover
from medseg.data.slice_phantom import STRUCTURES
from medseg.data.slices import PATIENT, info, owner
from medseg.errors import ConfigError, DataError, LabelError
from medseg.labels import LabelMap
from medseg.pictures import SliceInfo, is_picture, neighbours, read_picture


def choose_labels(
    root: str | Path | None, structures: str | Sequence[str] = "all", known: str | Path | None = None
) -> LabelMap:
    """The classes of the set of slices under `root`, in its own order; those of a network that is trained already.

    Args:
        root: the folder; None for the phantom that comes with medseg.
        structures: names, or `all`.
        known: the label map of the network (`label_map.json`, as the folder of a run has it); where that file is, it
            says what the classes are, and nothing else is looked at.

    Raises:
        ConfigError: structures that are not those of the network.
        DataError, LabelError: see `discover`, `Dataset.choose` and `LabelMap.load`.

    >>> choose_labels(None).structures
    ('stomach', 'small_bowel', 'large_bowel')
    """
    wanted = [structures] if isinstance(structures, str) else list(structures)
    if known is not None and Path(known).is_file():
        labels = LabelMap.load(known)
        if "all" not in wanted and set(wanted) != set(labels.structures):
            raise ConfigError(
                "structures", f"must be those of the network, as {known} names them", ", ".join(wanted), "Leave it out."
            )
        return labels
    if root is not None:
        return discover(root).choose(structures)
    unknown = [name for name in wanted if name not in (*STRUCTURES, "all")]
    if unknown:
        raise LabelError(f"structure '{unknown[0]}'", "must be one of the phantom's", ", ".join(STRUCTURES))
    return LabelMap([name for name in STRUCTURES if name in wanted or "all" in wanted])


def slice_items(inputs: str | Path | Iterable[str | Path], context: int = 0) -> list[dict[str, Any]]:
    """Pictures to segment as items: `[{"image": path, "case": id, ...}, ...]`; see `SliceInfo.item`.

    Scans are told by the pictures' names. Where a picture of a scan has more than 8 bits, all of the scan is read for
    its range, within the folders that were given.

    Args:
        inputs: pictures, and folders of pictures (with all below them).
        context: how many neighbours on each side an item names.

    Raises:
        DataError: nothing of that name, no picture, two pictures of one name, or one that cannot be read.
    """
    files: list[Path] = []
    for given in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(given)
        if not path.exists():
            raise DataError(path, "must be a picture or a folder of pictures", "no such file")
        files += sorted(one for one in path.rglob("*") if is_picture(one)) if path.is_dir() else [path]
    if not files:
        raise DataError(str(inputs), "must hold pictures (.png and the like)", "none")
    found: dict[str, tuple[Path, SliceInfo]] = {}
    for file in files:
        named = kaggle.slice_at(file, _owner) if file.parent.name == kaggle.SCANS else None
        id, said = named or (file.stem, info(file.stem))
        if id in found and found[id][0] != file:
            raise DataError(file, "needs a name of its own, for its mask is called after it", f"{found[id][0]}, too")
        found[id] = (file, said)
    limits = _limits([(file, said) for file, said in found.values()])
    around = neighbours({id: said for id, (_, said) in found.items()}, context)
    items = []
    for id, (file, said) in found.items():
        known = SliceInfo(said.patient, said.scan, said.number, said.spacing, limits.get(said.scan))
        items.append({"image": str(file), "case": id, **known.item([found[one][0] for one in around[id]])})
    return items


def _owner(name: str) -> str:
    return owner(name, re.compile(PATIENT))


def _limits(slices: Sequence[tuple[Path, SliceInfo]]) -> dict[str, tuple[float, float]]:
    """The range of each scan whose pictures have more than 8 bits; those of 8 bits are told by their first."""
    scans: dict[str, list[Path]] = {}
    for file, said in slices:
        if said.scan:
            scans.setdefault(said.scan, []).append(file)
    found = {}
    for scan, files in scans.items():
        if read_picture(files[0]).deep:
            ends = [picture.limits for picture in map(read_picture, files) if picture.deep]
            found[scan] = (min(low for low, _ in ends), max(high for _, high in ends))
    return found
