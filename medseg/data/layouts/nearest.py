"""Describe a folder that is in no known layout: what lies there, and which layout it is nearest to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from medseg.data.layouts import datalist, folders, nnunet, slices, totalsegmentator
from medseg.data.layouts.listed_cases import Listing
from medseg.errors import MedsegError
from medseg.file_names import VOLUMES, entries, has_suffix, walk

_KNOWN = (
    f"{datalist.NAME} (a prepared set), "
    f"{nnunet.DESCRIPTION} with {nnunet.IMAGES_TR} and {nnunet.LABELS_TR} (nnU-Net raw, Decathlon), "
    f"sXXXX/{totalsegmentator.IMAGE} with sXXXX/{totalsegmentator.MASKS}/<structure>.nii.gz (TotalSegmentator), "
    f"slices as PNG in {slices.IMAGES}/ and {slices.MASKS[0]}/, below train/ and valid/ or not, or in Kaggle's layout, "
    f"or {folders.IMAGES}/ with {folders.LABELS[0]}/ and {folders.NAMES}"
)
_IMAGE_WORDS = {"images", "image", "imgs", "img", "scans", "scan", "ct", "cts", "volumes", "volume", "data"}
_LABEL_WORDS = {
    *("labels", "label", "masks", "mask", "segs", "seg", "segmentations", "segmentation", "annotations", "gt"),
    *("groundtruth", "ground_truth", "truth"),
}
_PARTS = {folders.IMAGES, *folders.LABELS, nnunet.IMAGES_TR, nnunet.LABELS_TR, nnunet.IMAGES_TS, totalsegmentator.MASKS}
_SAMPLE = 20  # folders that are looked into


def describe_unknown(root: Path, collect: Callable[[Path], Listing | None]) -> tuple[str, str]:
    """Return what lies in a folder, and sentences that say what to do.

    Args:
        root: the folder.
        collect: lists what another folder holds; None if it is in no known layout.
    """
    paths = entries(root)
    layouts = f"The layouts are {_KNOWN}."
    if not paths:
        return "an empty folder", layouts
    content = f"{len(paths)} entries, for example {', '.join(path.name for path in paths[:4])}"
    return content, f"{_nearest(root, paths, collect)} {layouts}".strip()


def _nearest(root: Path, paths: Sequence[Path], collect: Callable[[Path], Listing | None]) -> str:
    inner = [path for path in paths if path.is_dir()]
    part = root.resolve().name in _PARTS or totalsegmentator.is_case(root)
    for folder in [*inner[:_SAMPLE], *([root.resolve().parent] if part else [])]:
        try:
            listing = collect(folder)
        except MedsegError:
            continue
        if listing is not None and listing.cases:
            return f"Is {folder} meant, which is in {listing.kind}?"
    if any((root / name).is_dir() for name in (nnunet.IMAGES_TR, nnunet.LABELS_TR)):
        example = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}'
        return f"nnU-Net raw is nearest, and lacks {nnunet.DESCRIPTION}, for example {example}."
    images, labels = _first(inner, _IMAGE_WORDS), _first(inner, _LABEL_WORDS)
    names = f"and name the values of label maps in {folders.NAMES}"
    if images and labels:
        return f"Plain folders are nearest: rename {images} to {folders.IMAGES} and {labels} to labels, {names}."
    for folder in inner[:_SAMPLE]:
        volumes = [path for path in itertools.islice(walk(folder), 1000) if has_suffix(path, VOLUMES)]
        if volumes:
            listed = ", ".join(path.relative_to(root).as_posix() for path in volumes[:3])
            return (
                f"The layout of TotalSegmentator is nearest ({listed}): rename the scan to "
                f"{folder.name}/{totalsegmentator.IMAGE}, and put binary masks into "
                f"{folder.name}/{totalsegmentator.MASKS}/<structure>.nii.gz; or collect scans in "
                f"{folders.IMAGES}/{folder.name}.nii.gz and label maps in labels/{folder.name}.nii.gz, {names}."
            )
    if any(has_suffix(path, VOLUMES) for path in paths):
        move = f"put scans into {folders.IMAGES}/ and label maps of their names into labels/"
        return f"Plain folders are nearest: {move}, {names}."
    return ""


def _first(paths: Sequence[Path], words: Collection[str]) -> str:
    return next((path.name for path in paths if path.name.lower() in words), "")
