"""The worst cases in pictures: read again, cut where most is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from medseg.data.folders import volumes
from medseg.data.nifti import read_volume
from medseg.errors import DataError, MedsegError
from medseg.evaluation.pairs import Pairs, read_pair
from medseg.grid import Grid
from medseg.report.error_maps import agreement

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)


def worst_cases(
    content: Mapping[str, Any], pairs: Pairs, most: int, images: Path | None = None, resample: bool = False
) -> dict[str, list[tuple[str, Image.Image]]]:
    """Three planes of each of the worst cases, by case, the worst first; each with its name.

    Args:
        content: as `Evaluation.to_dict` gives it: the worst cases come first there.
        pairs: what was compared.
        most: how many cases.
        images: a folder with their scans, `<case>.nii.gz`; by default those of the data set, where it has them.
        resample: see `read_pair`.

    Raises:
        DataError: `images` is no folder.
    """
    if images is not None and not images.is_dir():
        raise DataError(images, "must be a folder of scans", "a file" if images.exists() else "no such folder")
    scans = volumes(images) if images is not None else {}
    found: dict[str, list[tuple[str, Image.Image]]] = {}
    for case in tqdm(content["cases"][: max(0, most)], desc="Pictures", unit="case", disable=None, leave=False):
        id = case["case"]
        truth, prediction = pairs.cases[id]
        true, predicted, grid, _ = read_pair(truth, prediction, pairs.labels, resample)
        scan = scans.get(id) or scans.get(f"{id}_0000") or truth.image
        if len(truth.structures) < len(pairs.labels):  # what nobody looked for is background here, too
            for name in pairs.labels:
                if name not in truth.structures:
                    predicted[predicted == pairs.labels.index(name)] = 0
        found[id] = agreement(_hu(scan, grid), true, predicted, grid)
    return found


def _hu(scan: Path | None, grid: Grid) -> Any:
    """The scan below the label maps, where it is there and lies where they lie."""
    if scan is None:
        return None
    try:
        hu, location = read_volume(scan)
        grid.require(location, scan, "the truth")
    except MedsegError as error:
        logger.warning("No scan in the picture: %s", error)
        return None
    return hu
