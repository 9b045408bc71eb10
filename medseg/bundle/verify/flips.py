"""Left and right turned round under classes that come in pairs: the left kidney would be learned as the right one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.chains import chain
from medseg.bundle.verify.classes import label_map, named_channels
from medseg.bundle.verify.opened import Opened, UnknownValueError
from medseg.config.paths import components
from medseg.findings import Finding, error, warning
from medseg.labels import twin_name

_FLIPS = {"RandFlip", "Flip", "RandAxisFlip"}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on flips along the axis from left to right."""
    pair = contralaterals(bundle)
    if pair is None:
        return
    for config in bundle.configs:
        yield from _at_inference(bundle, config, pair)
    if "train" in bundle.configs:
        yield from _in_training(bundle, pair)


def _at_inference(bundle: Opened, config: str, pair: tuple[str, str]) -> Iterator[Finding]:
    """Windows that the inferer turns round, left and right, without being told which channels change places."""
    for path, component in components(bundle.expanded(config)):
        if str(component["_target_"]).rpartition(".")[2] != "StreamingInferer":
            continue
        try:
            flips, exchanged = (
                bundle.value(config, f"{path}#{name}") if component.get(name) else None
                for name in ("flips", "contralaterals")
            )
        except UnknownValueError:
            continue
        if exchanged is None and any(0 in flip for flip in flips or () if isinstance(flip, list | tuple)):
            yield error(
                "flip-contralaterals",
                bundle.location(config, f"{path}#flips"),
                f"left and right are turned round, and {pair[0]} would pass for {pair[1]}",
                "Say in 'contralaterals' which channels change places: $@labels.mirror_permutation().",
            )


def _in_training(bundle: Opened, pair: tuple[str, str]) -> Iterator[Finding]:
    side = _axis(bundle)
    content = bundle.expanded("train")
    seen: set[str] = set()
    for path, component in components(content):
        short = str(component["_target_"]).rpartition(".")[2].removesuffix("Dict").removesuffix("d")
        if short not in _FLIPS or component.get("_disabled_") is True or str(dict(component)) in seen:
            continue
        seen.add(str(dict(component)))
        if component.get("prob", 0.1) == 0:
            continue
        axes = _flipped(bundle, path, component) if short != "RandAxisFlip" else None
        if axes is not None and side is not None and side not in axes:
            continue
        say = error if side is not None or axes is None else warning
        which = "any axis" if axes is None else f"axis {', '.join(map(str, sorted(axes)))}"
        yield say(
            "flip-contralaterals",
            bundle.location("train", path),
            f"it turns {which} round, and {pair[0]} would pass for {pair[1]}",
            "Leave that axis alone, or exchange the labels with it (medseg.transforms.RandAugmentd does).",
        )


def contralaterals(bundle: Opened) -> tuple[str, str] | None:
    """Two classes that are each other's mirror image; None where there are none."""
    names = set(named_channels(bundle))
    for config in bundle.configs:
        labels = label_map(bundle, config)
        names |= set(labels) if labels is not None else set()
    by_form = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in names}
    for form, name in sorted(by_form.items()):
        other = twin_name(form)
        if other in by_form:
            return name, by_form[other]
    return None


def _axis(bundle: Opened) -> int | None:
    """The axis that runs from left to right; None where the config does not turn images to a known one."""
    for step in chain(bundle, "train", "train#dataset"):
        codes = step.arguments.get("axcodes")
        if step.name == "Orientation" and isinstance(codes, str | list):
            return next((number for number, letter in enumerate(codes) if str(letter).upper() in {"L", "R"}), None)
    return None


def _flipped(bundle: Opened, path: str, component: Mapping[str, Any]) -> set[int] | None:
    """The axes that are turned round; None for all."""
    if component.get("spatial_axis") is None:
        return None
    try:
        found = bundle.value("train", f"{path}#spatial_axis")
    except UnknownValueError:
        return None
    if isinstance(found, int):
        return {found}
    return {int(one) for one in found} if isinstance(found, list | tuple) else None
