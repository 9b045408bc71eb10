"""Check the classes: one numbering everywhere, and no flip that turns left structures into right ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medseg.bundle.verify.bundle_files import METADATA, BundleFiles, UnknownValueError, as_mapping
from medseg.bundle.verify.chains import chain
from medseg.catalogue import contralateral_name
from medseg.config.paths import at, components
from medseg.errors import LabelError
from medseg.findings import Finding, error, warning
from medseg.labels import BACKGROUND, LabelMap

FILE = "label_map.json"
_CHANNELS = "network_data_format#outputs#pred#channel_def"
_FLIPS = {"RandFlip", "Flip", "RandAxisFlip"}


def check_classes(bundle: BundleFiles) -> Iterator[Finding]:
    """Find classes that label map, metadata and configs do not number alike."""
    names: dict[str, Sequence[str]] = {}
    if (bundle.root / FILE).is_file():
        try:
            names[FILE] = LabelMap.load(bundle.root / FILE).names
        except LabelError as problem:
            yield error("label-map", FILE, problem.reason, "Number the classes from 0 on.")
    channels = channel_names(bundle)
    if channels:
        names[bundle.location(METADATA, _CHANNELS)] = channels
    for config in bundle.configs:
        labels = label_map(bundle, config)
        if labels is not None:
            names[bundle.location(config, "labels")] = labels.names
    locations = list(names)
    for location in locations[1:]:
        yield from _difference(locations[0], names[locations[0]], location, names[location])


def channel_names(bundle: BundleFiles) -> list[str]:
    """Return the names of the output's channels in order, or of the classes where one channel holds their indices."""
    channels = as_mapping(at(bundle.metadata, _CHANNELS))
    numbered = list(channels) == [str(number) for number in range(len(channels))]
    if not numbered or not all(isinstance(name, str) for name in channels.values()):
        return []
    return list(channels.values())


def label_map(bundle: BundleFiles, config: str) -> LabelMap | None:
    """Return the label map of a config; None where it has none that can be computed without the data."""
    if "labels" not in bundle.configs[config]:
        return None
    try:
        labels = bundle.value(config, "labels")
    except UnknownValueError:
        return None
    return labels if isinstance(labels, LabelMap) else None


def _difference(
    first_location: str, first: Sequence[str], second_location: str, second: Sequence[str]
) -> Iterator[Finding]:
    first, second = _structures(first), _structures(second)
    if first == second:
        return
    if sorted(first) == sorted(second):
        index = next(index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
        message = (
            f"its classes are in another order than those of {first_location}: {second[index]} is where {first[index]} "
            "is there"
        )
        yield error("label-order", second_location, message, "Use the order of the training.")
        return
    only = [*(name for name in first if name not in second), *(name for name in second if name not in first)]
    message = (
        f"it has {len(second)} classes, {first_location} has {len(first)}; only one of them has "
        f"{', '.join(only[:3])}{' ...' if len(only) > 3 else ''}"
    )
    yield error("label-names", second_location, message, "Use the classes of the training.")


def _structures(names: Sequence[str]) -> list[str]:
    """Return the names without the background, which independent channels do not have."""
    return [name for number, name in enumerate(names) if number or name.lower() != BACKGROUND]


def check_flips(bundle: BundleFiles) -> Iterator[Finding]:
    """Find flips of left and right under paired classes: the left kidney would be learned as the right one."""
    pair = contralateral_pair(bundle)
    if pair is None:
        return
    for config in bundle.configs:
        yield from _flips_of_inference(bundle, config, pair)
    if "train" in bundle.configs:
        yield from _flips_of_training(bundle, pair)


def contralateral_pair(bundle: BundleFiles) -> tuple[str, str] | None:
    """Return two classes that are each other's mirror image; None where there are none."""
    names = set(channel_names(bundle))
    for config in bundle.configs:
        labels = label_map(bundle, config)
        names |= set(labels) if labels is not None else set()
    by_form = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in names}
    for form, name in sorted(by_form.items()):
        contralateral = contralateral_name(form)
        if contralateral in by_form:
            return name, by_form[contralateral]
    return None


def _flips_of_inference(bundle: BundleFiles, config: str, pair: tuple[str, str]) -> Iterator[Finding]:
    """Find an inferer that flips left and right and is not told which channels change places."""
    for path, component in components(bundle.expanded(config)):
        if str(component["_target_"]).rpartition(".")[2] != "StreamingInferer":
            continue
        try:
            flips = bundle.value(config, f"{path}#flips") if component.get("flips") else None
        except UnknownValueError:
            continue
        knows_sides = component.get("labels") or component.get("contralaterals")
        if not knows_sides and any(0 in flip for flip in flips or () if isinstance(flip, list | tuple)):
            message = f"windows are flipped left to right, so {pair[0]} would be taken for {pair[1]}"
            fix = 'Tell the inferer what its channels mean: "labels": "@labels".'
            yield error("flip-contralaterals", bundle.location(config, f"{path}#flips"), message, fix)


def _flips_of_training(bundle: BundleFiles, pair: tuple[str, str]) -> Iterator[Finding]:
    left_right = _left_right_axis(bundle)
    reported: set[str] = set()
    for path, component in components(bundle.expanded("train")):
        name = str(component["_target_"]).rpartition(".")[2].removesuffix("Dict").removesuffix("d")
        if name not in _FLIPS or component.get("_disabled_") is True or str(dict(component)) in reported:
            continue
        reported.add(str(dict(component)))
        if component.get("prob", 0.1) == 0:
            continue
        axes = _flipped_axes(bundle, path, component) if name != "RandAxisFlip" else None
        if axes is not None and left_right is not None and left_right not in axes:
            continue
        report = error if left_right is not None or axes is None else warning
        flipped = "any axis" if axes is None else f"axis {', '.join(map(str, sorted(axes)))}"
        message = f"it flips {flipped}, so {pair[0]} would be learned as {pair[1]}"
        fix = "Leave that axis out, or exchange the labels with it (medseg.transforms.RandAugmentd does)."
        yield report("flip-contralaterals", bundle.location("train", path), message, fix)


def _left_right_axis(bundle: BundleFiles) -> int | None:
    """Return the axis that runs from left to right; None where the config turns images to no known orientation."""
    for step in chain(bundle, "train", "train#dataset"):
        codes = step.arguments.get("axcodes")
        if step.name == "Orientation" and isinstance(codes, str | list):
            return next((number for number, letter in enumerate(codes) if str(letter).upper() in {"L", "R"}), None)
    return None


def _flipped_axes(bundle: BundleFiles, path: str, component: Mapping[str, Any]) -> set[int] | None:
    """Return the axes that a component flips; None for all."""
    if component.get("spatial_axis") is None:
        return None
    try:
        axes = bundle.value("train", f"{path}#spatial_axis")
    except UnknownValueError:
        return None
    if isinstance(axes, int):
        return {axes}
    return {int(axis) for axis in axes} if isinstance(axes, list | tuple) else None
