"""Check what a split trains and validates on: cases, pictures and patients apart, and the structures in either."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import write_json
from medseg.cases import Case, DatasetIndex
from medseg.data.case_jobs import source_key
from medseg.data.checks.dataset import check_content
from medseg.data.masks import label_values
from medseg.data.store import read_store
from medseg.data.volumes import read_scan
from medseg.errors import DataError
from medseg.findings import names_of
from medseg.image_io_2d import is_image_2d, read_image_2d
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

_PART = 65536  # bytes of a file that tell most files of one size apart


def require_apart(dataset: DatasetIndex, allow_repeats: bool = False) -> None:
    """Refuse cases that train and are held out.

    Args:
        dataset: with the split decided.
        allow_repeats: whether to log them only, to see whether a network can learn a case at all.

    Raises:
        DataError: there is one.
    """
    repeated = dataset.split.repeated_cases()
    if repeated and not allow_repeats:
        problem = f"{names_of(repeated)} train and are held out at the same time, so the scores would be too good"
        fix = "Leave each case in one subset; data#allow_repeats=true is only to see whether a network learns at all."
        raise DataError(dataset.root, problem, "", fix)
    if repeated:
        problem = "train and are held out as well: the Dice tells whether the network learns, not how good it is"
        logger.warning("%s: %s %s", dataset.root, names_of(repeated), problem)


def check_subsets(dataset: DatasetIndex, labels: LabelMap, cache: Path) -> None:
    """Refuse a split whose scores would mean nothing, and log what its scores cannot show.

    Label maps are read once; what is in them is kept in `cache`.

    Args:
        dataset: label maps numbered as `labels`, with the split decided.
        labels: the classes of the network.
        cache: a folder.

    Raises:
        DataError: a picture that trains and is held out, or no structure in any training case.
        LabelError: a label map holds a value without a name.
    """
    contents = _contents(dataset, labels, cache)
    if not dataset.split.repeated_cases():
        _require_other_images(dataset, {id: digest for id, (_, digest) in contents.items()})
    held = {id: names for id, (names, _) in contents.items()}
    for finding in check_content(dataset.split, held, labels.structures, dataset.patients):
        if finding.severity == "error":
            raise DataError(dataset.root, finding.message, "", finding.fix)
        logger.warning("%s: %s", dataset.root, finding.message)


def _contents(dataset: DatasetIndex, labels: LabelMap, cache: Path) -> dict[str, tuple[list[str], str]]:
    """Return, for each case that trains or validates, the structures in its label map and a digest of it."""
    ids = [*dataset.split.train, *dataset.split.val]
    cases = [case for case in map(dataset.case, dict.fromkeys(ids)) if case.label is not None]
    digest = hashlib.sha256(json.dumps(labels.names).encode())
    for case in cases:
        digest.update(source_key(case, case.combinations).encode())
    path = cache / f"contents-{digest.hexdigest()[:16]}.json"
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
    else:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            known = dict(
                zip([case.id for case in cases], pool.map(lambda case: _content(case, labels), cases), strict=True)
            )
        write_json(path, known)
    contents = {id: (list(names), str(digest)) for id, (names, digest) in known.items()}
    for id in dataset.split.train if dataset.store is not None else ():
        index = read_store(dataset.store or Path(), id, labels).index
        contents[id] = ([name for name, slices in zip(labels, index, strict=True) if slices.any()], "")
    return contents


def _content(case: Case, labels: LabelMap) -> tuple[list[str], str]:
    label = _voxels(case.label or Path(), case.accept)
    if case.combinations is not None:
        indices = {channel + 1 for value in np.unique(label) for channel in case.combinations[int(value)]}
    else:
        indices = {int(value) for value in np.unique(label_values(label, labels, case.label)) if value}
    digest = hashlib.sha256(repr(label.shape).encode() + np.ascontiguousarray(label).tobytes()).hexdigest()[:16]
    return [labels.name(index) for index in sorted(indices)], digest if indices else ""


def _voxels(path: Path, accept: Sequence[str]) -> npt.NDArray[Any]:
    return read_image_2d(path).values if is_image_2d(path) else read_scan(path, accept).voxels


def _require_other_images(dataset: DatasetIndex, label_digests: dict[str, str]) -> None:
    """Refuse an image that trains and is held out under two names; images are compared where file or labels agree."""

    def keys(case: Case) -> list[tuple[Any, ...]]:
        digest = label_digests.get(case.id)
        return [_part(case.image), *([("label", digest)] if digest else [])]

    trained: dict[tuple[Any, ...], list[Case]] = {}
    for case in map(dataset.case, dataset.split.train):
        for key in keys(case):
            trained.setdefault(key, []).append(case)
    for case in map(dataset.case, (*dataset.split.val, *dataset.split.test)):
        for other in {other.id: other for key in keys(case) for other in trained.get(key, [])}.values():
            image, copy = (_voxels(each.image, each.accept) for each in (case, other))
            if np.array_equal(image, copy) and image.min() < image.max():  # an empty picture is no copy of another
                problem = f"{other.id} and {case.id} are the same image, and one of them is held out"
                raise DataError(dataset.root, problem, f"{other.image}, {case.image}", "Keep one of the two.")


def _part(path: Path) -> tuple[Any, ...]:
    """Return the size of a file and what is in its middle, or the name of a folder, which is compared by labels."""
    if not path.is_file():
        return (str(path),)
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size // 2 - _PART // 2))
        return size, hashlib.sha256(file.read(_PART)).digest()
