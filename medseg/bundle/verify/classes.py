"""The classes: label map, metadata and configs number them alike, or a liver is called a spleen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.bundle.verify.opened import METADATA, Opened, UnknownValueError, mapping
from medseg.config.paths import at
from medseg.errors import LabelError
from medseg.findings import Finding, error
from medseg.labels import BACKGROUND, LabelMap

FILE = "label_map.json"
_CHANNELS = "network_data_format#outputs#pred#channel_def"


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on classes that are numbered in more than one way."""
    said: dict[str, Sequence[str]] = {}
    if (bundle.root / FILE).is_file():
        try:
            said[FILE] = LabelMap.load(bundle.root / FILE).names
        except LabelError as fault:
            yield error("label-map", FILE, f"{fault.problem} ({fault.came})", "Number the classes from 0 on.")
    channels = named_channels(bundle)
    if channels:
        said[bundle.location(METADATA, _CHANNELS)] = channels
    for config in bundle.configs:
        labels = label_map(bundle, config)
        if labels is not None:
            said[bundle.location(config, "labels")] = labels.names
    places = list(said)
    for location in places[1:]:
        yield from _compare(places[0], said[places[0]], location, said[location])


def named_channels(bundle: Opened) -> list[str]:
    """The names of the output's channels in their order, or of the classes where one channel holds their numbers."""
    found = mapping(at(bundle.metadata, _CHANNELS))
    if list(found) != [str(number) for number in range(len(found))] or not all(
        isinstance(one, str) for one in found.values()
    ):
        return []
    return list(found.values())


def label_map(bundle: Opened, config: str) -> LabelMap | None:
    """The label map of a config; None where it has none that can be had without the data."""
    if "labels" not in bundle.configs[config]:
        return None
    try:
        found = bundle.value(config, "labels")
    except UnknownValueError:
        return None
    return found if isinstance(found, LabelMap) else None


def _compare(one: str, first: Sequence[str], other: str, second: Sequence[str]) -> Iterator[Finding]:
    first, second = _structures(first), _structures(second)
    if first == second:
        return
    if sorted(first) == sorted(second):
        number = next(index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
        yield error(
            "label-order",
            other,
            f"the classes stand in another order than in {one}: {second[number]} where that has {first[number]}",
            "Take the order of the training.",
        )
        return
    only = [*(name for name in first if name not in second), *(name for name in second if name not in first)]
    yield error(
        "label-names",
        other,
        f"it has {len(second)} classes, and {one} has {len(first)}; in one alone: "
        f"{', '.join(only[:3])}{' ...' if len(only) > 3 else ''}",
        "Take the classes of the training.",
    )


def _structures(names: Sequence[str]) -> list[str]:
    """The names without the background, which independent channels do not have."""
    return [name for number, name in enumerate(names) if number or name.lower() != BACKGROUND]
