"""The folder that is packed: a bundle's files less what belongs to one run and one machine."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import medseg
from medseg.atomic import write_json, write_text
from medseg.bundle.bundle import Bundle
from medseg.bundle.share.archiving import folder_name
from medseg.bundle.share.privacy import without_places
from medseg.bundle.share.reading import read_through, words_here
from medseg.bundle.source import METADATA
from medseg.bundle.verify.manifest import MANIFEST
from medseg.errors import ConfigError, nearest
from medseg.labels import LabelMap
from medseg.runs.record import HISTORY, RECORD, read_record
from medseg.search_path import search_path

LABELS = "label_map.json"
CARD = "docs/model_card.md"
_NO_WEIGHTS = "A recipe: it comes without weights."  # what our recipes say of themselves
_COPIED = ("configs/logging.conf", "LICENSE")
_TEXTS = ("authors", "copyright", "data_source", "description", "intended_use", "name", "task", "version")
_VERSION = re.compile(r"\d+(\.\d+)*([.+-]?[A-Za-z][\w.]*)?")
_VERSIONS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


@dataclass(frozen=True)
class Described:
    """What the bundle's own configs say once they are read: what its metadata has to agree with.

    Args:
        labels: the classes; None where its inference.json names none.
        in_channels: channels of the network's input; None where nothing says.
        out_channels: of its output.
    """

    labels: LabelMap | None = None
    in_channels: int | None = None
    out_channels: int | None = None


@dataclass
class Staged:
    """What was put together.

    Attributes:
        folder: where it lies.
        metadata: what its metadata says.
        removed: `file: key` of all that became null.
    """

    folder: Path
    metadata: dict[str, Any]
    removed: list[str] = field(default_factory=list)


def stage(bundle: Bundle, folder: Path, changes: Mapping[str, str] | None = None) -> Staged:
    """Copy configs, label map and docs of a bundle into a folder, fit to be shared; weights are not among them.

    Nothing is executed. Of a run, previews, logs, checkpoints and its record stay where they are: they name cases,
    people and places.

    Args:
        bundle: a bundle, or the folder of a run.
        folder: an empty folder.
        changes: texts of the metadata that are to be others (`description`, `authors`, `version`, ...).

    Raises:
        ConfigError: a config that cannot be read or names a place, see `without_places`; a key of the metadata that
            is no text, or a text that it cannot have.
        DataError: a file names a folder of this machine or a case, see `read_through`.
    """
    removed: list[str] = []
    cases = case_ids(bundle.root)
    for path in sorted((bundle.root / "configs").glob("*.json")):
        if path.name == METADATA:
            continue
        content = bundle.content(path.stem)
        cleaned, taken = without_places(content, path, cases)
        usable = _usable(cleaned, taken, recipe_config(bundle, path.name))
        removed += [
            f"{path.name}: {key}" for key in taken if usable.get(key) is None or usable[key] != content.get(key)
        ]
        write_json(folder / "configs" / path.name, usable)
    if not (folder / "configs" / "inference.json").is_file():
        raise ConfigError(bundle.root, "must hold configs/inference.json to be packed", "no such file")
    for name in _COPIED:
        if (bundle.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / name, folder / name)
    docs = [path for path in sorted((bundle.root / "docs").glob("*")) if path.is_file()]
    printable = "".join(path.read_text(encoding="utf-8", errors="replace") for path in docs if path.suffix == ".md")
    for path in docs:
        if path.suffix in (".md", ".txt") or (path.suffix == ".png" and path.name in printable):
            (folder / "docs").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "docs" / path.name)
    texts = "".join(path.read_text(encoding="utf-8") for path in (folder / "configs").glob("*.json"))
    for path in bundle.root.glob("*.json"):  # what a config reads beside itself, such as the colours of the classes
        if path.name not in (RECORD, HISTORY, MANIFEST, LABELS) and f"/{path.name}'" in texts:
            shutil.copyfile(path, folder / path.name)
    if (bundle.root / LABELS).is_file():
        write_text(folder / LABELS, (bundle.root / LABELS).read_text(encoding="utf-8"))
    description = _metadata(bundle, changes or {})
    write_json(folder / "configs" / METADATA, description)
    read_through(folder, words_here(cases), _structures(folder), _recipe_root(bundle))
    return Staged(folder, description, removed)


def _structures(folder: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return [str(name) for name in json.loads((folder / LABELS).read_text(encoding="utf-8")).values()]
    return []


def describe(staged: Staged, said: Described) -> None:
    """Let metadata and label map of what was put together say what its configs say.

    Args:
        staged: see `stage`; its metadata is changed, here and in its file.
        said: what the configs say.
    """
    if said.labels is not None:
        said.labels.save(staged.folder / LABELS)
    data = staged.metadata.get("network_data_format", {})
    outputs, inputs = data.get("outputs", {}).get("pred"), data.get("inputs", {}).get("image")
    if isinstance(outputs, dict) and said.out_channels is not None:
        outputs["num_channels"] = said.out_channels
        if said.labels is not None:
            names = said.labels.names if said.out_channels == len(said.labels) else said.labels.structures
            outputs["channel_def"] = {str(index): name for index, name in enumerate(names)}
    if isinstance(inputs, dict) and said.in_channels is not None and inputs.get("num_channels") != said.in_channels:
        inputs["num_channels"] = said.in_channels
        inputs["channel_def"] = {str(index): f"image_{index}" for index in range(said.in_channels)}
    write_json(staged.folder / "configs" / METADATA, staged.metadata)


def case_ids(root: Path) -> list[str]:
    """The names of the cases that a run was trained with, sorted; none for a bundle that is no run's."""
    sides = read_record(root).get("cases")
    found = sides.values() if isinstance(sides, Mapping) else ()
    return sorted({str(one) for ids in found if isinstance(ids, list) for one in ids})


