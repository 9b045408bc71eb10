"""Check the keys of configs: those that MONAI looks for, references that lead nowhere, entries that nothing uses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig

from medseg.bundle import config_check
from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.config.merge import merge
from medseg.config.paths import at, components, has, resolved_path, walk
from medseg.config.references import SPECIAL_KEYS, is_component, is_expression, key_path, macro, parse, references
from medseg.errors import ConfigError, did_you_mean
from medseg.findings import Finding, error, warning

_MONAI = {"train": TrainProperties.values(), "inference": InferProperties.values()}
_ID = BundlePropertyConfig.ID
_REFERENCE = BundlePropertyConfig.REF_ID
_REQUIRED = BundleProperty.REQUIRED
# Keys that MONAI requires; what the zoo's guide asks for besides; and where an engine or a dataset must refer to a key.
_REQUIRED_KEYS = {name: [key_path(entry[_ID]) for entry in part if entry[_REQUIRED]] for name, part in _MONAI.items()}
_ZOO_TRAIN = ("train#dataset#data", "train#handlers")
_ZOO_VALIDATE = ("validate#evaluator", "validate#dataset", "validate#dataset#data", "validate#handlers")
_USED_AT = {
    name: {key_path(entry[_ID]): key_path(entry[_REFERENCE]) for entry in part if "::" in str(entry.get(_REFERENCE))}
    for name, part in _MONAI.items()
}
# What MONAI, its zoo, MONAI Label and medseg itself look up by name, in any config.
_BY_NAME = {
    "imports", "initialize", "finalize", "run", "bundle_root", "output_dir", "ckpt_path", "ckpt_dir", "network",
    "labels", "displayable_configs", "volume_preprocessing", "volume_inferer", "spacing", "in_channels",
    "out_channels", "amp", "use_mlflow", "save_execute_config", "train", "validate", "datalist", "checkpointloader",
}  # fmt: skip
_LOOKED_UP = _BY_NAME | {key_path(entry[_ID]) for part in _MONAI.values() for entry in part}
_NOT_RUN = {"imports", "initialize", "finalize"}
_INDEX = re.compile(r"#\d+(#|$)")
_NAME_THEM = "Give each a name in a dictionary, and refer to it by that name."


def check_keys(bundle: BundleFiles) -> Iterator[Finding]:
    """Find keys that MONAI or its zoo look for and that are missing, or are not what is used."""
    for config, content in bundle.configs.items():
        kind = "train" if "train" in content or config == "train" else "inference"
        required = _REQUIRED_KEYS[kind]
        for key in [*required, *_zoo_keys(kind, content)]:
            if not (has(content, resolved_path(content, key)) or has(content, key)):
                report = error if key in required else warning
                fix = "Add it: MONAI or its zoo looks for it."
                yield report("key-missing", bundle.location(config, key), "the key is missing", fix)
        if not isinstance(content.get("run"), list) or not content["run"]:
            ids = [key for key, value in content.items() if _is_runnable(value) and key not in _NOT_RUN]
            fix = f"It runs as '{ids[0]}' only: rename it to 'run'." if ids else "Add a list of expressions."
            message = "without it MONAI does nothing and says nothing, unless it is told another id"
            yield warning("run-missing", bundle.location(config, "run"), message, fix)
        yield from _elsewhere(bundle, config, content)


def _is_runnable(value: Any) -> bool:
    """Return True for a list of expressions, which MONAI can run by its key."""
    return isinstance(value, list) and bool(value) and all(is_expression(entry) for entry in value)


def _zoo_keys(kind: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield keys that MONAI does not require, and that its zoo or a part of the config needs."""
    if kind == "train":
        yield from _ZOO_TRAIN
        if "validate" in content:
            yield from _ZOO_VALIDATE
    classes = (str(component["_target_"]).rpartition(".")[2] for _, component in components(content))
    if any(name.startswith("Save") for name in classes):
        yield "output_dir"


