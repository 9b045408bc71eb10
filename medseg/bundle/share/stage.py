"""Gather the files of a bundle to be packed: sanitized configs, metadata, label map and docs."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.atomic import write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import METADATA
from medseg.bundle.run import without_recipe_note
from medseg.bundle.share.archive import folder_name
from medseg.bundle.share.sanitize import check_leaks, private_texts, sanitize_config
from medseg.bundle.share.versions import METADATA_KEYS, versions
from medseg.bundle.verify.manifest import MANIFEST
from medseg.config.paths import at
from medseg.errors import ConfigError, nearest
from medseg.labels import LabelMap
from medseg.runs.record import HISTORY, RECORD, read_record
from medseg.search_path import search_path

LABELS = "label_map.json"
CARD = "docs/model_card.md"
_RECIPE = "recipe"  # key of the metadata: the bundle that was trained
_COPIED = ("configs/logging.conf", "LICENSE")
_TEXT_KEYS = ("authors", "copyright", "data_source", "description", "intended_use", "name", "task", "version")
_VERSION = re.compile(r"\d+(\.\d+)*([.+-]?[A-Za-z][\w.]*)?")


@dataclass(frozen=True)
class NetworkFacts:
    """What a bundle's configs come to, which its metadata has to say too.

    Args:
        labels: the classes; None where its inference.json names none.
        in_channels: channels of the network's input; None where the configs do not say.
        out_channels: channels of its output; None where the configs do not say.
        takes_hu: True if its inference.json says which HU are black and white (`window`), so that it is for CT.
    """

    labels: LabelMap | None = None
    in_channels: int | None = None
    out_channels: int | None = None
    takes_hu: bool = False


@dataclass
class StagedBundle:
    """A bundle that is being packed.

    Attributes:
        folder: its files.
        metadata: content of its metadata.json.
        removed: `file: key` of every value that became null.
    """

    folder: Path
    metadata: dict[str, Any]
    removed: list[str] = field(default_factory=list)


def stage(bundle: Bundle, folder: Path, changes: Mapping[str, str] | None = None) -> StagedBundle:
    """Copy a bundle's configs, label map and docs into a folder, sanitized; weights are left out, nothing is run.

    Of a run, previews, logs, checkpoints and its record stay behind: they name cases, people and places.

    Args:
        bundle: a bundle, or the folder of a run.
        folder: an empty folder.
        changes: texts of the metadata to replace (`description`, `authors`, `version`, ...).

    Raises:
        ConfigError: a config that cannot be read or names a path, see `sanitize_config`; a key of the metadata that is
            not a text, or a text that it cannot have.
        DataError: a file names a folder of this machine or a case, see `check_leaks`.
    """
    removed: list[str] = []
    cases = case_ids(bundle.root)
    for path in sorted((bundle.root / "configs").glob("*.json")):
        if path.name == METADATA:
            continue
        content = bundle.content(path.stem)
        sanitized, keys = sanitize_config(content, path, cases)
        usable = _with_defaults(sanitized, keys, recipe_config(bundle, path.name))
        for key in keys:
            if usable.get(key) is None or usable[key] != content.get(key):
                removed.append(f"{path.name}: {key}")
        write_json(folder / "configs" / path.name, usable)
    if not (folder / "configs" / "inference.json").is_file():
        raise ConfigError(bundle.root, "configs/inference.json is missing", "", "Add it: packed bundles must predict.")
    for name in _COPIED:
        if (bundle.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / name, folder / name)
    _copy_docs(bundle.root / "docs", folder / "docs")
    texts = "".join(path.read_text(encoding="utf-8") for path in (folder / "configs").glob("*.json"))
    for path in bundle.root.glob("*.json"):  # files that a config reads, such as the colors of the classes
        if path.name not in (RECORD, HISTORY, MANIFEST, LABELS) and f"/{path.name}'" in texts:
            shutil.copyfile(path, folder / path.name)
    if (bundle.root / LABELS).is_file():
        write_text(folder / LABELS, (bundle.root / LABELS).read_text(encoding="utf-8"))
    metadata = _metadata(bundle, changes or {})
    write_json(folder / "configs" / METADATA, metadata)
    check_leaks(folder, private_texts(cases), _structures(folder), _recipe_root(bundle))
    return StagedBundle(folder, metadata, removed)


def _copy_docs(source: Path, target: Path) -> None:
    """Copy texts, and the images that a text shows: any other image may be of a patient."""
    files = [path for path in sorted(source.glob("*")) if path.is_file()]
    texts = "".join(path.read_text(encoding="utf-8", errors="replace") for path in files if path.suffix == ".md")
    for path in files:
        if path.suffix in (".md", ".txt") or (path.suffix == ".png" and path.name in texts):
            target.mkdir(exist_ok=True)
            shutil.copyfile(path, target / path.name)


def _structures(folder: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return [str(name) for name in json.loads((folder / LABELS).read_text(encoding="utf-8")).values()]
    return []


def describe(staged: StagedBundle, facts: NetworkFacts) -> None:
    """Write into the metadata and the label map of a staged bundle what its configs come to.

    Args:
        staged: see `stage`; its metadata is changed here and in its file.
        facts: what the configs come to.
    """
    if facts.labels is not None:
        facts.labels.save(staged.folder / LABELS)
    data_format = staged.metadata.get("network_data_format", {})
    output = data_format.get("outputs", {}).get("pred")
    image = data_format.get("inputs", {}).get("image")
    if isinstance(output, dict) and facts.out_channels is not None:
        output["num_channels"] = facts.out_channels
        if facts.labels is not None:
            has_background = facts.out_channels == len(facts.labels)
            names = facts.labels.names if has_background else facts.labels.structures
            output["channel_def"] = {str(index): name for index, name in enumerate(names)}
    if isinstance(image, dict) and facts.in_channels is not None and image.get("num_channels") != facts.in_channels:
        image["num_channels"] = facts.in_channels
        image["channel_def"] = {str(index): f"image_{index}" for index in range(facts.in_channels)}
    if isinstance(image, dict) and facts.takes_hu:
        image["modality"] = "CT"
    write_json(staged.folder / "configs" / METADATA, staged.metadata)


def case_ids(root: Path) -> list[str]:
    """Return the names of the cases that a run was trained with, sorted; empty for a bundle that is not a run's."""
    subsets = read_record(root).get("cases")
    lists = subsets.values() if isinstance(subsets, Mapping) else ()
    return sorted({str(case) for ids in lists if isinstance(ids, list) for case in ids})


