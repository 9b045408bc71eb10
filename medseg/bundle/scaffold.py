"""Create a bundle from an existing one: other classes, channels and spacing, the same wiring.

Not MONAI's `init_bundle`, which writes a skeleton that neither trains nor infers.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.atomic import atomic_folder, write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import METADATA
from medseg.bundle.share.versions import METADATA_KEYS, versions
from medseg.catalogue import catalogue, groups, only_v1
from medseg.errors import ConfigError, LabelError, OutputError, command_line
from medseg.labels import LabelMap
from medseg.runs.find import DEVICES
from medseg.runs.origin import remember_bundle
from medseg.runs.record import RECORD
from medseg.search_path import find_recipe

CONFIGS = ("train", "evaluate", "inference")
CATALOGUE = "$medseg.LabelMap.totalsegmentator(@structures)"
CUSTOM = "$medseg.LabelMap(@structures)"
_LONGEST = 64  # letters of a name: it is a folder in paths that may be long already
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CLASS = re.compile(r"[^\W_][\w .+()-]*")  # nothing that means something to a config or a file system
_FINEST, _COARSEST = 0.01, 100  # mm; beyond these a decimal point was lost
_VERSION = "0.1.0"


def new_bundle(
    name: str,
    source: Bundle,
    classes: Sequence[str],
    channels: int | None = None,
    spacing: Sequence[float] | None = None,
    folder: str | Path = "bundles",
    authors: str | None = None,
) -> Path:
    """Write `folder/name`, a recipe like `source` for these classes; complete or not at all.

    Configs, overlays, logging and license are the source's; metadata and README are written anew. Overlays that choose
    structures or cases belong to the source's data and stay behind. The source's configs are evaluated as far as
    classes and channels go, so it must be the user's own or trusted. The new bundle counts as the user's own.

    Args:
        name: of the bundle and its folder: letters, digits, - and _.
        source: a bundle that has its classes under `structures` and `labels`, as medseg's do.
        classes: names without the background. If all are structures or groups of TotalSegmentator they get its order;
            custom names keep theirs.
        channels: of the network's input, for a network of slices 1, 3, 5 ...: the slice and its neighbors; None for
            the source's.
        spacing: mm along each axis, -1 leaves an axis as it is; None for the source's.
        folder: where the bundle's folder is created; in `bundles` it is found by name.
        authors: for the metadata.

    Raises:
        ConfigError: a name that cannot be used, a source without these keys or that is a run, channels or spacing that
            it cannot take.
        LabelError: classes that no label map can have.
        OutputError: the folder exists, or cannot be written.

    Example:
        >>> new_bundle("lesions", Bundle.open("unet2d"), ["liver", "liver tumor"], channels=3)  # doctest: +SKIP
        PosixPath('bundles/lesions')
    """
    _require_name(name, Path(folder))
    source.require_trust("train")
    if (source.root / RECORD).is_file():
        problem = "this is the folder of a run, and a bundle is created from a recipe"
        raise ConfigError(source.root, problem, "", "Start from the recipe it was trained with.")
    recipe = {config: source.content(config) for config in CONFIGS}
    changes = {**_classes(source, recipe, classes), **_spacing(source, recipe, spacing)}
    changes["bundle_root"] = f"$medseg.bundle.bundle_root('{name}')"
    if authors is not None and (not authors.strip() or authors[0] in "$@%"):
        raise ConfigError("authors", "this is not a name", f"got {authors!r}", "Give the name of who made it.")
    location = Path(folder) / name
    with atomic_folder(location) as partial:
        _copy(source.root, partial, changes)
        more = _channels(Bundle(partial, trust=True), source, channels)
        if more:
            changes.update(more)
            _copy(source.root, partial, changes)
        metadata = _metadata(Bundle(partial, trust=True), source, name, authors)
        write_json(partial / "configs" / METADATA, metadata)
        write_text(partial / "docs" / "README.md", _readme(metadata, source, recipe["train"] | changes))
    remember_bundle(location)
    return location


def _require_name(name: str, folder: Path) -> None:
    thing = f"bundle name '{name[:80]}'"
    if len(name) > _LONGEST:
        raise ConfigError(thing, f"a name has at most {_LONGEST} letters", f"got {len(name)}", "Shorten it.")
    if not _NAME.fullmatch(name) or name.lower() in DEVICES:
        problem = "a name has letters, digits, - and _, and is not that of a device"
        raise ConfigError(thing, problem, "", "Choose another name, such as lesions.")
    if (folder / name).exists():
        raise OutputError(folder / name, "this file or folder exists already", "", "Choose another name.")
    taken = find_recipe(name)
    if taken is not None:
        raise ConfigError(thing, f"the bundle in {taken.parents[1]} has this name", "", "Choose another name.")


def _classes(source: Bundle, recipe: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Return `structures` and `labels` for these classes."""
    missing = [key for key in ("structures", "labels") if any(key not in content for content in recipe.values())]
    if missing:
        raise ConfigError(
            f"bundle '{source.name}'",
            f"one of its configs has no key '{missing[0]}', so its classes cannot be changed",
            "",
            "Start from unet2d.",
        )
    names = [name.strip() for name in classes]
    for name in names:
        if not _CLASS.fullmatch(name):
            problem = "a class has letters, digits, spaces and . + - _ ( )"
            raise LabelError(f"class '{name}'", problem, "", "Rename it.")
    repeated = [name for name in names if sum(name.casefold() == listed.casefold() for listed in names) > 1]
    if repeated:
        problem = "a class is named once, in capital or small letters"
        raise LabelError(f"class '{repeated[0]}'", problem, f"got {', '.join(repeated)}", "Remove the repetition.")
    structures = {entry["name"] for entry in catalogue()} | set(only_v1())
    custom_order = recipe["train"]["labels"] == CUSTOM or recipe["train"].get("data", {}).get("slices")
    if not custom_order and set(names) <= structures | set(groups()):
        LabelMap.totalsegmentator(names)  # raises for what cannot be combined
        return {"structures": names, "labels": CATALOGUE}
    ambiguous = [name for name in names if name in groups()]
    if ambiguous:
        custom = ", ".join(name for name in names if name not in structures | set(groups()))
        raise LabelError(
            f"class '{ambiguous[0]}'",
            "a group of TotalSegmentator cannot be combined with custom names",
            f"got {custom}" if custom else f"the labels of {source.name} are custom",
            "Name its members, or call the class something else.",
        )
    LabelMap(names)
    return {"structures": names, "labels": CUSTOM}


