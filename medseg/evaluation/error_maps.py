"""Images of where prediction and truth differ, in three planes of the worst cases, or one slice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from medseg.data.masks import flatten_masks
from medseg.data.volumes import read_volume
from medseg.errors import DataError, MedsegError
from medseg.evaluation.pairs import Pairs, read_pair
from medseg.evaluation.pictures import Picture
from medseg.file_names import VOLUMES, files_by_name, spelled_as
from medseg.grid import Grid, to_ras
from medseg.image_io_2d import intensities, read_image_2d
from medseg.labels import LabelMap
from medseg.report.overlays import ERROR_COLORS, HU_WINDOW, from_screen, gray, overlay

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
_MARGIN_MM, _SIDE = 15.0, 420  # around the labels; the longer side of an image in pixels
_OPACITIES = np.array([0.0, 0.35, 0.8, 0.8, 0.8])  # correct voxels are tinted faintly, so that the errors stand out


def worst_case_images(
    content: Mapping[str, Any], pairs: Pairs, count: int, images: Path | None = None, resample: bool = False
) -> dict[str, list[tuple[str, Image.Image]]]:
    """Draw three planes of each of the worst cases, of slices the worst one; by case, each image with its name.

    Args:
        content: as `Evaluation.to_dict` gives it: the worst cases come first there.
        pairs: what was compared.
        count: how many cases.
        images: a folder with their scans, `<case>.nii.gz`; by default those of the data set, if it has them.
        resample: see `read_pair`.

    Raises:
        DataError: `images` is no folder.
    """
    if images is not None and not images.is_dir():
        raise DataError(images, "there must be a folder of scans", "a file" if images.exists() else "no such folder")
    scans = spelled_as(files_by_name(images, VOLUMES), pairs.cases) if images is not None else {}
    planes: dict[str, list[tuple[str, Image.Image]]] = {}
    for case in tqdm(content["cases"][: max(0, count)], desc="Images", unit="case", disable=None, leave=False):
        id = case["case"]
        truth, prediction = pairs.cases[id]
        if truth.slices:
            planes[id] = [_worst_slice(truth.slices, prediction.slices, pairs.labels)]
            continue
        true, predicted, grid, _ = read_pair(truth, prediction, pairs.labels, resample)
        grid = grid or Grid(true.shape, np.eye(4))
        scan = scans.get(id) or scans.get(f"{id}_0000") or truth.image
        # Structures that are not annotated count as background in the scores, so they do here.
        for name in pairs.labels:
            if name not in truth.structures:
                predicted[predicted == pairs.labels.index(name)] = 0
        planes[id] = error_maps(_scan_hu(scan, grid, truth.accept), true, predicted, grid)
    return planes


def _worst_slice(
    truths: Sequence[Picture], predictions: Sequence[Picture], labels: LabelMap
) -> tuple[str, Image.Image]:
    """Draw the slice with most wrong pixels, over its image if there is one."""
    worst: tuple[int, Picture, Array] | None = None
    for truth, prediction in zip(truths, predictions, strict=True):
        annotated = np.array([name in truth.structures for name in labels])[:, None, None]
        sides = (truth.masks(labels, truth)[0], prediction.masks(labels, truth)[0] & annotated)
        kinds = classify_errors(*(flatten_masks(masks, labels) for masks in sides))
        wrong = int(np.count_nonzero(kinds > 1))
        if worst is None or wrong > worst[0]:
            worst = wrong, truth, kinds
    if worst is None:
        raise DataError("slices", "there is none to draw")
    _, truth, kinds = worst
    is_mask = truth.arrays is not None or truth.case.image in (truth.case.label, *truth.case.masks.values())
    values = np.zeros(kinds.shape) if is_mask else intensities(read_image_2d(truth.case.image))[0]
    colors = np.array([(0, 0, 0), *ERROR_COLORS.values()])
    base = gray(from_screen(values), (0.0, 1.0))
    image = Image.fromarray(overlay(base, from_screen(kinds), colors, _OPACITIES, outlines=False))
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return truth.case.id, image.resize(size, Image.Resampling.NEAREST)


def _scan_hu(scan: Path | None, grid: Grid, accept: Sequence[str]) -> Array | None:
    """Read the scan below the label maps; None, with a warning, if it cannot be read or has another grid."""
    if scan is None:
        return None
    try:
        hu, location = read_volume(scan, accept)
        grid.require(location, scan, "the truth")
    except MedsegError as error:
        logger.warning("The error maps are drawn without the scan: %s", error)
        return None
    return hu


def classify_errors(truth: Array, prediction: Array) -> npt.NDArray[np.uint8]:
    """Return for each voxel: 0 background in both, 1 correct, 2 missed, 3 false, 4 another structure.

    >>> classify_errors(np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 1, 2])).tolist()
    [0, 1, 2, 3, 4]
    """
    kinds = np.where(truth == prediction, 1, 4).astype(np.uint8)
    kinds[(truth > 0) & (prediction == 0)] = 2
    kinds[(truth == 0) & (prediction > 0)] = 3
    kinds[(truth == 0) & (prediction == 0)] = 0
    return kinds


def error_maps(hu: Array | None, truth: Array, prediction: Array, grid: Grid) -> list[tuple[str, Image.Image]]:
    """Draw an axial, a coronal and a sagittal plane, each where most voxels are wrong; each with its name.

    Args:
        hu: the scan, `(I, J, K)`; None for a black ground.
        truth: class indices, `(I, J, K)`, in any orientation.
        prediction: class indices.
        grid: of all three.
    """
    kinds = classify_errors(truth, prediction)
    volumes_ras, turned = to_ras([kinds] if hu is None else [kinds, hu], grid)
    kinds = volumes_ras[0]
    spacing = turned.spacing
    box = _labeled_box(kinds > 0, spacing)
    kinds = kinds[box]
    scan = volumes_ras[1][box] if hu is not None else None
    wrong = kinds > 1 if (kinds > 1).any() else kinds > 0
    colors = np.array([(0, 0, 0), *ERROR_COLORS.values()])
    planes = []
    for name, axis, across, along in (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2)):
        counts = np.count_nonzero(wrong, axis=tuple({0, 1, 2} - {axis}))
        layer = int(counts.argmax())
        plane = np.take(kinds, layer, axis=axis)
        values = np.full(plane.shape, HU_WINDOW[0]) if scan is None else np.take(scan, layer, axis=axis)
        image = Image.fromarray(overlay(gray(values, HU_WINDOW), plane, colors, _OPACITIES, outlines=False))
        width, height = plane.shape[0] * spacing[across], plane.shape[1] * spacing[along]
        scale = _SIDE / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        planes.append((name, image.resize(size, Image.Resampling.BILINEAR)))
    return planes


def _labeled_box(labeled: npt.NDArray[np.bool_], spacing: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """Return the box of the labels, with a margin; the whole volume without any."""
    ranges = []
    for axis, size in enumerate(labeled.shape):
        layers = np.flatnonzero(labeled.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(_MARGIN_MM / spacing[axis])
        low, high = (int(layers[0]) - margin, int(layers[-1]) + margin + 1) if len(layers) else (0, size)
        ranges.append(slice(max(0, low), min(size, high)))
    return ranges[0], ranges[1], ranges[2]