def recipe_config(bundle: Bundle, file: str) -> dict[str, Any]:
    """Return the config of that name in medseg's own recipe that a bundle was made with; empty if it was not."""
    root = _recipe_root(bundle)
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((root / "configs" / file).read_text(encoding="utf-8"))) if root is not None else {}
    return {}


def _recipe_root(bundle: Bundle) -> Path | None:
    """Return the folder of medseg's own recipe that a bundle was trained from; None where there is none."""
    name = str(bundle.metadata.get(_RECIPE, bundle.name))
    if Path(name).name != name:
        return None
    roots = [home / "bundles" / name for home in search_path()[1:]]
    return next((root for root in roots if (root / "configs" / METADATA).is_file()), None)


def _with_defaults(config: dict[str, Any], removed: list[str], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with what bundles have where something private was removed."""
    if "run_name" in removed:
        config["run_name"] = recipe.get("run_name")
    for path in removed:
        parent, _, key = path.rpartition("#")
        holder, subsets = at(config, parent), at(recipe, path)
        if key == "split" and isinstance(holder, dict) and holder.get(key) is None and isinstance(subsets, dict):
            holder[key] = dict.fromkeys(subsets)
    if "ckpt_path" in removed:
        config["ckpt_path"] = "$@bundle_root + '/models/model.pt'"
    if "bundle_root" in removed:
        config["bundle_root"] = "."
    if "output_dir" in removed:
        # a run's config starts runs; any other writes its masks into the bundle
        starts_runs = any("medseg.bundle.start_run(" in value for value in config.values() if isinstance(value, str))
        config["output_dir"] = "$medseg.bundle.runs_dir(@bundle_root)" if starts_runs else "$@bundle_root + '/eval'"
    return config


def _metadata(bundle: Bundle, changes: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata with the versions it was made with, and the texts that were asked for."""
    metadata: dict[str, Any] = json.loads(json.dumps(bundle.metadata))
    if started := re.sub(r"[-:]", "", str(read_record(bundle.root).get("started", "")))[:15]:
        # not the recipe's name, for two of its runs are two bundles, and not the run's, which may tell something
        metadata |= {"name": folder_name(f"{bundle.name}-{started.replace('T', '-')}"), _RECIPE: bundle.name}
    for key, text in changes.items():
        if not isinstance(metadata.get(key, ""), str):
            kind = f"got a {type(metadata[key]).__name__}"
            raise ConfigError(f"metadata, {key}", "only texts can be changed here", kind, "Edit metadata.json.")
        _require_text(key, text, metadata)
        metadata[key] = text
    metadata["description"] = without_recipe_note(metadata.get("description", ""))
    metadata["version"] = str(metadata.get("version", "0.1.0"))
    changelog = metadata.setdefault("changelog", {})
    if isinstance(changelog, dict):
        changelog.setdefault(metadata["version"], "Packed with trained weights")
    required = metadata.get("required_packages_version")
    made_with = versions(bundle.root, required if isinstance(required, dict) else ())
    for key, package in METADATA_KEYS.items():
        metadata[key] = made_with.get(package, metadata.get(key))
    if isinstance(required, dict):
        metadata["required_packages_version"] = {
            name: made_with.get(name, version) for name, version in required.items()
        }
    return metadata


def _require_text(key: str, text: str, existing: Mapping[str, Any]) -> None:
    thing = f"metadata, {key}"
    if not text.strip():
        raise ConfigError(thing, "the text is empty", "", f"Give one, for example {key}='...'.")
    if key not in existing and (similar := nearest(key, [*existing, *_TEXT_KEYS])):
        raise ConfigError(thing, "metadata.json has no such key", "", f"Did you mean '{similar[0]}'?")
    if key == "version" and not _VERSION.fullmatch(text):
        raise ConfigError(thing, "a version is numbers with dots", f"got '{text}'", "Use for example 1.2.0.")
    if key == "name" and folder_name(text) != text:
        raise ConfigError(
            thing, "a bundle's name must be one of a folder", f"got '{text}'", f"Use '{folder_name(text)}'."
        )