def _elsewhere(bundle: BundleFiles, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    """Find parts that an engine takes from elsewhere than the key at which MONAI looks for them."""
    for key, path in _USED_AT["train" if "train" in content else "inference"].items():
        value = at(content, path)
        if value is None or not has(content, path.rpartition("#")[0]):
            continue
        used = references(value) if isinstance(value, str) else []
        if key not in used and has(content, key):
            message = f"it does not refer to '{key}', which the config has"
            fix = f"Refer to it: readers of '{key}' expect that it is used."
            yield warning("key-elsewhere", bundle.location(config, path), message, fix)
    for path, component in components(content):
        if str(component["_target_"]).endswith("ValidationHandler") and component.get("interval") != "@val_interval":
            fix = "Write '@val_interval': MONAI looks for the interval at that key."
            location = bundle.location(config, f"{path}#interval")
            yield warning("key-elsewhere", location, "it does not refer to 'val_interval'", fix)


def check_references(bundle: BundleFiles) -> Iterator[Finding]:
    """Find references that lead nowhere, entries that nothing uses, and overlays that change nothing."""
    for config, content in bundle.configs.items():
        yield from _dangling(bundle, config, content)
        yield from _unused(bundle, config, content)
    for name, bases in bundle.overlays.items():
        yield from _overlay(bundle, name, bases)


def _dangling(bundle: BundleFiles, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    existing = [path for path, _ in walk(content)]
    for path, value in walk(content):
        if not isinstance(value, str):
            continue
        copied = macro(value)
        if copied is not None and copied[0]:
            message = f"'{value}' copies from another file, which MONAI looks for in the working directory"
            yield error("reference-file", bundle.location(config, path), message, "Write the value here.")
            continue
        for target in [copied[1]] if copied is not None else references(value):
            if target in ("", "bundle_root") or target.startswith(("#", "_meta_")):
                continue  # relative paths, and what MONAI always provides
            if not (has(content, target) or has(content, resolved_path(content, target))):
                message = f"'{value[:80]}' refers to '{target}', which does not exist"
                fix = did_you_mean(target, existing, "Define it, or correct the reference.")
                yield error("reference-missing", bundle.location(config, path), message, fix)


def _unused(bundle: BundleFiles, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    strings = [value for _, value in walk(content) if isinstance(value, str)]
    if any("@#" in value or "%#" in value for value in strings):
        return  # what relative references use depends on where they stand
    used = {*references(content), *_LOOKED_UP}
    used |= {copied[1] for value in strings if (copied := macro(value)) is not None}
    for path, value in _entries(content):
        if path in used or any(target.startswith(f"{path}#") for target in used):
            continue
        if any(path.startswith(f"{target}#") for target in used if target not in {"train", "validate"}):
            continue
        if _is_runnable(value) and "#" not in path:
            continue
        leaves = [target.rpartition("#")[2] for target in used]
        fix = did_you_mean(path.rpartition("#")[2], leaves, "Remove it, or refer to it with '@'.")
        yield warning("key-unused", bundle.location(config, path), "nothing refers to it", fix)


def _entries(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested dictionaries; those within a component are its arguments and left out."""
    for key, value in config.items():
        inner = f"{path}#{key}" if path else str(key)
        if key in SPECIAL_KEYS or key.startswith("_"):
            continue
        yield inner, value
        if isinstance(value, Mapping) and not is_component(value):
            yield from _entries(value, inner)


def _overlay(bundle: BundleFiles, name: str, bases: tuple[str, ...]) -> Iterator[Finding]:
    if not bases:
        message = "it is an overlay, and no config of the bundle fits it"
        fix = "Put the config's name into its own: train, evaluate or inference."
        yield warning("overlay-alone", bundle.location(name), message, fix)
        return
    files = [bundle.root / "configs" / f"{config}.json" for config in (*bases, name)]
    try:
        recipe, merged = merge(files[:-1], {}), merge(files, {})
        runnable = {key: value for key, value in merged.items() if key in _BY_NAME or _is_runnable(value)}
        config_check.check({**runnable, **recipe}, merged)
    except ConfigError as problem:
        reason = f"{problem.thing}: {problem.reason}"
        yield error("key-unknown", bundle.location(name), reason, problem.fix)


def check_positions(bundle: BundleFiles) -> Iterator[Finding]:
    """Find components addressed by their index in a list: one more before them, and another one is meant."""
    contents = {**bundle.configs, **{name: bundle.files[name] for name in bundle.overlays}}
    for config, content in contents.items():
        merged = dict(content)
        for base in bundle.overlays.get(config, ()):
            merged = {**bundle.files[base], **merged}
        for key in content:
            if _INDEX.search(key_path(key)):
                yield warning("position", bundle.location(config, key), "the key has the index of a list", _NAME_THEM)
        for path, value in walk(content):
            if not isinstance(value, str):
                continue
            location = bundle.location(config, path)
            copied = macro(value)
            for target in [copied[1]] if copied else references(value):
                if _INDEX.search(target):
                    yield warning("position", location, f"'{target}' has the index of a list", _NAME_THEM)
            if is_expression(value) and (name := _indexed_list(value, merged)):
                message = f"'{value[:80]}' takes entries of '{name}' by their index"
                yield warning("position", location, message, _NAME_THEM)


def _indexed_list(value: str, content: Mapping[str, Any]) -> str | None:
    """Return the path of the list of components that an expression takes entries of by index; None for none."""
    tree, names = parse(value)
    for node in ast.walk(tree) if tree is not None else ():
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in names):
            continue
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            continue
        path = names[node.value.id]
        entries = at(content, resolved_path(content, path))
        if isinstance(entries, list) and any(is_component(entry) or macro(entry) for entry in entries):
            return path
    return None