def recipe_config(bundle: Bundle, file: str) -> dict[str, Any]:
    """The config of that name in medseg's own recipe that a bundle was made with; empty where it was none."""
    root = _recipe_root(bundle)
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((root / "configs" / file).read_text(encoding="utf-8"))) if root is not None else {}
    return {}


def _recipe_root(bundle: Bundle) -> Path | None:
    """The folder of medseg's own recipe of a bundle's name; None where there is none."""
    if Path(bundle.name).name != bundle.name:
        return None
    places = [home / "bundles" / bundle.name for home in search_path()[1:]]
    return next((location for location in places if (location / "configs" / METADATA).is_file()), None)


def _usable(config: dict[str, Any], taken: list[str], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what bundles have there, where that was of this machine or of this run alone."""
    if "run_name" in taken:
        config["run_name"] = recipe.get("run_name")
    if "split" in taken and isinstance(recipe.get("split"), dict) and not isinstance(config["split"], dict):
        config["split"] = dict.fromkeys(recipe["split"])
    if "ckpt_path" in taken:
        config["ckpt_path"] = "$@bundle_root + '/models/model.pt'"
    if "bundle_root" in taken:
        config["bundle_root"] = "."
    if "output_dir" in taken:
        ours = "$import medseg" in config.get("imports", ()) and "this_run" in config
        config["output_dir"] = "$medseg.bundle.runs_dir(@bundle_root)" if ours else "$@bundle_root + '/eval'"
    return config


def _metadata(bundle: Bundle, changes: Mapping[str, str]) -> dict[str, Any]:
    """The metadata with the versions it was made with, and what was asked for."""
    found: dict[str, Any] = json.loads(json.dumps(bundle.metadata))
    for key, value in changes.items():
        if not isinstance(found.get(key, ""), str):
            raise ConfigError(f"metadata, {key}", "must be a text to be changed", type(found[key]).__name__)
        _require_text(key, value, found)
        found[key] = value
    if isinstance(found.get("description"), str):
        found["description"] = found["description"].replace(_NO_WEIGHTS, "").strip()
    changelog = found.setdefault("changelog", {})
    version = str(found.get("version", "0.1.0"))
    found["version"] = version
    if isinstance(changelog, dict):
        changelog.setdefault(version, "Packed with trained weights")
    needed = found.get("required_packages_version")
    made_with = versions(bundle.root, needed if isinstance(needed, dict) else ())
    for key, package in _VERSIONS.items():
        found[key] = made_with.get(package, found.get(key))
    if isinstance(needed, dict):
        found["required_packages_version"] = {name: made_with.get(name, value) for name, value in needed.items()}
    return found


def _require_text(key: str, value: str, known: Mapping[str, Any]) -> None:
    thing = f"metadata, {key}"
    if not value.strip():
        raise ConfigError(thing, "must be given a text", "nothing", f"For example {key}='...'.")
    if key not in known and (near := nearest(key, [*known, *_TEXTS])):
        raise ConfigError(thing, "must be a key of metadata.json", "none of that name", f"Did you mean '{near[0]}'?")
    if key == "version" and not _VERSION.fullmatch(value):
        raise ConfigError(thing, "must be a version of numbers, such as 1.2.0", f"'{value}'")
    if key == "name" and folder_name(value) != value:
        raise ConfigError(thing, "must be a folder's name", f"'{value}'", f"'{folder_name(value)}' would be one.")


def versions(root: Path, others: Iterable[str] = ()) -> dict[str, str]:
    """The versions that a run was trained with, without their builds; where nothing says, those installed here."""
    said = read_record(root).get("versions", {})
    found = {str(name): str(value).partition("+")[0] for name, value in said.items()}
    found.setdefault("medseg", medseg.__version__)
    for name in (*_VERSIONS.values(), *others):
        if name not in found:
            with contextlib.suppress(PackageNotFoundError):
                found[name] = installed(name).partition("+")[0]
    return found