def _spacing(
    source: Bundle, recipe: Mapping[str, Mapping[str, Any]], spacing: Sequence[float] | None
) -> dict[str, Any]:
    if spacing is None:
        return {}
    if any("spacing" not in content for content in recipe.values()):
        problem = "its configs have no key 'spacing', so it cannot be changed"
        raise ConfigError(f"bundle '{source.name}'", problem, "", "Leave --spacing out.")
    if len(spacing) != 3 or not all(step == -1 or _FINEST <= step <= _COARSEST for step in spacing):
        problem = f"a spacing is three lengths from {_FINEST} to {_COARSEST} mm, -1 leaves an axis as it is"
        raise ConfigError("spacing", problem, f"got {list(spacing)}", "Use for example 1.5 1.5 -1.")
    return {"spacing": [int(step) if step == -1 else float(step) for step in spacing]}


def _channels(bundle: Bundle, source: Bundle, channels: int | None) -> dict[str, Any]:
    """Return what must change for that many channels of input."""
    current = _resolved(bundle)[1]
    if channels in (None, current):
        return {}
    recipe = bundle.content("train")
    change: dict[str, Any] = {}
    if isinstance(recipe.get("in_channels"), int):
        change = {"in_channels": channels}
    elif "context" in recipe and channels % 2 == 1:
        change = {"context": channels // 2}
    if channels < 1 or not change or _resolved(bundle, change)[1] != channels:
        neighbors = ", or use 3, 5, 7 ... for neighboring slices" if "context" in recipe else ""
        fix = f"Leave it out for {current}{neighbors}."
        raise ConfigError("channels", f"{source.name} cannot take this number of channels", f"got {channels}", fix)
    return change


def _resolved(bundle: Bundle, overrides: Mapping[str, Any] | None = None) -> tuple[LabelMap, int, int]:
    """Return the classes, the channels of the input and those of the output that a bundle's configs come to."""
    parser = bundle.resolve("inference", overrides)
    labels: LabelMap = parser.get_parsed_content("labels")
    inputs, outputs = (int(parser.get_parsed_content(key)) for key in ("in_channels", "out_channels"))
    return labels, inputs, outputs


def _copy(root: Path, target: Path, changes: Mapping[str, Any]) -> None:
    """Copy the recipe in `root` with these top-level values; what a run or weights left there stays behind."""
    for path in sorted((root / "configs").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if path.stem in CONFIGS:
            for key, value in changes.items():
                text = _replaced(text, key, value)
        elif path.name != METADATA and {"structures", "labels", "split"} & set(json.loads(text)):
            continue
        write_text(target / "configs" / path.name, text)
    for name in ("configs/logging.conf", "LICENSE", "models/README.md"):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    (target / "models").mkdir(exist_ok=True)


def _replaced(text: str, key: str, value: Any) -> str:
    """Return a JSON object's text with another value for a key that it has, laid out as before where possible."""
    content = json.loads(text)
    if key not in content or content[key] == value:
        return text
    content[key] = value
    line = re.compile(rf'^  "{re.escape(key)}": .*?(,?)$', re.MULTILINE)
    changed = line.sub(lambda match: f'  "{key}": {json.dumps(value, ensure_ascii=False)}{match[1]}', text, count=1)
    try:
        if json.loads(changed) == content:
            return changed
    except ValueError:
        pass  # the value goes over several lines: lay out all of it anew
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _metadata(bundle: Bundle, source: Bundle, name: str, authors: str | None) -> dict[str, Any]:
    labels, inputs, outputs = _resolved(bundle)
    structures = ", ".join(labels.structures[:6]) + (f" and {len(labels) - 7} more" if len(labels) > 7 else "")
    author = authors or f"The authors of {name}"
    old = copy.deepcopy(source.metadata)
    required = old.get("required_packages_version", {})
    installed = versions(bundle.root, required)
    metadata = {
        **{key: value for key, value in old.items() if key != "data_source"},
        "name": name,
        "version": _VERSION,
        "changelog": {_VERSION: f"First version, made from {source.name} {old.get('version', '')}".strip()},
        **{key: installed.get(package, old.get(key)) for key, package in METADATA_KEYS.items()},
        "required_packages_version": {
            package: installed.get(package, version) for package, version in required.items()
        },
        "task": f"Segmentation of {structures}",
        "description": f"{name} learns {structures}. A recipe made from {source.name}: it comes without weights.",
        "authors": author,
        "copyright": f"Copyright {author}",
        "intended_use": "Research. Not for clinical decisions.",
    }
    data_format = metadata.get("network_data_format", {})
    image, pred = data_format.get("inputs", {}).get("image"), data_format.get("outputs", {}).get("pred")
    if image is None or pred is None:
        problem = "its metadata does not describe 'image' and 'pred' in network_data_format"
        raise ConfigError(f"bundle '{source.name}'", problem, "", "Describe them, or start from unet2d.")
    if image["num_channels"] != inputs:
        names = {str(channel): f"image_{channel}" for channel in range(inputs)}
        image |= {"num_channels": inputs, "channel_def": names}
    pred |= {"num_channels": outputs, "channel_def": labels.to_dict()}
    return metadata


def _readme(metadata: Mapping[str, Any], source: Bundle, train: Mapping[str, Any]) -> str:
    data_format, name = metadata["network_data_format"], metadata["name"]
    image, channels = data_format["inputs"]["image"], data_format["outputs"]["pred"]["channel_def"]
    rows = {"Input": f"{metadata.get('image_classes', 'images')}, {image['num_channels']} channel(s)"}
    if "spacing" in train:
        rows["Spacing"] = ", ".join("unchanged" if step == -1 else f"{step:g} mm" for step in train["spacing"])
    rows["Output"] = metadata.get("pred_classes", "one label map")
    rows["Classes"] = ", ".join(label for index, label in channels.items() if index != "0")
    rows["Network"] = f"`{train.get('network_def', {}).get('_target_', 'see configs/train.json')}`"
    rows["Made from"] = f"{source.name} {source.metadata.get('version', '')}".strip()
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {name}

{metadata["task"]}. This folder is a recipe: it comes without weights. A run of it
(`runs/{name}/<time>-<name>/`) is the same bundle with weights.

| | |
|---|---|
{table}

    {command_line("train", name, tail="--data FOLDER")}
    medseg predict runs/{name}/RUN SCAN -o masks --preview

## Limits

{metadata["intended_use"]}
"""
