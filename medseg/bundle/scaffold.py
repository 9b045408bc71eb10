"""A bundle of one's own from one that is there: other classes, channels and spacing, the same wiring.

Not MONAI's `init_bundle`, which writes a skeleton that neither trains nor infers.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.atomic import atomic_folder, write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.source import METADATA
from medseg.errors import ConfigError, LabelError, OutputError
from medseg.labels import LabelMap, catalogue, groups, only_v1
from medseg.runs.record import RECORD
from medseg.search_path import find_recipe

CONFIGS = ("train", "evaluate", "inference")
CATALOGUE = "$medseg.LabelMap.totalsegmentator(@structures)"
OWN = "$medseg.LabelMap(@structures)"
_LONGEST = 64  # letters of a name, for it is a folder in paths that have an end
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CLASS = re.compile(r"[^\W_][\w .+()-]*")  # nothing that a config or a file system takes for something else
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
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
    """Write `folder/name`, a recipe like `source` for these classes; whole or not at all.

    Configs, overlays, logging and licence are the source's; metadata and README are made anew. Overlays that choose
    structures or cases belong to the source's data and stay behind. The source's configs are evaluated as far as
    classes and channels go, so it must be one that is trusted.

    Args:
        name: of the bundle and its folder: letters, digits, - and _.
        source: a bundle that says its classes under `structures` and `labels`, as medseg's do.
        classes: names without the background. Where all are structures or groups of TotalSegmentator they stand in
            that order; names of one's own stand as they are given.
        channels: of the network's input, for a network of slices 1, 3, 5 ...: the slice and its neighbours; None
            for the source's.
        spacing: mm along each axis, -1 for as it comes; None for the source's.
        folder: where the bundle's folder is made; in `bundles` it is found by name.
        authors: who it is by, for the metadata.

    Raises:
        ConfigError: a name that is none or is taken, a source without these keys or that is a run, channels or spacing
            that it cannot take.
        LabelError: classes that no label map can have.
        OutputError: the place holds something, or cannot be written.
    """
    _require_name(name, Path(folder))
    if (source.root / RECORD).is_file():
        raise ConfigError(source.root, "must be a recipe to be a model for another", "the folder of a run")
    recipe = {config: source.content(config) for config in CONFIGS}
    changes = {**_classes(source, recipe, classes), **_spacing(source, recipe, spacing)}
    changes["bundle_root"] = f"$medseg.bundle.bundle_root('{name}')"
    if authors is not None and (not authors.strip() or authors[0] in "$@%"):
        raise ConfigError("authors", "must be a name or names", repr(authors))
    location = Path(folder) / name
    with atomic_folder(location) as partial:
        _copy(source.root, partial, changes)
        more = _channels(Bundle(partial), source, channels)
        if more:
            changes.update(more)
            _copy(source.root, partial, changes)
        made = Bundle(partial)
        metadata = _metadata(made, source, name, authors)
        write_json(partial / "configs" / METADATA, metadata)
        write_text(partial / "docs" / "README.md", _readme(metadata, source, recipe["train"] | changes))
    return location


def _require_name(name: str, folder: Path) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _DEVICES or len(name) > _LONGEST:
        rule = f"must be letters, digits, - and _, {_LONGEST} at most, and no device's name"
        raise ConfigError(f"bundle name '{name[:80]}'", rule, "others" if len(name) <= _LONGEST else f"{len(name)}")
    location = folder / name
    if location.exists():
        raise OutputError(location, "must be a place where nothing is", "a file or folder", "Choose another name.")
    taken = find_recipe(name)
    if taken is not None:
        where = str(taken.parents[1])
        raise ConfigError(f"bundle name '{name}'", "must not be taken", f"a bundle in {where}", "Choose another name.")


def _classes(source: Bundle, recipe: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """`structures` and `labels` for these classes."""
    lacking = [key for key in ("structures", "labels") if any(key not in content for content in recipe.values())]
    if lacking:
        raise ConfigError(
            f"bundle '{source.name}'",
            "must say its classes under 'structures' and 'labels' to be a model for another",
            f"no '{lacking[0]}' in one of its configs",
            "Start from unet2d.",
        )
    wanted = [name.strip() for name in classes]
    for name in wanted:
        if not _CLASS.fullmatch(name):
            raise LabelError(f"class '{name}'", "must be letters, digits, spaces and . + - _ ( )", "others or none")
    twice = [name for name in wanted if sum(name.casefold() == other.casefold() for other in wanted) > 1]
    if twice:
        raise LabelError(f"class '{twice[0]}'", "must be named once, whatever its letters' case", ", ".join(twice))
    known = {entry["name"] for entry in catalogue()} | set(only_v1())
    if recipe["train"]["labels"] == CATALOGUE and set(wanted) <= known | set(groups()):
        LabelMap.totalsegmentator(wanted)
        return {"structures": wanted}
    unclear = [name for name in wanted if name in groups()]
    if unclear:
        raise LabelError(
            f"class '{unclear[0]}'",
            "is a group of TotalSegmentator, which cannot stand beside names of one's own",
            ", ".join(name for name in wanted if name not in known | set(groups())) or f"the model {source.name}",
            "Name its members, or call the class something else.",
        )
    LabelMap(wanted)
    return {"structures": wanted, "labels": OWN}


def _spacing(
    source: Bundle, recipe: Mapping[str, Mapping[str, Any]], spacing: Sequence[float] | None
) -> dict[str, Any]:
    if spacing is None:
        return {}
    if any("spacing" not in content for content in recipe.values()):
        raise ConfigError(f"bundle '{source.name}'", "must resample to a spacing to be given one", "no key 'spacing'")
    if len(spacing) != 3 or not all(step == -1 or _FINEST <= step <= _COARSEST for step in spacing):
        rule = f"must be three lengths in mm from {_FINEST} to {_COARSEST}, -1 for as it comes"
        raise ConfigError("spacing", rule, str(list(spacing)))
    return {"spacing": [int(step) if step == -1 else float(step) for step in spacing]}


def _channels(made: Bundle, source: Bundle, channels: int | None) -> dict[str, Any]:
    """What must change for that many channels of input."""
    there = _resolved(made)[1]
    if channels in (None, there):
        return {}
    recipe = made.content("train")
    change: dict[str, Any] = {}
    if isinstance(recipe.get("in_channels"), int):
        change = {"in_channels": channels}
    elif "context" in recipe and channels % 2 == 1:
        change = {"context": channels // 2}
    if channels < 1 or not change or _resolved(made, change)[1] != channels:
        fix = f"Leave it out for {there}" + (
            ", or take 3, 5, 7 ... for neighbours as well." if "context" in recipe else "."
        )
        raise ConfigError("channels", f"must be a number of channels that {source.name} can take", str(channels), fix)
    return change


def _resolved(made: Bundle, overrides: Mapping[str, Any] | None = None) -> tuple[LabelMap, int, int]:
    """The classes, the channels of the input and those of the output that a bundle's configs come to."""
    parser = made.resolve("inference", overrides)
    labels: LabelMap = parser.get_parsed_content("labels")
    inputs, outputs = (int(parser.get_parsed_content(key)) for key in ("in_channels", "out_channels"))
    return labels, inputs, outputs


