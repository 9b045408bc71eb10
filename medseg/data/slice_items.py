"""Slices to segment, and the classes of a set of slices."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from medseg.data import kaggle
from medseg.data.layouts import discover
from medseg.data.slice_phantom import STRUCTURES
from medseg.data.slices import PATIENT, info, owner
from medseg.errors import ConfigError, DataError, LabelError
from medseg.image_io_2d import SliceInfo, is_picture, neighbours, read_image_2d
from medseg.labels import LabelMap, groups

logger = logging.getLogger(__name__)


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
        DataError, LabelError: see `discover`, `DatasetIndex.choose` and `LabelMap.load`.

    >>> choose_labels(None).structures
    ('stomach', 'small_bowel', 'large_bowel')
    """
    wanted = [structures] if isinstance(structures, str) else list(structures)
    if known is not None and Path(known).is_file():
        labels = LabelMap.load(known)
        known_groups, meant = groups(), set[str]()
        for entry in wanted:
            meant |= set(known_groups.get(entry, ())) & set(labels.structures) or {entry}
        if "all" not in wanted and meant != set(labels.structures):
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


def slice_items(
    inputs: str | Path | Iterable[str | Path], context: int = 0, without: str | Path | None = None
) -> list[dict[str, Any]]:
    """Pictures to segment as items: `[{"image": path, "case": id, ...}, ...]`; see `SliceInfo.item`.

    Scans are told by the pictures' names and folders. Where a picture of a scan has more than 8 bits, all of the scan
    is read for its range, within the folders that were given. A picture that cannot be read is an item nevertheless.

    Args:
        inputs: pictures, and folders of pictures (with all below them).
        context: how many neighbours on each side an item names.
        without: a folder whose pictures are none of them, such as that of the output.

    Raises:
        DataError: nothing of that name, no picture, or two pictures of one name.
    """
    files: list[Path] = []
    for given in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(given)
        if not path.exists():
            raise DataError(path, "must be a picture or a folder of pictures", "no such file")
        files += sorted(one for one in path.rglob("*") if is_picture(one)) if path.is_dir() else [path]
    if without is not None:
        files = [file for file in files if Path(without).resolve() not in file.resolve().parents]
    if not files:
        raise DataError(str(inputs), "must hold pictures (.png and the like)", "none")
    found: dict[str, tuple[Path, SliceInfo]] = {}
    names: dict[str, Path] = {}
    for file in files:
        whole = file.resolve()  # the folders above tell more than what was typed
        named = kaggle.slice_at(whole, _owner) if whole.parent.name == kaggle.SCANS else None
        id, said = named or (file.stem, info(file.stem))
        contralateral = names.setdefault(id.lower(), file)
        if contralateral.resolve() != whole:
            raise DataError(
                file,
                "needs a name of its own, for its mask is called after it",
                f"{contralateral}, too",
                "Give folders of images alone (DATA/train/images), or one folder at a time.",
            )
        found[id] = (file, said)
    scans = {id: f"{file.resolve().parent}/{said.scan}" if said.scan else "" for id, (file, said) in found.items()}
    limits = _limits([(file, scans[id]) for id, (file, _) in found.items()])
    apart = {id: replace(said, scan=scans[id]) for id, (_, said) in found.items()}
    around = neighbours(apart, context)
    if context:
        _warn_of_gaps(apart)
    items = []
    for id, (file, said) in found.items():
        known = replace(said, limits=limits.get(scans[id]))
        items.append({"image": str(file), "case": id, **known.item([found[one][0] for one in around[id]])})
    return items


def _warn_of_gaps(slices: Mapping[str, SliceInfo]) -> None:
    """Say so where the slices of a scan are not numbered one by one: their neighbours may be missing."""
    numbers: dict[str, list[int]] = {}
    for said in slices.values():
        if said.scan and said.number is not None:
            numbers.setdefault(said.scan, []).append(said.number)
    for scan, held in numbers.items():
        gaps = {after - before for before, after in pairwise(sorted(held))}
        if len(held) == 1 or gaps != {1}:
            logger.warning(
                "%s: slices are missing (%d of numbers %d to %d are there); neighbours are not those of training",
                scan,
                len(held),
                min(held),
                max(held),
            )
            return


def _owner(name: str) -> str:
    return owner(name, re.compile(PATIENT))


def _limits(slices: Sequence[tuple[Path, str]]) -> dict[str, tuple[float, float]]:
    """The range of each scan with pictures of more than 8 bits; whatever cannot be read is passed over here."""
    scans: dict[str, list[Path]] = {}
    for file, scan in slices:
        if scan:
            scans.setdefault(scan, []).append(file)
    found = {}
    for scan, files in scans.items():
        ends = []
        for file in files:
            try:
                ends += [picture.limits] if (picture := read_image_2d(file)).deep else []
            except DataError:
                continue  # its own item says so
        if ends:
            found[scan] = (min(low for low, _ in ends), max(high for _, high in ends))
        if len(ends) == 1:
            logger.warning(
                "%s: one slice of its scan alone is scaled by its own range, not by that of the whole scan", files[0]
            )
    return found