def _copy(root: Path, location: Path, changes: Mapping[str, Any]) -> None:
    """The recipe in `root` with these top-level values; what a run or weights left there stays behind."""
    for path in sorted((root / "configs").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if path.stem in CONFIGS:
            for key, value in changes.items():
                text = _replaced(text, key, value)
        elif path.name != METADATA and {"structures", "labels", "split"} & set(json.loads(text)):
            continue
        write_text(location / "configs" / path.name, text)
    for name in ("configs/logging.conf", "LICENSE", "models/README.md"):
        if (root / name).is_file():
            (location / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, location / name)
    (location / "models").mkdir(exist_ok=True)


def _replaced(text: str, key: str, value: Any) -> str:
    """A JSON object's text with another value for a key that it has; laid out as it was where that can be."""
    wanted = json.loads(text)
    if key not in wanted or wanted[key] == value:
        return text
    wanted[key] = value
    line = re.compile(rf'^  "{re.escape(key)}": .*?(,?)$', re.MULTILINE)
    changed = line.sub(lambda found: f'  "{key}": {json.dumps(value, ensure_ascii=False)}{found[1]}', text, count=1)
    try:
        if json.loads(changed) == wanted:
            return changed
    except ValueError:
        pass
    return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"


def _metadata(made: Bundle, source: Bundle, name: str, authors: str | None) -> dict[str, Any]:
    labels, inputs, outputs = _resolved(made)
    printable = ", ".join(labels.structures[:6]) + (f" and {len(labels) - 7} more" if len(labels) > 7 else "")
    by = authors or f"The authors of {name}"
    old = copy.deepcopy(source.metadata)
    described = {
        "name": name,
        "version": _VERSION,
        "changelog": {_VERSION: f"First version, made from {source.name} {old.get('version', '')}".strip()},
        "monai_version": _installed("monai", old.get("monai_version")),
        "pytorch_version": _installed("torch", old.get("pytorch_version")),
        "numpy_version": _installed("numpy", old.get("numpy_version")),
        "required_packages_version": {
            package: _installed(package, version)
            for package, version in old.get("required_packages_version", {}).items()
        },
        "task": f"Segmentation of {printable}",
        "description": f"{name} learns {printable}. A recipe made from {source.name}: it comes without weights.",
        "authors": by,
        "copyright": f"Copyright {by}",
        "intended_use": "Research. Not for clinical decisions.",
    }
    metadata = {**{key: value for key, value in old.items() if key != "data_source"}, **described}
    tensors = metadata.get("network_data_format", {})
    image, pred = tensors.get("inputs", {}).get("image"), tensors.get("outputs", {}).get("pred")
    if image is None or pred is None:
        raise ConfigError(f"bundle '{source.name}'", "must describe 'image' and 'pred' in its metadata", "neither")
    if image["num_channels"] != inputs:
        names = {str(channel): f"image_{channel}" for channel in range(inputs)}
        image |= {"num_channels": inputs, "channel_def": names}
    pred |= {"num_channels": outputs, "channel_def": labels.to_dict()}
    return metadata


def _installed(package: str, otherwise: Any) -> Any:
    """The version of a package that is here, without what says for which device it was built."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def _readme(metadata: Mapping[str, Any], source: Bundle, train: Mapping[str, Any]) -> str:
    tensors, name = metadata["network_data_format"], metadata["name"]
    names = [label for value, label in tensors["outputs"]["pred"]["channel_def"].items() if value != "0"]
    network = train.get("network_def", {}).get("_target_", "see configs/train.json")
    rows = {
        "Input": f"{metadata.get('image_classes', 'images')}, {tensors['inputs']['image']['num_channels']} channel(s)",
        "Spacing": ", ".join("as it comes" if step == -1 else f"{step:g} mm" for step in train["spacing"])
        if "spacing" in train
        else None,
        "Output": metadata.get("pred_classes", "one label map"),
        "Classes": ", ".join(names),
        "Network": f"`{network}`",
        "Made from": f"{source.name} {source.metadata.get('version', '')}".strip(),
    }
    table = [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{metadata['task']}. This folder is a recipe: it comes without weights. A run of it",
            f"(`runs/{name}/<time>-<name>/`) is the same bundle with weights.",
            "",
            "| | |",
            "|---|---|",
            *table,
            "",
            f"    medseg train {name} --data FOLDER",
            f"    medseg predict runs/{name}/RUN SCAN -o masks --preview",
            "",
            "## Limits",
            "",
            metadata["intended_use"],
            "",
        ]
    )
